//! An account's devices, and how one of them links another that waits.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gureum_proto::{Code, LinkId, Refusal, Response};

use super::{Answer, Requests};
use crate::limits::LINK_REPLY_MS_MAX;
use crate::session::Authenticated;

impl Requests {
    pub(super) async fn list_devices(self: &Arc<Self>, from: Authenticated) -> Answer {
        self.blocking(move |this| {
            let log = this.own_log(from)?;
            let mut devices = Vec::new();
            for (device, _) in log.active() {
                devices.push(this.directory.device_state(from.account(), device)?);
            }
            Ok(Response::Devices(devices))
        })
        .await
    }

    pub(super) fn find_link(&self, from: Authenticated, link: LinkId) -> Answer {
        self.quotas.look_up(from.account())?;
        let offer = self.linking.find(link, self.clock.now_ms())?;
        Ok(Response::LinkFound { offer })
    }

    /// Waits for the countersignature, for which the new device must be there.
    pub(super) async fn answer_link(&self, from: Authenticated, link: LinkId, payload: Bytes) -> Answer {
        self.quotas.look_up(from.account())?;
        let reply = self.linking.answer(link, from, payload, self.clock.now_ms())?;
        match tokio::time::timeout(Duration::from_millis(LINK_REPLY_MS_MAX), reply).await {
            Ok(Ok(payload)) => Ok(Response::LinkCountersigned { payload }),
            Ok(Err(_)) | Err(_) => Err(Refusal::with_detail(Code::LinkGone, "the new device did not reply")),
        }
    }

    pub(super) fn finish_link(&self, from: Authenticated, link: LinkId, payload: Bytes) -> Answer {
        self.linking.finish(link, from, payload, self.clock.now_ms())?;
        Ok(Response::LinkFinished)
    }
}
