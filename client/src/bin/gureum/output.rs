//! What the commands print: one line for people or one JSON object, each written out before the next.

use std::io::{self, Write};
use std::time::{Duration, UNIX_EPOCH};

use gureum_client::vault::{Event, HistoryItem, Message};
use gureum_proto::{ConversationId, GapReason, Handle};
use serde::Serialize;

/// Handles shorter than this are padded, so that texts begin in one column.
const HANDLE_COLUMN: usize = 10;

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
        from: String,
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
        Ok(match item {
            HistoryItem::Message(message) => message_text(message),
            HistoryItem::Gap { count, reason, .. } => gap_text(*count, *reason),
            HistoryItem::Restarted { with, .. } => restarted_text(with),
            HistoryItem::Unreadable { server_time_ms, why, .. } => {
                format!("{}  (a message that this device cannot read: {})", time_text(*server_time_ms), printable(why))
            }
        })
    }
}

fn event_json(event: &Event) -> Option<Line<'_>> {
    Some(match event {
        Event::Message(message) => message_json(message),
        Event::Gap { from_seq, to_seq, count, reason } => gap_json(*from_seq, *to_seq, *count, *reason),
        Event::Unreadable { conversation, number, message_id, why } => Line::Unreadable {
            conversation: conversation.to_string(),
            message_id: message_id.to_string(),
            number: *number,
            why,
        },
        // A conversation shows itself by its first message.
        Event::Joined { .. } => return None,
        Event::Rejoined { conversation } => Line::Rejoined { conversation: conversation.to_string() },
        Event::GoneBack { conversation, with, epoch, epoch_seen } => Line::GoneBack {
            conversation: conversation.to_string(),
            with: with.to_string(),
            epoch: *epoch,
            epoch_seen: *epoch_seen,
        },
        Event::Restarted { conversation, with } => restarted_json(*conversation, with),
        Event::DeviceAdded { account, device } => {
            Line::DeviceAdded { account: account.to_string(), device: device.to_string() }
        }
        Event::DeviceRevoked { account, device } => {
            Line::DeviceRevoked { account: account.to_string(), device: device.to_string() }
        }
        Event::CommitRefused { conversation, why, stopped } => {
            Line::CommitRefused { conversation: conversation.to_string(), why, stopped: *stopped }
        }
        Event::SendFailed { conversation, why, .. } => Line::SendFailed { conversation: conversation.to_string(), why },
    })
}

fn history_json(item: &HistoryItem) -> Line<'_> {
    match item {
        HistoryItem::Message(message) => message_json(message),
        HistoryItem::Gap { from_seq, to_seq, count, reason } => gap_json(*from_seq, *to_seq, *count, *reason),
        HistoryItem::Restarted { conversation, with } => restarted_json(*conversation, with),
        HistoryItem::Unreadable { conversation, number, message_id, why, .. } => Line::Unreadable {
            conversation: conversation.to_string(),
            message_id: message_id.to_string(),
            number: *number,
            why,
        },
    }
}

fn message_json(message: &Message) -> Line<'_> {
    Line::Message {
        conversation: message.conversation.to_string(),
        from: message.from_handle.to_string(),
        text: &message.text,
        message_id: message.message_id.map(|id| id.to_string()),
        server_time_ms: message.server_time_ms,
        seq: message.seq,
    }
}

fn restarted_json(conversation: ConversationId, with: &Handle) -> Line<'static> {
    Line::Restarted { conversation: conversation.to_string(), with: with.to_string() }
}

const fn gap_json(from_seq: u64, to_seq: u64, count: u64, reason: GapReason) -> Line<'static> {
    let reason = match reason {
        GapReason::Expired => "expired",
        GapReason::Overflow => "overflow",
        GapReason::Lost => "lost",
    };
    Line::Gap { from_seq, to_seq, count, reason }
}

fn event_text(event: &Event) -> String {
    match event {
        Event::Message(message) => message_text(message),
        Event::Gap { count, reason, .. } => gap_text(*count, *reason),
        Event::Unreadable { why, .. } => format!("· a message came that this device cannot read: {}", printable(why)),
        Event::Joined { .. } => "· somebody began a conversation with you".to_owned(),
        Event::Rejoined { .. } => {
            "· this device joined a conversation again; what was said meanwhile stays unreadable to it".to_owned()
        }
        Event::GoneBack { with, .. } => gone_back_text(with),
        Event::Restarted { with, .. } => restarted_text(with),
        Event::DeviceAdded { device, .. } => format!("· a device was added to an account: {device}"),
        Event::DeviceRevoked { device, .. } => format!("· a device was revoked: {device}"),
        Event::CommitRefused { why, stopped, .. } => {
            let end = if *stopped { "; the conversation is stopped" } else { "" };
            format!("· a change of a conversation was refused: {}{end}", printable(why))
        }
        Event::SendFailed { why, .. } => format!("· a message of yours was not sent: {}", printable(why)),
    }
}

fn gone_back_text(with: &Handle) -> String {
    format!(
        "· the server has gone back to an older state of your conversation with {with}: its operator restored a backup, or \
         somebody tampers with it. Nothing is sent there until you have asked the operator, compared \
         `gureum safety-number {with}`, and run `gureum restart {with}`"
    )
}

fn restarted_text(with: &Handle) -> String {
    format!("· from here on the conversation with {with} goes on from an older state of the server, as decided here")
}

fn message_text(message: &Message) -> String {
    let handle = message.from_handle.as_str();
    format!("{}  {handle:<HANDLE_COLUMN$}  {}", time_text(message.server_time_ms), printable(&message.text))
}

fn gap_text(count: u64, reason: GapReason) -> String {
    let why = match reason {
        GapReason::Expired => "the server keeps messages only for a while",
        GapReason::Overflow => "more came than the server keeps for one account",
        GapReason::Lost => "the server lost them, and maybe more: it was damaged, or went back to a backup",
    };
    match count {
        0 => format!("· messages may be missing: {why}"),
        1 => format!("· 1 message is gone: {why}"),
        _ => format!("· {count} messages are gone: {why}"),
    }
}

/// A time as people read it, in UTC.
pub(crate) fn time_text(time_ms: u64) -> String {
    UNIX_EPOCH.checked_add(Duration::from_millis(time_ms)).map_or_else(
        || format!("{time_ms} ms"),
        |time| humantime::format_rfc3339_seconds(time).to_string().replace('T', " "),
    )
}

/// Text of others without what would steer a terminal or reorder what is read.
pub(crate) fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\t' => out.push(c),
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => out.extend(c.escape_unicode()),
            c if c.is_control() => out.extend(c.escape_unicode()),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use gureum_client::vault::OutboxId;
    use gureum_proto::{AccountId, DeviceId, MessageId};

    use super::*;

    fn message(own: bool) -> Message {
        Message {
            conversation: ConversationId::from_bytes([1; 16]),
            peer: AccountId::from_bytes([2; 16]),
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
                r#"{"event":"message","conversation":"01010101010101010101010101010101","from":"bob","#,
                r#""text":"hé \"you\"\n","message_id":"018bcfe5680070008000000000000005","#,
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
        let (conversation, with): (_, Handle) = (ConversationId::from_bytes([1; 16]), "bob".parse().unwrap());
        let gone_back = Event::GoneBack { conversation, with: with.clone(), epoch: 1, epoch_seen: 3 };
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
    fn text_of_others_cannot_steer_the_terminal() {
        assert_eq!(printable("a\x1b[2Jb\u{202e}c\nd"), "a\\u{1b}[2Jb\\u{202e}c\nd");
    }

    #[test]
    fn times_are_read_in_utc() {
        assert_eq!(time_text(1_700_000_000_000), "2023-11-14 22:13:20Z");
    }
}
