//! What the commands print: one line for people or one JSON object, each written out before the next.

mod event;
mod text;

use std::io::{self, Write};

pub(crate) use event::{device_json, typing_json};
use event::{event_json, history_json};
use gureum_client::vault::{Event, HistoryItem, ReceiptKind, StoredEvent};
use serde::Serialize;
pub(crate) use text::{device_text, group_text, printable, time_text};
use text::{event_text, history_text, receipts_text};

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
        #[serde(skip_serializing_if = "Option::is_none")]
        handle: Option<String>,
        conversation: String,
        message_id: Option<String>,
        server_time_ms: u64,
        durability: &'static str,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        gone: Vec<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        gone_more: Option<u32>,
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
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        request: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        delivered_to: Option<Vec<String>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        read_by: Option<Vec<String>>,
    },
    Receipt {
        kind: ReceiptKind,
        message_id: String,
        conversation: String,
        by: String,
        time_ms: u64,
    },
    Gap {
        from_seq: u64,
        to_seq: u64,
        count: u64,
        reason: &'static str,
    },
    Unreadable {
        conversation: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        with: Option<&'a str>,
        message_id: String,
        number: u64,
        why: &'a str,
    },
    Rejoined {
        conversation: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        with: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        by: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        device: Option<String>,
    },
    Restored {
        conversations: u64,
    },
    Copied {
        conversation: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        with: Option<&'a str>,
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
        state: &'static str,
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
    #[serde(rename = "device")]
    DeviceChange {
        change: &'static str,
        account: String,
        handle: &'a str,
        device: String,
        name: Option<&'a str>,
    },
    Device {
        device: String,
        name: Option<&'a str>,
        added_ms: u64,
        last_seen_ms: Option<u64>,
        current: bool,
    },
    LinkCode {
        code: &'a str,
    },
    LinkCheck {
        digits: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        handle: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        device_name: Option<&'a str>,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        history: bool,
    },
    Linked {
        account: String,
        device: String,
        handle: String,
        device_name: &'a str,
    },
    NotHandedOver {
        device: String,
    },
    Recovered {
        account: String,
        device: String,
        handle: String,
        device_name: &'a str,
    },
    AccountsGone {
        conversation: String,
        name: &'a str,
        who: &'a [String],
        admin: bool,
    },
    CommitRefused {
        conversation: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        with: Option<&'a str>,
        why: &'a str,
        stopped: bool,
    },
    SendFailed {
        conversation: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        with: Option<&'a str>,
        why: &'a str,
    },
    Read {
        #[serde(skip_serializing_if = "Option::is_none")]
        with: Option<String>,
        conversation: String,
        number: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        unread: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        by_device: Option<&'a str>,
    },
    History {
        #[serde(skip_serializing_if = "Option::is_none")]
        from: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        to: Option<&'a str>,
        messages: u64,
        of: u64,
        done: bool,
    },
    Typing {
        conversation: String,
        from: String,
        ends_in_ms: u64,
    },
    Settings {
        receipts: bool,
        typing: bool,
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
    SafetyNumberChanged {
        with: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        account_before: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        account: Option<String>,
        number_before: &'a str,
        number: &'a str,
    },
    CodeSent {
        phone: &'a str,
        expires_in_s: u64,
    },
    #[serde(rename = "phone")]
    PhoneChange {
        change: &'static str,
        time_ms: u64,
    },
    #[serde(rename = "phone")]
    PhoneShown {
        phone: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        findable: Option<bool>,
        #[serde(skip_serializing_if = "Option::is_none")]
        lock: Option<bool>,
    },
    Request {
        with: &'a str,
        conversation: String,
        messages: u64,
        last_ms: Option<u64>,
    },
    #[serde(rename = "request")]
    Accepted {
        with: String,
        conversation: String,
        accepted: bool,
    },
    Relation {
        handle: String,
        account: String,
        relation: &'static str,
    },
    Muted {
        with: &'a str,
        conversation: String,
        until_ms: Option<u64>,
    },
    Unmuted {
        with: &'a str,
        conversation: String,
    },
    AccountDeleted {
        handle: String,
        account: String,
    },
    Push {
        service: Option<&'static str>,
        visible: Option<bool>,
        known: bool,
        offered: Vec<&'static str>,
        vapid_key: Option<String>,
    },
    PushSet {
        service: &'static str,
        visible: bool,
    },
    PushCleared,
    PushListening {
        endpoint: &'a str,
    },
    Wake {
        kind: &'static str,
    },
    PushRefused {
        service: &'a str,
    },
    ConversationHidden {
        conversation: String,
    },
    LogForked {
        account: String,
        handle: &'a str,
    },
    Withheld {
        conversation: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        with: Option<&'a str>,
        from_number: u64,
        to_number: u64,
        count: u64,
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

    /// Prints what people read; programs see by themselves that there is nothing.
    pub(crate) fn print_nothing(self, text: &str) -> anyhow::Result<()> {
        if self.json { Ok(()) } else { Ok(self.print(text)?) }
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

    /// The lines that stand for events, in their order. People read of receipts that came together in one line.
    pub(crate) fn events(self, events: &[StoredEvent]) -> anyhow::Result<Vec<String>> {
        let mut lines = Vec::new();
        for alike in events.chunk_by(|one, next| !self.json && are_alike(&one.event, &next.event)) {
            match alike {
                [StoredEvent { event: Event::Receipt { kind, by, .. }, .. }, _, ..] => {
                    lines.push(receipts_text(*kind, by, alike.len()));
                }
                _ => {
                    for stored in alike {
                        lines.extend(self.event(&stored.event)?);
                    }
                }
            }
        }
        Ok(lines)
    }

    /// The line that stands for an entry of the history.
    pub(crate) fn history(self, item: &HistoryItem) -> anyhow::Result<String> {
        if self.json {
            return Ok(serde_json::to_string(&history_json(item))?);
        }
        Ok(history_text(item))
    }
}

/// Whether two events are receipts that differ in their messages alone.
fn are_alike(one: &Event, next: &Event) -> bool {
    match (one, next) {
        (Event::Receipt { kind, by, conversation, .. }, Event::Receipt { kind: k, by: b, conversation: c, .. }) => {
            (kind, by, conversation) == (k, b, c)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests;
