//! Devices that wait to be linked: who shows a code meets who has read it. What they tell each other is sealed, and kept
//! in memory alone: a link that a restart has cut off is offered anew.
//!
//! Pure but for a lock: the time is handed in, and what happens is told to listeners.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use gureum_proto::{AccountId, Code, DeviceId, Link, LinkId, Refusal};
use tokio::sync::oneshot;

use crate::limits::{
    LINK_ANSWER_MS_MAX, LINK_BUNDLES_BYTES_MAX, LINK_MS_MAX, LINKS_MAX, LINKS_PER_ACCOUNT_MAX, LINKS_PER_ADDRESS_MAX,
};
use crate::session::Authenticated;

/// When there may be room again.
const RETRY_AFTER_MS: u64 = 30_000;

/// What can be said to the connection of a device that waits. Called under the lock of [`Linking`]: it must not come
/// back to that.
pub(crate) trait LinkListener: Send + Sync {
    /// A device of an account answers.
    fn answered(&self, payload: Bytes);
    /// The account's log has the device.
    fn logged(&self);
    /// What it is handed.
    fn finished(&self, payload: Bytes);
    /// A newer connection of the same device waits.
    fn displaced(&self);
}

/// All links of one process.
#[derive(Default)]
pub(crate) struct Linking {
    links: Mutex<HashMap<LinkId, Waiting>>,
}

struct Waiting {
    device: DeviceId,
    address: IpAddr,
    offer: Bytes,
    until_ms: u64,
    /// `None` while the device is away: it may come back.
    listener: Option<Arc<dyn LinkListener>>,
    answer: Option<Answer>,
    is_logged: bool,
    bundle: Option<Bytes>,
}

struct Answer {
    by: Authenticated,
    payload: Bytes,
    /// When it came.
    at_ms: u64,
    /// Who has answered was revoked since, and adds nothing any more.
    is_void: bool,
    /// Who waits for the reply.
    asked: Option<oneshot::Sender<Bytes>>,
}

/// A waiting device's place; it is away when this is dropped.
pub(crate) struct Offered {
    linking: Arc<Linking>,
    link: LinkId,
    listener: Arc<dyn LinkListener>,
}

impl Linking {
    /// Lets a device wait, or takes up the wait of one that has come back: then it is told again what has happened.
    ///
    /// # Errors
    /// Another device waits under this code, or too many wait.
    pub(crate) fn offer(
        self: &Arc<Self>,
        link: Link,
        address: IpAddr,
        listener: Arc<dyn LinkListener>,
        now_ms: u64,
    ) -> Result<Offered, Refusal> {
        let mut links = self.lock(now_ms);
        let until_ms = now_ms.saturating_add(LINK_MS_MAX);
        if let Some(waiting) = links.get_mut(&link.link) {
            if waiting.device != link.device {
                return Err(gone());
            }
            if let Some(older) = waiting.listener.replace(Arc::clone(&listener)) {
                older.displaced();
            }
            if waiting.offer != link.offer && !waiting.is_logged {
                // What was answered, and what the digits were made from, is not what is offered.
                (waiting.offer, waiting.answer) = (link.offer, None);
            }
            waiting.until_ms = until_ms;
            waiting.tell();
        } else {
            let here = links.values().filter(|waiting| waiting.address == address).count();
            if links.len() >= LINKS_MAX || here >= LINKS_PER_ADDRESS_MAX {
                return Err(Refusal::new(Code::RateLimited).retry_after_ms(RETRY_AFTER_MS));
            }
            let waiting = Waiting {
                device: link.device,
                address,
                offer: link.offer,
                until_ms,
                listener: Some(Arc::clone(&listener)),
                answer: None,
                is_logged: false,
                bundle: None,
            };
            links.insert(link.link, waiting);
        }
        Ok(Offered { linking: Arc::clone(self), link: link.link, listener })
    }

    /// What the device offers that waits under a code.
    ///
    /// # Errors
    /// None waits.
    pub(crate) fn find(&self, link: LinkId, now_ms: u64) -> Result<Bytes, Refusal> {
        self.lock(now_ms).get(&link).map(|waiting| waiting.offer.clone()).ok_or_else(gone)
    }

    /// Tells the device that waits of an answer. Its reply comes out of what is returned, which ends without one if the
    /// link does. Who has answered may answer again; another device of the account once who has answered is revoked, or has
    /// said nothing more for a while; other accounts may not, for the new device listens to one alone.
    ///
    /// # Errors
    /// None waits, another device has answered, who answers was revoked, the device is in the log already, or the account
    /// answers too many.
    pub(crate) fn answer(
        &self,
        link: LinkId,
        by: Authenticated,
        payload: Bytes,
        now_ms: u64,
    ) -> Result<oneshot::Receiver<Bytes>, Refusal> {
        let mut links = self.lock(now_ms);
        let of_account = links.iter().filter(|(_, waiting)| waiting.answered_by() == Some(by.account()));
        let others = of_account.filter(|(id, _)| **id != link).count();
        let waiting = links.get_mut(&link).ok_or_else(gone)?;
        if waiting.is_logged || waiting.answer.as_ref().is_some_and(|answer| !answer.gives_way_to(by, now_ms)) {
            return Err(gone());
        }
        if others >= LINKS_PER_ACCOUNT_MAX {
            return Err(Refusal::new(Code::RateLimited).retry_after_ms(RETRY_AFTER_MS));
        }
        let (asked, reply) = oneshot::channel();
        waiting.answer = Some(Answer { by, payload, at_ms: now_ms, is_void: false, asked: Some(asked) });
        waiting.tell();
        Ok(reply)
    }

    /// An account's log has a device now, which may be one that waits.
    pub(crate) fn logged(&self, account: AccountId, device: DeviceId, now_ms: u64) {
        for waiting in self.lock(now_ms).values_mut() {
            if waiting.device == device && waiting.answered_by() == Some(account) && !waiting.is_logged {
                waiting.is_logged = true;
                waiting.tell();
            }
        }
    }

    /// An account's log has revoked a device: what it has answered adds nothing any more, and another one may answer.
    pub(crate) fn revoked(&self, account: AccountId, device: DeviceId, now_ms: u64) {
        for waiting in self.lock(now_ms).values_mut() {
            let is_theirs = |answer: &&mut Answer| (answer.by.account(), answer.by.device()) == (account, device);
            if !waiting.is_logged
                && let Some(answer) = waiting.answer.as_mut().filter(is_theirs)
            {
                (answer.is_void, answer.asked) = (true, None);
            }
        }
    }

    /// Hands the device over what it needs. The same again does no harm.
    ///
    /// # Errors
    /// None waits, another device has answered, the log does not have the device, or there is no room.
    pub(crate) fn finish(&self, link: LinkId, by: Authenticated, payload: Bytes, now_ms: u64) -> Result<(), Refusal> {
        let mut links = self.lock(now_ms);
        let bytes = links.values().filter_map(|waiting| waiting.bundle.as_ref()).map(Bytes::len).sum::<usize>();
        let waiting = links.get_mut(&link).ok_or_else(gone)?;
        if waiting.answer.as_ref().is_none_or(|answer| answer.by != by) {
            return Err(gone());
        }
        if !waiting.is_logged {
            return Err(Refusal::with_detail(Code::LogInvalid, "the device log does not have the new device"));
        }
        if waiting.bundle.is_some() {
            return Ok(());
        }
        if bytes + payload.len() > LINK_BUNDLES_BYTES_MAX {
            return Err(Refusal::new(Code::RateLimited).retry_after_ms(RETRY_AFTER_MS));
        }
        waiting.bundle = Some(payload);
        waiting.tell();
        Ok(())
    }

    /// A device has proven itself: it waits no more.
    pub(crate) fn proven(&self, device: DeviceId) {
        self.unswept().retain(|_, waiting| waiting.device != device);
    }

    /// The server stops: all links are over, and whoever waits for a reply learns it.
    pub(crate) fn end(&self) {
        self.unswept().clear();
    }

    fn reply(&self, link: LinkId, listener: &Arc<dyn LinkListener>, payload: Bytes) {
        if let Some(waiting) = self.unswept().get_mut(&link)
            && waiting.is_heard_by(listener)
            && let Some(asked) = waiting.answer.as_mut().and_then(|answer| answer.asked.take())
        {
            // Nobody may wait for it any more: then it is asked for again.
            let _ = asked.send(payload);
        }
    }

    fn leave(&self, link: LinkId, listener: &Arc<dyn LinkListener>) {
        if let Some(waiting) = self.unswept().get_mut(&link)
            && waiting.is_heard_by(listener)
        {
            waiting.listener = None;
        }
    }

    /// The links that are not over.
    fn lock(&self, now_ms: u64) -> MutexGuard<'_, HashMap<LinkId, Waiting>> {
        let mut links = self.unswept();
        links.retain(|_, waiting| waiting.until_ms > now_ms);
        links
    }

    fn unswept(&self) -> MutexGuard<'_, HashMap<LinkId, Waiting>> {
        self.links.lock().expect("no code panics while it holds the links")
    }
}

impl Waiting {
    /// Tells the device how far it has come.
    fn tell(&self) {
        let Some(listener) = &self.listener else { return };
        match (&self.bundle, &self.answer) {
            (Some(bundle), _) => listener.finished(bundle.clone()),
            (None, _) if self.is_logged => listener.logged(),
            (None, Some(answer)) if !answer.is_void => listener.answered(answer.payload.clone()),
            (None, _) => {}
        }
    }

    fn answered_by(&self) -> Option<AccountId> {
        self.answer.as_ref().map(|answer| answer.by.account())
    }

    fn is_heard_by(&self, listener: &Arc<dyn LinkListener>) -> bool {
        self.listener.as_ref().is_some_and(|known| Arc::ptr_eq(known, listener))
    }
}

impl Answer {
    /// Whether another one may take its place.
    fn gives_way_to(&self, by: Authenticated, now_ms: u64) -> bool {
        if by == self.by {
            return !self.is_void;
        }
        let is_old = self.at_ms.saturating_add(LINK_ANSWER_MS_MAX) <= now_ms;
        by.account() == self.by.account() && (self.is_void || is_old)
    }
}

impl Offered {
    /// Hands the device's reply on to who has answered.
    pub(crate) fn reply(&self, payload: Bytes) {
        self.linking.reply(self.link, &self.listener, payload);
    }
}

impl Drop for Offered {
    fn drop(&mut self) {
        self.linking.leave(self.link, &self.listener);
    }
}

impl std::fmt::Debug for Linking {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Linking").field("waiting", &self.unswept().len()).finish_non_exhaustive()
    }
}

fn gone() -> Refusal {
    Refusal::new(Code::LinkGone)
}

#[cfg(test)]
mod tests;
