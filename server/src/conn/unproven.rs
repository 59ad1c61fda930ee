//! What a connection may ask for that has proven nothing: an account, a link to one, one brought back, or a code.

use std::sync::Arc;

use bytes::Bytes;
use gureum_proto::{Link, Phone, Recover, Refusal, Register};

use super::{Mailbox, Shell};
use crate::linking::LinkListener;
use crate::listen::network;
use crate::quota::Asker;
use crate::session::Input;

impl Shell {
    pub(super) async fn register(&mut self, register: Register) {
        let result = match self.allowed().and_then(|()| self.may_show_code(&register)) {
            Ok(()) => self.shared.requests.register(register).await,
            Err(refusal) => Err(refusal),
        };
        match &result {
            Ok(_) => self.shared.metrics.registrations.increment(1),
            Err(refusal) => self.refused(refusal),
        }
        self.handle(Input::Registered(result));
    }

    pub(super) fn offer_link(&mut self, link: Link) {
        // A place that this connection had before is not another connection's.
        self.offered = None;
        let listener: Arc<dyn LinkListener> = Arc::<Mailbox>::clone(&self.mailbox);
        let (address, now_ms) = (network(self.connection.remote_address().ip()), self.shared.clock.now_ms());
        let offered = self.allowed().and_then(|()| self.shared.linking.offer(link, address, listener, now_ms));
        match offered {
            Ok(offered) => self.offered = Some(offered),
            Err(refusal) => {
                self.refused(&refusal);
                self.handle(Input::LinkRefused(refusal));
            }
        }
    }

    pub(super) fn reply_link(&self, payload: Bytes) {
        if let Some(offered) = &self.offered {
            offered.reply(payload);
        }
    }

    pub(super) async fn recover(&mut self, recover: Recover) {
        let result = match self.allowed() {
            Ok(()) => self.shared.requests.recover(recover).await,
            Err(refusal) => Err(refusal),
        };
        if let Err(refusal) = &result {
            self.refused(refusal);
        }
        self.handle(Input::Recovered(result));
    }

    pub(super) async fn request_code(&mut self, phone: Phone) {
        let address = self.connection.remote_address().ip();
        let result = match self.allowed() {
            Ok(()) => self.shared.requests.request_code(&phone, address).await,
            Err(refusal) => Err(refusal),
        };
        if let Err(refusal) = &result {
            self.refused(refusal);
        }
        self.handle(Input::CodeSent(result));
    }

    /// Whether this address may ask for more.
    fn allowed(&self) -> Result<(), Refusal> {
        self.shared.requests.quotas.register(self.connection.remote_address().ip())
    }

    /// Whether this address may show one more code, if there is one.
    fn may_show_code(&self, register: &Register) -> Result<(), Refusal> {
        let asker = Asker::Address(network(self.connection.remote_address().ip()));
        if register.phone.is_some() { self.shared.requests.quotas.phone_proof(asker) } else { Ok(()) }
    }

    fn refused(&self, refusal: &Refusal) {
        self.shared.metrics.registrations_refused.increment(refusal.code);
    }
}
