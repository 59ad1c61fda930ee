//! Typing indicators of one connection: how many are heard, and to whom each goes. Pure, and kept nowhere.

use std::sync::Arc;

use bytes::Bytes;
use gureum_proto::{AccountId, ConversationId, Typing};

use super::Authenticated;
use crate::limits::{
    TYPING_ACCOUNTS_MAX, TYPING_AT_ONCE_MAX, TYPING_INTERVAL_MS, TYPING_ROSTER_MS, TYPING_ROSTERS_MAX,
};
use crate::store::record::ConversationHead;

/// What becomes of a datagram.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// It is dropped.
    Nothing,
    /// It waits for [`TypingRelay::found`]: who is in this conversation is not known, or not lately.
    LookUp(ConversationId),
    /// It goes to whoever is connected of these accounts.
    Relay {
        /// At least one.
        to: Arc<[AccountId]>,
        /// As it goes out.
        datagram: Bytes,
    },
}

/// Decides about the datagrams that a device sends on one connection.
#[derive(Debug)]
pub struct TypingRelay {
    from: Authenticated,
    /// When nothing is left of what was heard so far.
    rested_at_ms: u64,
    /// The newest last.
    rosters: Vec<Roster>,
    waiting: Option<Typing>,
}

/// Who hears of it when the device types in a conversation.
#[derive(Debug)]
struct Roster {
    conversation: ConversationId,
    epoch: u64,
    /// Empty: nobody.
    others: Arc<[AccountId]>,
    until_ms: u64,
}

impl TypingRelay {
    /// Nothing was heard of this device yet.
    #[must_use]
    pub const fn new(from: Authenticated) -> Self {
        Self { from, rested_at_ms: 0, rosters: Vec::new(), waiting: None }
    }

    /// Takes a datagram at a time `now_ms`. One that comes too fast, or while another waits, is dropped.
    pub fn hear(&mut self, datagram: Bytes, now_ms: u64) -> Heard {
        let ahead_ms = self.rested_at_ms.saturating_sub(now_ms);
        if ahead_ms > TYPING_INTERVAL_MS * (TYPING_AT_ONCE_MAX - 1) || self.waiting.is_some() {
            return Heard::Nothing;
        }
        self.rested_at_ms = self.rested_at_ms.max(now_ms).saturating_add(TYPING_INTERVAL_MS);
        let Ok(typing) = Typing::decode(datagram) else { return Heard::Nothing };
        let known = self.rosters.iter().find(|roster| roster.conversation == typing.conversation);
        // An epoch after the known one may have other members: nobody who was removed is to hear of it.
        match known.filter(|roster| now_ms < roster.until_ms && typing.epoch <= roster.epoch) {
            Some(roster) => roster.relay(typing, self.from),
            None => {
                let conversation = typing.conversation;
                self.waiting = Some(typing);
                Heard::LookUp(conversation)
            }
        }
    }

    /// The answer to [`Heard::LookUp`]; `None`: there is no such conversation, or it could not be read.
    pub fn found(&mut self, head: Option<&ConversationHead>, now_ms: u64) -> Heard {
        let Some(typing) = self.waiting.take() else { return Heard::Nothing };
        let conversation = typing.conversation;
        self.rosters.retain(|roster| roster.conversation != conversation);
        if self.rosters.len() >= TYPING_ROSTERS_MAX {
            self.rosters.remove(0);
        }
        let roster = Roster {
            conversation,
            epoch: head.map_or(0, |head| head.epoch),
            others: head.map_or_else(|| Arc::from([]), |head| others(head, self.from)),
            until_ms: now_ms.saturating_add(TYPING_ROSTER_MS),
        };
        let heard = roster.relay(typing, self.from);
        self.rosters.push(roster);
        heard
    }
}

impl Roster {
    /// Of any epoch but the current one the others cannot open it.
    fn relay(&self, typing: Typing, from: Authenticated) -> Heard {
        if self.others.is_empty() || typing.epoch != self.epoch {
            return Heard::Nothing;
        }
        let typing = Typing { account: from.account(), device: from.device(), ..typing };
        Heard::Relay { to: Arc::clone(&self.others), datagram: typing.encode() }
    }
}

/// The other accounts of a conversation that the device is in, unless there are too many.
fn others(head: &ConversationHead, from: Authenticated) -> Arc<[AccountId]> {
    let is_in = head.members.iter().any(|member| (member.account, member.device) == (from.account(), from.device()));
    let mut accounts: Vec<_> = head.members.iter().map(|member| member.account).collect();
    accounts.sort_unstable();
    accounts.dedup();
    if !is_in || accounts.len() > TYPING_ACCOUNTS_MAX {
        return Arc::from([]);
    }
    accounts.retain(|account| *account != from.account());
    accounts.into()
}

#[cfg(test)]
mod tests {
    use gureum_proto::DeviceId;

    use super::*;
    use crate::store::record::{ConversationKind, Member};

    const ALICE: AccountId = AccountId::from_bytes([1; 16]);
    const BOB: AccountId = AccountId::from_bytes([2; 16]);
    const CAROL: AccountId = AccountId::from_bytes([3; 16]);
    const TALK: ConversationId = ConversationId::from_bytes([9; 16]);
    const LATER_MS: u64 = 1_000_000;

    fn device(account: AccountId) -> DeviceId {
        DeviceId::from_bytes(account.to_bytes())
    }

    fn relay() -> TypingRelay {
        TypingRelay::new(Authenticated::for_test(ALICE, device(ALICE)))
    }

    /// A claim to be Carol, which nobody believes.
    fn datagram(conversation: ConversationId, epoch: u64) -> Bytes {
        let (account, device) = (CAROL, device(CAROL));
        Typing { conversation, epoch, account, device, sealed: Bytes::from_static(b"sealed") }.encode()
    }

    fn head(epoch: u64, accounts: &[AccountId]) -> ConversationHead {
        let member = |account: &AccountId| Member { account: *account, device: device(*account), leaf: 0 };
        let members = accounts.iter().map(member).collect();
        ConversationHead { epoch, created_ms: 0, kind: ConversationKind::Direct, members }
    }

    /// To whom it goes, and whose it is said to be.
    fn relayed(heard: Heard) -> Option<(Vec<AccountId>, AccountId, DeviceId)> {
        let Heard::Relay { to, datagram } = heard else { return None };
        let typing = Typing::decode(datagram).expect("it is one");
        assert_eq!((typing.conversation, typing.sealed.as_ref()), (TALK, b"sealed".as_slice()));
        Some((to.to_vec(), typing.account, typing.device))
    }

    #[test]
    fn it_goes_to_the_others_of_the_conversation_in_the_name_of_who_has_sent_it() {
        let mut relay = relay();
        assert_eq!(relay.hear(datagram(TALK, 4), LATER_MS), Heard::LookUp(TALK));
        let found = relay.found(Some(&head(4, &[BOB, ALICE, BOB])), LATER_MS);
        assert_eq!(relayed(found), Some((vec![BOB], ALICE, device(ALICE))));
        let again = relay.hear(datagram(TALK, 4), LATER_MS + TYPING_ROSTER_MS - 1);
        assert_eq!(relayed(again), Some((vec![BOB], ALICE, device(ALICE))), "without another look");
        assert_eq!(relay.hear(datagram(TALK, 4), LATER_MS + TYPING_ROSTER_MS), Heard::LookUp(TALK));
    }

    #[track_caller]
    fn nobody_hears(head: Option<&ConversationHead>) {
        let mut relay = relay();
        assert_eq!(relay.hear(datagram(TALK, 4), LATER_MS), Heard::LookUp(TALK));
        assert_eq!(relay.found(head, LATER_MS), Heard::Nothing);
    }

    #[test]
    fn nobody_hears_of_a_stranger_of_another_epoch_or_in_a_crowd() {
        nobody_hears(None);
        nobody_hears(Some(&head(4, &[BOB, CAROL])));
        nobody_hears(Some(&head(4, &[ALICE])));
        nobody_hears(Some(&head(5, &[ALICE, BOB])));
        nobody_hears(Some(&head(3, &[ALICE, BOB])));
        let crowd: Vec<_> = (1..=65_u8).map(|number| AccountId::from_bytes([number; 16])).collect();
        nobody_hears(Some(&head(4, &crowd)));
    }

    #[test]
    fn a_device_that_has_no_leaf_is_a_stranger() {
        let mut head = head(4, &[ALICE, BOB]);
        head.members.iter_mut().for_each(|member| member.device = device(BOB));
        nobody_hears(Some(&head));
    }

    #[test]
    fn who_was_removed_hears_nothing_from_the_next_epoch_on() {
        let mut relay = relay();
        relay.hear(datagram(TALK, 4), LATER_MS);
        assert!(relayed(relay.found(Some(&head(4, &[ALICE, BOB, CAROL])), LATER_MS)).is_some());
        assert_eq!(relay.hear(datagram(TALK, 5), LATER_MS), Heard::LookUp(TALK));
        let found = relay.found(Some(&head(5, &[ALICE, BOB])), LATER_MS);
        assert_eq!(relayed(found), Some((vec![BOB], ALICE, device(ALICE))));
        assert_eq!(relay.hear(datagram(TALK, 4), LATER_MS), Heard::Nothing, "nor of what comes late");
    }

    #[test]
    fn a_few_are_heard_at_once_and_then_one_after_each_interval() {
        let mut relay = relay();
        relay.hear(datagram(TALK, 4), LATER_MS);
        relay.found(Some(&head(4, &[ALICE, BOB])), LATER_MS);
        let mut heard = |at_ms| (0..20).filter(|_| relayed(relay.hear(datagram(TALK, 4), at_ms)).is_some()).count();
        assert_eq!(heard(LATER_MS), usize::try_from(TYPING_AT_ONCE_MAX).unwrap_or(0) - 1, "one was heard before");
        assert_eq!(heard(LATER_MS + TYPING_INTERVAL_MS), 1);
        assert_eq!(heard(LATER_MS + 3 * TYPING_INTERVAL_MS), 2);
    }

    #[test]
    fn what_is_no_datagram_of_ours_is_dropped_and_counts() {
        let mut relay = relay();
        for garbage in [Bytes::new(), Bytes::from_static(&[0xff; 9]), Bytes::from_static(&[0; 300])] {
            assert_eq!(relay.hear(garbage, LATER_MS), Heard::Nothing);
        }
        assert_eq!(relay.hear(datagram(TALK, 4), LATER_MS), Heard::LookUp(TALK));
        assert_eq!(relay.hear(datagram(TALK, 4), LATER_MS), Heard::Nothing, "one look at a time");
        assert!(relayed(relay.found(Some(&head(4, &[ALICE, BOB])), LATER_MS)).is_some());
        assert_eq!(relay.hear(datagram(TALK, 4), LATER_MS), Heard::Nothing, "four have come");
    }

    #[test]
    fn few_conversations_are_remembered() {
        let mut relay = relay();
        for number in 0..20_u8 {
            let at_ms = LATER_MS + 1_000 * u64::from(number);
            let talk = ConversationId::from_bytes([number; 16]);
            assert_eq!(relay.hear(datagram(talk, 4), at_ms), Heard::LookUp(talk));
            relay.found(None, at_ms);
            assert!(relay.rosters.len() <= TYPING_ROSTERS_MAX);
        }
    }
}
