//! Numbers that no honest server reaches, refused where they come in: the database could not hold them.

use gureum_proto::{DeliveryFrame, EnvelopeBody, PhoneNotice, Position, Sent};

use super::error::LinkError;
use crate::limits::NUMBER_MAX;

/// A delivery whose numbers can be kept.
pub(super) fn delivery(frame: DeliveryFrame) -> Result<DeliveryFrame, LinkError> {
    let position = |position: Position| position.seq.max(position.count);
    let highest = match &frame {
        DeliveryFrame::Envelope(envelope) => match envelope.shared.body {
            EnvelopeBody::Message { number, .. } => number.max(position(envelope.position)),
            // Epochs have a bound of their own, which concerns one conversation alone.
            _ => position(envelope.position),
        },
        DeliveryFrame::Gap(gap) => gap.from_seq.max(gap.missed).max(position(gap.to)),
        DeliveryFrame::CaughtUp { seq } => *seq,
    };
    within(highest, "a position")?;
    Ok(frame)
}

/// An answer to a send whose numbers can be kept.
pub(super) fn sent(sent: Sent) -> Result<Sent, LinkError> {
    let number = sent.result.as_ref().map_or(0, |accepted| accepted.number);
    within(sent.counter.max(number), "an answer's number")?;
    Ok(sent)
}

/// Times of what has happened to a phone number that can be kept.
pub(super) fn phone(notice: PhoneNotice) -> Result<PhoneNotice, LinkError> {
    within(notice.moved_ms.max(notice.tried_ms), "a time")?;
    Ok(notice)
}

fn within(number: u64, what: &str) -> Result<(), LinkError> {
    if number <= NUMBER_MAX {
        return Ok(());
    }
    Err(LinkError::Malformed(format!("{what} beyond what can be reached")))
}

#[cfg(test)]
mod tests {
    use gureum_proto::{Accepted, AccountId, ConversationId, DeviceId, Envelope, Gap, GapReason, Gone, MessageId};
    use gureum_proto::{Code, Refusal, SharedEnvelope};

    use super::*;

    fn envelope(seq: u64, count: u64, number: u64) -> DeliveryFrame {
        let shared = SharedEnvelope {
            message_id: MessageId::new(1, 1),
            conversation: ConversationId::from_bytes([1; 16]),
            sender_account: AccountId::from_bytes([2; 16]),
            sender_device: DeviceId::from_bytes([3; 16]),
            body: EnvelopeBody::Message { number, ciphertext: vec![1].into() },
        };
        DeliveryFrame::Envelope(Envelope { position: Position { seq, count }, shared })
    }

    fn gap(from_seq: u64, seq: u64, missed: u64) -> DeliveryFrame {
        DeliveryFrame::Gap(Gap { from_seq, to: Position { seq, count: 1 }, missed, reason: GapReason::Expired })
    }

    #[test]
    fn numbers_that_the_database_cannot_hold_are_malformed() {
        for fits in [envelope(1, 1, 1), envelope(NUMBER_MAX, NUMBER_MAX, NUMBER_MAX), gap(1, 9, 3)] {
            assert_eq!(delivery(fits.clone()), Ok(fits));
        }
        let too_high = NUMBER_MAX + 1;
        for frame in [
            envelope(u64::MAX, 1, 1),
            envelope(1, too_high, 1),
            envelope(1, 1, i64::MAX.unsigned_abs() + 1),
            gap(too_high, 1, 1),
            gap(1, too_high, 1),
            gap(1, 1, too_high),
            DeliveryFrame::CaughtUp { seq: too_high },
        ] {
            assert!(matches!(delivery(frame.clone()), Err(LinkError::Malformed(_))), "{frame:?}");
        }
        let accepted = |number| Ok(Accepted { message_id: None, number, repeated: false, gone: Gone::default() });
        assert!(sent(Sent { counter: 1, result: accepted(1) }).is_ok());
        assert!(sent(Sent { counter: 1, result: accepted(too_high) }).is_err());
        for (moved_ms, tried_ms, fits) in [(0, NUMBER_MAX, true), (too_high, 0, false), (0, u64::MAX, false)] {
            assert_eq!(phone(PhoneNotice { moved_ms, tried_ms }).is_ok(), fits);
        }
        assert!(sent(Sent { counter: too_high, result: Err(Refusal::new(Code::LimitReached)) }).is_err());
    }
}
