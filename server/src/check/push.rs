//! Push targets, what devices were woken for, and codes.

use gureum_proto::PushService;

use super::database::{Audit, Overdue, record};
use super::report::{Kind, Report};
use crate::store::Family;
use crate::store::key::{self, CursorTag, PushTag};
use crate::store::record::{CodeRecord, InboxHead, PushStateRecord, PushTargetRecord, SpentRecord};

impl Audit<'_> {
    /// A target is of a device that may connect; who was woken, or is to be, has a target, and was woken for what is there.
    pub(super) fn push(&self, report: &mut Report) {
        self.each(Family::Push, report, |push_key, value, report| match key::parse_push(push_key) {
            Some((account, device, PushTag::Target)) => {
                if let Some(target) = record::<PushTargetRecord>("push", push_key, value, report)
                    && target.service == PushService::WebPush
                {
                    report.count("Web Push targets", 1);
                }
                if !self.has(Family::Cursor, &key::cursor(&account, &device, CursorTag::Cursor)) {
                    report.find(Kind::Orphan, "push", push_key, "the device is not there, or not active, and is woken");
                }
            }
            Some((account, device, PushTag::State)) => {
                if !self.has(Family::Push, &key::push_target(&account, &device)) {
                    report.find(Kind::Orphan, "push", push_key, "the device was woken and has no target");
                }
                let Some(state) = record::<PushStateRecord>("push", push_key, value, report) else { return };
                let head: InboxHead = self.get(Family::InboxHead, &key::inbox_head(&account)).unwrap_or_default();
                if state.woken_seq > head.seq {
                    let what =
                        format!("the device was woken for {}, and the inbox ends at {}", state.woken_seq, head.seq);
                    report.find(Kind::Cursor, "push", push_key, what);
                }
            }
            Some((account, device, PushTag::Alarm)) => {
                if !self.has(Family::Push, &key::push_target(&account, &device)) {
                    report.find(Kind::Orphan, "push", push_key, "the device is to be woken at once and has no target");
                }
                let _: Option<u64> = record("push", push_key, value, report);
            }
            None => report.find(Kind::Record, "push", push_key, "the key is none of a device"),
        });
    }

    /// Codes go at their end, as the uses of invites do.
    pub(super) fn codes(&self, report: &mut Report) {
        let mut overdue = Overdue::default();
        self.each(Family::Code, report, |code_key, value, report| {
            let expires_ms = match code_key.split_first() {
                Some((b'c', number)) if number.len() == 32 => {
                    record::<CodeRecord>("code", code_key, value, report).map(|code| code.expires_ms)
                }
                Some((b's', day)) if day.len() == 4 => {
                    record::<SpentRecord>("code", code_key, value, report).map(|spent| spent.expires_ms)
                }
                _ => return report.find(Kind::Record, "code", code_key, "the key is none of a code"),
            };
            if let Some(expires_ms) = expires_ms.filter(|expires_ms| self.times.is_invite_overdue(*expires_ms)) {
                overdue.add(expires_ms, code_key);
            }
        });
        self.overdue(Family::Code, "codes", &overdue, report);
    }
}
