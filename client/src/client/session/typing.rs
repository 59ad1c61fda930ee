//! Typing indicators: said at a pace, and told to whoever listens.

use std::time::Duration;

use gureum_proto::Typing;
use tokio::time::Instant;

use super::Session;
use crate::client::error::ClientError;
use crate::client::event::ClientEvent;
use crate::limits::{TYPING_EVERY, TYPING_HEARD_MAX, TYPING_HEARD_WINDOW, TYPING_SHOWN};
use crate::vault::{Resolved, Target, TargetError, Vault};

/// What was said and heard lately.
#[derive(Debug, Default)]
pub(super) struct Typings {
    /// To whom, or in which group, it was said last that this person types, and when it is to be said again.
    said: Option<(Target, Instant)>,
    /// Since when it is counted how many came, and how many that were.
    heard: Option<(Instant, u32)>,
}

impl Typings {
    /// Whether anything new is to be said. Who has not said that they type need not say that they have stopped.
    fn may_say(&mut self, with: &Target, types: bool, now: Instant) -> bool {
        if !types {
            return self.said.take_if(|(to, _)| to == with).is_some();
        }
        let lately = self.said.as_ref().is_some_and(|(to, again_at)| to == with && now < *again_at);
        if !lately {
            self.said = Some((with.clone(), now + TYPING_EVERY));
        }
        !lately
    }

    /// A message has gone to somebody, who sees by that that nothing is being typed: what comes next is said at once.
    pub(super) fn ended(&mut self, with: &Target) {
        if self.said.as_ref().is_some_and(|(to, _)| to == with) {
            self.said = None;
        }
    }

    /// Whether one more is looked at: no server makes a client work without end.
    fn may_hear(&mut self, now: Instant) -> bool {
        let (since, count) = self.heard.unwrap_or((now, 0));
        let is_over = now.duration_since(since) >= TYPING_HEARD_WINDOW;
        let (since, count) = if is_over { (now, 0) } else { (since, count) };
        self.heard = Some((since, count.saturating_add(1)));
        count < TYPING_HEARD_MAX
    }
}

impl Session<'_> {
    /// Says that this person types, or has stopped. It may be lost, and nobody waits for it.
    pub(super) async fn say_typing(&mut self, with: Target, types: bool) -> Result<(), ClientError> {
        if !self.typings.may_say(&with, types, Instant::now()) {
            return Ok(());
        }
        let sealed = self.sync.vault.call(move |vault: &mut Vault| {
            let conversation = match vault.resolve_alone(&with) {
                Ok(Resolved::Id(known) | Resolved::Group(known)) => Some(known),
                Ok(Resolved::Contact(contact)) => vault.conversation_with(contact.account)?,
                Ok(Resolved::Unknown) => None,
                Err(TargetError::Vault(error)) => return Err(error),
                Err(_) => None,
            };
            let Some(conversation) = conversation else { return Ok(None) };
            vault.seal_typing(conversation.id, types)
        });
        if let Some(typing) = sealed.await? {
            self.sync.link.typing(&typing);
        }
        Ok(())
    }

    /// Somebody types. Whoever has too much to listen to misses it.
    pub(super) async fn hear_typing(&mut self, typing: Typing) -> Result<(), ClientError> {
        if !self.typings.may_hear(Instant::now()) {
            return Ok(());
        }
        let conversation = typing.conversation;
        if let Some((from, types)) = self.sync.vault.call(move |vault| vault.open_typing(&typing)).await? {
            let ends_in = if types { TYPING_SHOWN } else { Duration::ZERO };
            let _ = self.out.try_send(ClientEvent::Typing { conversation, from, ends_in });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_types_says_so_now_and_then_and_once_that_they_have_stopped() {
        let (mut typings, start) = (Typings::default(), Instant::now());
        let (bob, carol): (Target, Target) = ("bob".parse().unwrap(), "carol".parse().unwrap());
        assert!(!typings.may_say(&bob, false, start), "they had not begun");
        assert!(typings.may_say(&bob, true, start));
        assert!(!typings.may_say(&bob, true, start + TYPING_EVERY / 2));
        assert!(typings.may_say(&bob, true, start + TYPING_EVERY));
        assert!(typings.may_say(&carol, true, start + TYPING_EVERY), "to somebody else at once");
        assert!(typings.may_say(&carol, false, start + TYPING_EVERY));
        assert!(!typings.may_say(&carol, false, start + TYPING_EVERY));
        assert!(typings.may_say(&carol, true, start + TYPING_EVERY), "they have begun anew");
        typings.ended(&carol);
        assert!(!typings.may_say(&carol, false, start + TYPING_EVERY), "the message has said it");
        assert!(typings.may_say(&carol, true, start + TYPING_EVERY));
    }

    #[test]
    fn so_many_are_looked_at_in_a_while() {
        let (mut typings, start) = (Typings::default(), Instant::now());
        let mut looked_at = |at| (0..100).filter(|_| typings.may_hear(at)).count();
        let most = usize::try_from(TYPING_HEARD_MAX).unwrap();
        assert_eq!(looked_at(start), most);
        assert_eq!(looked_at(start + TYPING_HEARD_WINDOW / 2), 0);
        assert_eq!(looked_at(start + TYPING_HEARD_WINDOW), most);
    }
}
