//! What a device tells the person who holds it, from its first session to its last: each message and each gap once, in the
//! order of its inbox, and nothing that is wrong.

use std::sync::{Arc, Mutex};

use gureum_client::vault::{Event, HistoryItem};
use gureum_client::{Client, ClientEvent, ClientSession};
use tokio::sync::oneshot;

use crate::prove::crowd::tell_unreported;

/// What one device has told.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// Messages that others have sent, by their numbers.
    numbers: Vec<u64>,
    /// Gaps: the first and the last position, and how many messages are missed.
    gaps: Vec<(u64, u64, u64)>,
    /// The last position of the inbox of which it has told something.
    last_seq: u64,
    /// What it should not have told.
    amiss: Vec<String>,
    /// How its connection stands.
    link: String,
}

/// The session of a device, as somebody hears it who holds that device.
pub(super) struct Listener {
    pub(super) name: String,
    pub(super) client: Client,
    pub(super) heard: Arc<Mutex<Heard>>,
}

impl Listener {
    /// Hears the session to its end, which comes in order or where it stands.
    pub(super) async fn run(self, mut session: ClientSession, mut ended: oneshot::Receiver<bool>) {
        self.note_link("not connected yet".to_owned());
        // A session that was aborted has left some untold.
        self.take().await;
        loop {
            let event = tokio::select! {
                biased;
                in_order = &mut ended => {
                    if !in_order.unwrap_or(false) {
                        return session.abort().await;
                    }
                    session.close().await;
                    return self.take().await;
                }
                event = session.next() => event,
            };
            match event {
                Some(ClientEvent::News | ClientEvent::CaughtUp) => self.take().await,
                Some(ClientEvent::Connected) => self.note_link("connected".to_owned()),
                Some(ClientEvent::Disconnected { error, .. }) => self.note_link(format!("not connected: {error}")),
                Some(ClientEvent::Stopped(error)) => panic!("{} stops: {error}", self.name),
                Some(ClientEvent::Sent(_) | ClientEvent::Typing { .. }) => {}
                None => panic!("{} ends without a word", self.name),
            }
        }
    }

    async fn take(&self) {
        tell_unreported(&self.client, |events| {
            let mut heard = self.heard.lock().unwrap();
            events.iter().for_each(|event| heard.hear(event));
        })
        .await;
    }

    fn note_link(&self, link: String) {
        self.heard.lock().unwrap().link = link;
    }
}

impl Heard {
    fn hear(&mut self, event: &Event) {
        match event {
            Event::Message(message) => {
                let seq = message.seq.unwrap_or_default();
                let last = self.numbers.last().copied().unwrap_or_default();
                if message.number <= last {
                    self.amiss.push(format!("number {} behind number {last}", message.number));
                }
                self.numbers.push(message.number);
                self.advance(seq, seq);
            }
            Event::Gap { from_seq, to_seq, count, .. } => {
                self.gaps.push((*from_seq, *to_seq, *count));
                self.advance(*from_seq, *to_seq);
            }
            Event::Unreadable { .. }
            | Event::Restored { .. }
            | Event::Copied { .. }
            | Event::GoneBack { .. }
            | Event::Restarted { .. }
            | Event::SafetyNumber { .. }
            | Event::Hidden { .. }
            | Event::DeviceRevoked { .. }
            | Event::LogForked { .. }
            | Event::Group { .. }
            | Event::IntentRefused { .. }
            | Event::AccountsGone { .. }
            | Event::Phone { .. }
            | Event::PushRefused { .. }
            | Event::CommitRefused { .. }
            | Event::SendFailed { .. } => self.amiss.push(format!("{event:?}")),
            // Whether anything is withheld shows in the histories. The rest is of devices that come in, and of receipts.
            Event::Withheld { .. }
            | Event::Receipt { .. }
            | Event::Read { .. }
            | Event::History { .. }
            | Event::Joined { .. }
            | Event::Rejoined { .. }
            | Event::MemberRejoined { .. }
            | Event::DeviceAdded { .. } => {}
        }
    }

    fn advance(&mut self, from_seq: u64, to_seq: u64) {
        if from_seq <= self.last_seq {
            self.amiss.push(format!("position {from_seq} behind position {}", self.last_seq));
        }
        self.last_seq = to_seq;
    }

    /// What it should not have told.
    pub(super) fn amiss(&self) -> &[String] {
        &self.amiss
    }

    /// How its connection stands.
    pub(super) fn link(&self) -> &str {
        &self.link
    }

    /// Whether it has told what its history has of others, and nothing else; what differs, in words.
    pub(super) fn agrees_with(&self, history: &[HistoryItem]) -> Result<(), String> {
        let (mut numbers, mut gaps) = (Vec::new(), Vec::new());
        for item in history {
            match item {
                HistoryItem::Message(message) if message.seq.is_some() => numbers.push(message.number),
                HistoryItem::Gap { from_seq, to_seq, count, .. } => gaps.push((*from_seq, *to_seq, *count)),
                _ => {}
            }
        }
        if numbers == self.numbers && gaps == self.gaps {
            return Ok(());
        }
        let apart = numbers.iter().zip(&self.numbers).find(|(has, told)| has != told);
        let (has, told) = (numbers.len(), self.numbers.len());
        Err(format!(
            "has {has} messages of others and has told {told} (apart first, its history and what it told: {apart:?}), and \
             has the gaps {gaps:?} and has told {:?}",
            self.gaps
        ))
    }
}

#[cfg(test)]
mod tests {
    use gureum_client::vault::Message;
    use gureum_proto::{AccountId, ConversationId, DeviceId, GapReason};

    use super::*;

    fn message(number: u64, seq: u64) -> Message {
        Message {
            conversation: ConversationId::from_bytes([1; 16]),
            peer: None,
            group: None,
            from: AccountId::from_bytes([2; 16]),
            from_handle: "bob".parse().unwrap(),
            device: DeviceId::from_bytes([3; 16]),
            own: false,
            text: number.to_string(),
            message_id: None,
            server_time_ms: number,
            number,
            seq: Some(seq),
            receipts: None,
            request: false,
        }
    }

    fn gap(from_seq: u64, to_seq: u64) -> Event {
        Event::Gap { from_seq, to_seq, count: 1, reason: GapReason::Expired }
    }

    fn heard(events: &[Event]) -> Heard {
        let mut heard = Heard::default();
        events.iter().for_each(|event| heard.hear(event));
        heard
    }

    #[track_caller]
    fn is_amiss(events: &[Event], expected: bool) {
        let heard = heard(events);
        assert_eq!(!heard.amiss.is_empty(), expected, "{heard:?}");
    }

    #[test]
    fn what_is_told_twice_or_out_of_its_order_is_amiss() {
        let told = |number, seq| Event::Message(message(number, seq));
        is_amiss(&[told(1, 2), told(2, 5), gap(6, 8), told(5, 9)], false);
        is_amiss(&[told(1, 2), told(1, 2)], true);
        is_amiss(&[told(2, 3), told(1, 2)], true);
        is_amiss(&[told(1, 2), told(2, 2)], true);
        is_amiss(&[gap(1, 4), told(5, 3)], true);
        is_amiss(&[gap(1, 4), gap(1, 4)], true);
    }

    #[test]
    fn what_is_in_the_history_and_was_never_told_is_found() {
        let history = [message(1, 2), message(2, 3)].map(HistoryItem::Message);
        let told = |number, seq| Event::Message(message(number, seq));
        assert_eq!(heard(&[told(1, 2), told(2, 3)]).agrees_with(&history), Ok(()));
        assert!(heard(&[told(1, 2)]).agrees_with(&history).is_err());
        assert!(heard(&[told(1, 2), told(2, 3), gap(4, 4)]).agrees_with(&history).is_err());
    }
}
