//! What the commands print: one line for people or one JSON object, each written out before the next.

mod event;
mod text;

use std::io::{self, Write};

use event::{event_json, history_json};
use gureum_client::vault::{Event, HistoryItem};
use serde::Serialize;
use text::{event_text, history_text};
pub(crate) use text::{group_text, printable, time_text};

/// Where and how to print.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    pub(crate) json: bool,
}

/// A line of `--json`. The names and fields are an interface that other programs are written against.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Line<'a> {
    Registered {
        handle: String,
        account: String,
        device: String,
        recovery_words: &'a str,
    },
    Sent {
        to: String,
        conversation: String,
        message_id: Option<String>,
        server_time_ms: u64,
        durability: &'static str,
    },
    Message {
        conversation: String,
        group: Option<&'a str>,
        from: String,
        own: bool,
        text: &'a str,
        message_id: Option<String>,
        server_time_ms: u64,
        seq: Option<u64>,
    },
    Gap {
        from_seq: u64,
        to_seq: u64,
        count: u64,
        reason: &'static str,
    },
    Unreadable {
        conversation: String,
        message_id: String,
        number: u64,
        why: &'a str,
    },
    Rejoined {
        conversation: String,
    },
    GoneBack {
        conversation: String,
        with: String,
        epoch: u64,
        epoch_seen: u64,
    },
    Restarted {
        conversation: String,
        with: String,
    },
    Group(GroupLine),
    #[serde(rename = "group")]
    GroupShown {
        conversation: String,
        name: String,
        members: usize,
        admin: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        people: Option<Vec<PersonLine>>,
    },
    GroupRefused {
        conversation: String,
        name: &'a str,
        what: &'a str,
        why: &'a str,
    },
    DeviceAdded {
        account: String,
        device: String,
    },
    DeviceRevoked {
        account: String,
        device: String,
    },
    CommitRefused {
        conversation: String,
        why: &'a str,
        stopped: bool,
    },
    SendFailed {
        conversation: String,
        why: &'a str,
    },
    Whoami {
        handle: String,
        account: String,
        device: String,
        device_name: &'a str,
        server: String,
    },
    SafetyNumber {
        with: String,
        account: String,
        number: &'a str,
    },
}

/// A change of a group.
#[derive(Debug, Serialize)]
pub(crate) struct GroupLine {
    pub(crate) change: &'static str,
    pub(crate) conversation: String,
    pub(crate) name: String,
    pub(crate) by: Option<String>,
    pub(crate) who: Vec<String>,
}

/// Somebody in a group.
#[derive(Debug, Serialize)]
pub(crate) struct PersonLine {
    pub(crate) handle: String,
    pub(crate) account: String,
    pub(crate) role: &'static str,
    pub(crate) devices: usize,
}

impl Output {
    pub(crate) const fn new(json: bool) -> Self {
        Self { json }
    }

    /// Prints a line, whole, at once.
    pub(crate) fn print(self, line: &str) -> io::Result<()> {
        let mut out = io::stdout().lock();
        writeln!(out, "{line}")?;
        out.flush()
    }

    /// Prints a JSON object.
    pub(crate) fn print_json(self, line: &impl Serialize) -> anyhow::Result<()> {
        Ok(self.print(&serde_json::to_string(line)?)?)
    }

    /// Prints an object as JSON, or what people read.
    pub(crate) fn print_either(self, line: &Line<'_>, text: &str) -> anyhow::Result<()> {
        if self.json { self.print_json(line) } else { Ok(self.print(text)?) }
    }

    /// The line that stands for an event, if anybody wants to see it.
    pub(crate) fn event(self, event: &Event) -> anyhow::Result<Option<String>> {
        if self.json {
            return event_json(event).map(|line| Ok(serde_json::to_string(&line)?)).transpose();
        }
        Ok(Some(event_text(event)))
    }

    /// The line that stands for an entry of the history.
    pub(crate) fn history(self, item: &HistoryItem) -> anyhow::Result<String> {
        if self.json {
            return Ok(serde_json::to_string(&history_json(item))?);
        }
        Ok(history_text(item))
    }
}

#[cfg(test)]
mod tests {
    use gureum_client::vault::{GroupChange, Message, OutboxId};
    use gureum_proto::{AccountId, ConversationId, DeviceId, GapReason, MessageId};

    use super::*;

    fn message(own: bool) -> Message {
        Message {
            conversation: ConversationId::from_bytes([1; 16]),
            peer: Some(AccountId::from_bytes([2; 16])),
            group: None,
            from: AccountId::from_bytes([2; 16]),
            from_handle: "bob".parse().unwrap(),
            device: DeviceId::from_bytes([3; 16]),
            own,
            text: "hé \"you\"\n".to_owned(),
            message_id: Some(MessageId::new(1_700_000_000_000, 5)),
            server_time_ms: 1_700_000_000_000,
            number: 4,
            seq: (!own).then_some(9),
        }
    }

    #[track_caller]
    fn check(event: &Event, expected: &str) {
        assert_eq!(Output::new(true).event(event).unwrap().unwrap_or_default(), expected);
    }

    #[test]
    fn a_message_is_one_json_object_with_the_fields_promised() {
        check(
            &Event::Message(message(false)),
            concat!(
                r#"{"event":"message","conversation":"01010101010101010101010101010101","group":null,"from":"bob","#,
                r#""own":false,"text":"hé \"you\"\n","message_id":"018bcfe5680070008000000000000005","#,
                r#""server_time_ms":1700000000000,"seq":9}"#
            ),
        );
    }

    #[test]
    fn an_own_message_has_no_place_in_the_inbox() {
        let line = Output::new(true).history(&HistoryItem::Message(message(true))).unwrap();
        assert!(line.ends_with(r#""seq":null}"#), "{line}");
    }

    #[test]
    fn a_gap_says_how_many_are_gone_and_why() {
        let gap = |reason| Event::Gap { from_seq: 3, to_seq: 12, count: 9, reason };
        check(&gap(GapReason::Expired), r#"{"event":"gap","from_seq":3,"to_seq":12,"count":9,"reason":"expired"}"#);
        check(&gap(GapReason::Overflow), r#"{"event":"gap","from_seq":3,"to_seq":12,"count":9,"reason":"overflow"}"#);
    }

    #[test]
    fn events_without_a_line_of_their_own_are_silent_or_named() {
        let conversation = ConversationId::from_bytes([0; 16]);
        check(&Event::Joined { conversation, peer: AccountId::from_bytes([2; 16]) }, "");
        check(
            &Event::SendFailed { outbox: OutboxId(1), conversation, why: "not a member".to_owned() },
            r#"{"event":"send_failed","conversation":"00000000000000000000000000000000","why":"not a member"}"#,
        );
    }

    #[test]
    fn a_server_that_has_gone_back_is_an_event_that_says_what_to_do() {
        let (conversation, with) = (ConversationId::from_bytes([1; 16]), "bob".to_owned());
        let gone_back = Event::GoneBack { conversation, with: with.clone(), is_group: false, epoch: 1, epoch_seen: 3 };
        check(
            &gone_back,
            concat!(
                r#"{"event":"gone_back","conversation":"01010101010101010101010101010101","with":"bob","#,
                r#""epoch":1,"epoch_seen":3}"#
            ),
        );
        let said = Output::new(false).event(&gone_back).unwrap().unwrap();
        assert!(said.contains("gureum restart bob") && said.contains("operator"), "{said}");
        check(
            &Event::Restarted { conversation, with },
            r#"{"event":"restarted","conversation":"01010101010101010101010101010101","with":"bob"}"#,
        );
    }

    #[test]
    fn a_change_of_a_group_says_who_did_what_to_whom() {
        let conversation = ConversationId::from_bytes([1; 16]);
        let (name, who) = ("Book\u{202e} club".to_owned(), vec!["carol".to_owned(), "dave".to_owned()]);
        let (change, by) = (GroupChange::Added, Some("bob".to_owned()));
        let added = Event::Group { conversation, name, change, by, who };
        check(
            &added,
            concat!(
                r#"{"event":"group","change":"added","conversation":"01010101010101010101010101010101","#,
                "\"name\":\"Book\u{202e} club\",",
                r#""by":"bob","who":["carol","dave"]}"#
            ),
        );
        let said = Output::new(false).event(&added).unwrap().unwrap();
        assert_eq!(said, "· bob added carol, dave to the group Book\\u{202e} club");
    }

    #[test]
    fn text_of_others_cannot_steer_the_terminal() {
        assert_eq!(printable("a\x1b[2Jb\u{202e}c\nd"), "a\\u{1b}[2Jb\\u{202e}c\nd");
    }

    #[test]
    fn times_are_read_in_utc() {
        assert_eq!(time_text(1_700_000_000_000), "2023-11-14 22:13:20Z");
    }
}
