//! Sends and acks: the hot path of the plan.

use gureum_proto::{Accepted, Code, EnvelopeBody, Gone, Position, Send, Sent, SharedEnvelope};

use super::{Plan, Planner, refuse};
use crate::limits::EPOCHS_BEHIND_MAX;
use crate::session::Authenticated;
use crate::store::key::{self, CursorTag};
use crate::store::record::{ConversationKind, Cursor, InboxBody, SenderWindow, SentResult};
use crate::store::{Family, StoreError};

/// How exactly it is noted when a device was seen: less would tell more of a person than anybody needs.
const SEEN_MS: u64 = 60_000;

impl Planner {
    pub(super) fn add_send(
        &mut self,
        from: Authenticated,
        send: Send,
        now_ms: u64,
        plan: &mut Plan,
    ) -> Result<(), StoreError> {
        let counter = send.counter;
        let window = self.caches.window(self.store.as_ref(), from.account(), from.device())?;
        if let Some(accepted) = answered_before(window, counter) {
            plan.sent.push(Sent { counter, result: Ok(accepted) });
            return Ok(());
        }
        let Some(conversation) = self.caches.conversation(self.store.as_ref(), send.conversation)? else {
            plan.sent.push(refuse(counter, Code::NotFound));
            return Ok(());
        };
        if !conversation.has(from.account(), from.device()) {
            plan.sent.push(refuse(counter, Code::NotMember));
            return Ok(());
        }
        if conversation.is_going(from.account(), from.device()) {
            // It was queued before the revocation, or before its account has left or was deleted.
            plan.sent.push(refuse(counter, Code::NotMember));
            return Ok(());
        }
        if conversation.head.kind == ConversationKind::Direct && !conversation.gone.is_empty() {
            plan.sent.push(refuse(counter, Code::AccountGone));
            return Ok(());
        }
        let removals = &conversation.removals;
        if !removals.is_settled() {
            plan.sent.push(refuse(counter, Code::RemovalPending));
            return Ok(());
        }
        let (epoch, floor_epoch) = (conversation.head.epoch, removals.floor_epoch);
        if send.epoch > epoch || epoch - send.epoch > EPOCHS_BEHIND_MAX || send.epoch < floor_epoch {
            plan.sent.push(refuse(counter, Code::EpochStale));
            return Ok(());
        }
        // Only what people see has a place in the conversation, so that holes in it tell of what they miss.
        let number = if send.silent { 0 } else { conversation.last_number + 1 };
        // The sender's own account reads the message only where it has another device.
        let recipients: Vec<_> = conversation
            .accounts
            .iter()
            .filter(|(account, devices)| *account != from.account() || *devices > 1)
            .map(|(account, _)| *account)
            .filter(|account| !conversation.is_gone(*account))
            .collect();
        let gone = Gone::new(&conversation.gone, 0);
        if !send.silent {
            self.caches.give_number(send.conversation, number);
        }

        let id = self.ids.next(now_ms);
        let (body, entry) = if send.silent {
            (EnvelopeBody::Silent(send.ciphertext), InboxBody::Silent)
        } else {
            (EnvelopeBody::Message { number, ciphertext: send.ciphertext }, InboxBody::Message)
        };
        let shared = SharedEnvelope {
            message_id: id,
            conversation: send.conversation,
            sender_account: from.account(),
            sender_device: from.device(),
            body,
        }
        .encode();
        // A silent message that nobody is to read leaves nothing but its answer.
        if !send.silent || !recipients.is_empty() {
            let sealed = self.seal.seal(id, &shared, now_ms)?;
            plan.batch.put_record(Family::Message, key::message(&id), &sealed);
        }
        for account in recipients {
            self.append(account, id, entry, &shared, now_ms, plan)?;
            if !send.silent
                && account != from.account()
                && let Some((_, delivery)) = plan.deliveries.last()
            {
                plan.grown.push((account, delivery.position.seq));
            }
        }
        self.remember(from, SentResult { counter, id, number })?;
        plan.must_sync = true;
        let accepted = Accepted { message_id: Some(id), number, repeated: false, gone };
        plan.sent.push(Sent { counter, result: Ok(accepted) });
        Ok(())
    }

    pub(super) fn add_ack(
        &mut self,
        from: Authenticated,
        position: Position,
        plan: &mut Plan,
    ) -> Result<(), StoreError> {
        let head = self.caches.head(self.store.as_ref(), from.account())?;
        let cursors = self.caches.cursors(self.store.as_ref(), from.account())?;
        let before = cursors.floor();
        let Some((_, cursor)) = cursors.devices.iter_mut().find(|(device, _)| *device == from.device()) else {
            return Ok(());
        };
        // A cursor past the head is of another life of this inbox; it must not make the filter drop what is to come.
        if position.seq <= cursor.seq || position.seq > head.seq {
            return Ok(());
        }
        *cursor = Cursor { seq: position.seq, count: position.count.min(head.count) };
        let after = cursors.floor();
        self.caches.touch_cursor(from.account(), from.device());
        plan.taken.push((from.account(), position.seq));
        if let Some(floor) = after.filter(|floor| before.is_none_or(|before| floor.seq > before.seq)) {
            plan.floors.push((from.account(), floor.seq));
        }
        Ok(())
    }

    /// Notes when a device has proven itself, to the minute: it need not survive a crash. Two looks at single keys, for
    /// after a restart everybody comes back at once. Of a device that was revoked meanwhile nothing is kept.
    pub(super) fn add_seen(&self, from: Authenticated, now_ms: u64, plan: &mut Plan) -> Result<(), StoreError> {
        let of_device = |tag| key::cursor(&from.account(), &from.device(), tag);
        if self.store.get(Family::Cursor, of_device(CursorTag::Cursor).as_ref())?.is_none() {
            return Ok(());
        }
        let seen_ms = now_ms - now_ms % SEEN_MS;
        if self.read::<u64>(Family::Cursor, of_device(CursorTag::Seen))?.is_none_or(|before| before < seen_ms) {
            plan.batch.put_record(Family::Cursor, of_device(CursorTag::Seen), &seen_ms);
        }
        Ok(())
    }

    /// Remembers the answer for a repetition. The last step of an operation, which is not taken back.
    pub(super) fn remember(&mut self, from: Authenticated, result: SentResult) -> Result<(), StoreError> {
        self.caches.remember(self.store.as_ref(), from.account(), from.device(), result)
    }
}

/// The answer to a counter that has been accepted before. A counter that is remembered neither as accepted nor
/// as too old was refused: it may be tried again. Who is gone, the next one tells.
pub(super) fn answered_before(window: &SenderWindow, counter: u64) -> Option<Accepted> {
    if let Some(result) = window.find(counter) {
        return Some(Accepted {
            message_id: Some(result.id),
            number: result.number,
            repeated: true,
            gone: Gone::default(),
        });
    }
    let long_ago = Accepted { message_id: None, number: 0, repeated: true, gone: Gone::default() };
    (counter < window.oldest_kept()).then_some(long_ago)
}
