//! What the writer, the hub and the links have for one connection: picked up by its task, one wake-up for however much.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard};

use bytes::Bytes;
use gureum_proto::{Code, Notice, PhoneNotice, Sent};
use tokio::sync::Notify;

use crate::limits::SIGNALS_MAX;
use crate::linking::LinkListener;
use crate::router::Answers;
use crate::wake::Listener;

/// Bounded by what may be in flight: each answer is of a send that the session has counted.
#[derive(Default)]
pub(super) struct Mailbox {
    mail: Mutex<Mail>,
    notify: Notify,
}

/// Everything since the last time.
#[derive(Default)]
pub(super) struct Mail {
    pub(super) answers: Vec<Sent>,
    pub(super) is_woken: bool,
    pub(super) is_displaced: bool,
    /// Why the device may no longer act.
    pub(super) cut_off: Option<Code>,
    pub(super) is_copied: bool,
    /// Boxed: most connections never get any of it.
    pub(super) rare: Option<Box<RareMail>>,
}

/// What comes to few connections, and seldom.
#[derive(Default)]
pub(super) struct RareMail {
    /// The newest one.
    pub(super) notice: Option<Notice>,
    /// The newest one: it tells all that there is to tell.
    pub(super) phone: Option<PhoneNotice>,
    /// Datagrams: the newest ones.
    pub(super) signals: VecDeque<Bytes>,
    pub(super) link: LinkMail,
}

/// What a device that waits to be linked is to learn.
#[derive(Default)]
pub(super) struct LinkMail {
    /// The newest answer to its code.
    pub(super) answer: Option<Bytes>,
    pub(super) is_logged: bool,
    pub(super) bundle: Option<Bytes>,
}

impl Mail {
    fn rare(&mut self) -> &mut RareMail {
        self.rare.get_or_insert_default()
    }
}

impl Mailbox {
    /// Waits until there is mail.
    ///
    /// Cancel safety: a notification that is not taken stays.
    pub(super) async fn changed(&self) {
        self.notify.notified().await;
    }

    pub(super) fn take(&self) -> Mail {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Mail> {
        self.mail.lock().expect("no code panics while it holds the mail")
    }
}

impl Answers for Mailbox {
    fn answer(&self, sent: Vec<Sent>) {
        let mut mail = self.lock();
        if mail.answers.is_empty() {
            mail.answers = sent;
        } else {
            mail.answers.extend(sent);
        }
        drop(mail);
        self.notify.notify_one();
    }
}

impl LinkListener for Mailbox {
    fn answered(&self, payload: Bytes) {
        self.lock().rare().link.answer = Some(payload);
        self.notify.notify_one();
    }

    fn logged(&self) {
        self.lock().rare().link.is_logged = true;
        self.notify.notify_one();
    }

    fn finished(&self, payload: Bytes) {
        self.lock().rare().link.bundle = Some(payload);
        self.notify.notify_one();
    }

    fn displaced(&self) {
        self.displace();
    }
}

impl Listener for Mailbox {
    fn wake(&self) {
        self.lock().is_woken = true;
        self.notify.notify_one();
    }

    fn displace(&self) {
        self.lock().is_displaced = true;
        self.notify.notify_one();
    }

    fn revoke(&self, why: Code) {
        self.lock().cut_off = Some(why);
        self.notify.notify_one();
    }

    fn notice(&self, notice: Notice) {
        self.lock().rare().notice = Some(notice);
        self.notify.notify_one();
    }

    fn phone(&self, notice: PhoneNotice) {
        self.lock().rare().phone = Some(notice);
        self.notify.notify_one();
    }

    fn copied(&self) {
        self.lock().is_copied = true;
        self.notify.notify_one();
    }

    fn signal(&self, datagram: &Bytes) {
        let mut mail = self.lock();
        let signals = &mut mail.rare().signals;
        if signals.len() >= SIGNALS_MAX {
            signals.pop_front();
        }
        signals.push_back(datagram.clone());
        drop(mail);
        self.notify.notify_one();
    }
}
