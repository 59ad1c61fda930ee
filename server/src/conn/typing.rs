//! Datagrams of a connection: typing indicators are relayed to whoever is connected, and are neither kept nor logged.

use std::sync::Arc;

use bytes::Bytes;
use quinn::{Connection, ConnectionError};
use tokio::task::JoinHandle;

use super::Shell;
use crate::session::{Heard, TypingRelay};
use crate::store::StoreError;
use crate::store::record::ConversationHead;

/// Who is in a conversation, as the store says.
type Found = Result<Option<ConversationHead>, StoreError>;

/// What a connection that has sent a datagram holds of them; one that has not holds nothing.
pub(super) struct Typings {
    relay: TypingRelay,
    looking: Option<JoinHandle<Found>>,
}

/// Drops whatever comes, until the connection ends: unread, it would hold on to the packets that it came in.
///
/// Cancel safety: a datagram is dropped or waits still.
pub(super) async fn discard(connection: &Connection) -> ConnectionError {
    loop {
        if let Err(error) = connection.read_datagram().await {
            return error;
        }
    }
}

/// Whether a look-up is under way.
pub(super) fn is_looking(typings: Option<&Typings>) -> bool {
    typings.is_some_and(|typings| typings.looking.is_some())
}

/// The result of a look-up; `None` when it failed.
///
/// Cancel safety: the look-up goes on and can be joined again.
pub(super) async fn join(typings: Option<&mut Typings>) -> Option<ConversationHead> {
    typings?.looking.as_mut()?.await.ok()?.ok()?
}

impl Shell {
    /// Takes a datagram; those that come before the proof mean nothing.
    pub(super) fn on_datagram(&mut self, datagram: Bytes) {
        let Some(from) = self.session.authority() else { return };
        let typings =
            self.typings.get_or_insert_with(|| Box::new(Typings { relay: TypingRelay::new(from), looking: None }));
        let heard = typings.relay.hear(datagram, self.shared.clock.now_ms());
        self.relay_typing(heard);
    }

    /// It is known who is in the conversation that a datagram waits for.
    pub(super) fn on_roster(&mut self, head: Option<&ConversationHead>) {
        let Some(typings) = &mut self.typings else { return };
        typings.looking = None;
        let heard = typings.relay.found(head, self.shared.clock.now_ms());
        self.relay_typing(heard);
    }

    fn relay_typing(&mut self, heard: Heard) {
        match heard {
            Heard::Nothing => self.shared.metrics.typing_dropped.increment(1),
            Heard::LookUp(conversation) => {
                let directory = Arc::clone(&self.shared.directory);
                let looking = self.shared.work.start(move || directory.audience(conversation));
                if let Some(typings) = &mut self.typings {
                    typings.looking = Some(looking);
                }
            }
            Heard::Relay { to, datagram } => {
                self.shared.metrics.typing_relayed.increment(1);
                to.iter().for_each(|account| self.shared.hub.signal(*account, &datagram));
            }
        }
    }
}
