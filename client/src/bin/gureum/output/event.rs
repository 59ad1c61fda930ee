//! Events and entries of the history as lines of JSON.

use std::time::Duration;

use gureum_client::vault::{Event, HistoryItem, Message};
use gureum_proto::{AccountId, ConversationId, DeviceId, GapReason, Handle};

use super::{GroupLine, Line};

pub(super) fn event_json(event: &Event) -> Option<Line<'_>> {
    Some(match event {
        Event::Message(message) => message_json(message),
        Event::Gap { from_seq, to_seq, count, reason } => gap_json(*from_seq, *to_seq, *count, *reason),
        Event::Unreadable { conversation, with, number, message_id, why } => Line::Unreadable {
            conversation: conversation.to_string(),
            with: with.as_deref(),
            message_id: message_id.to_string(),
            number: *number,
            why,
        },
        Event::Receipt { kind, conversation, message_id, by, time_ms } => Line::Receipt {
            kind: *kind,
            message_id: message_id.to_string(),
            conversation: conversation.to_string(),
            by: by.to_string(),
            time_ms: *time_ms,
        },
        Event::Read { conversation, number, unread, by_device } => Line::Read {
            with: None,
            conversation: conversation.to_string(),
            number: *number,
            unread: Some(*unread),
            by_device: Some(by_device),
        },
        Event::History { from, messages, of, done } => {
            Line::History { from: Some(from), to: None, messages: *messages, of: *of, done: *done }
        }
        Event::Phone { change, time_ms } => Line::PhoneChange { change: change.word(), time_ms: *time_ms },
        Event::PushRefused { service } => Line::PushRefused { service },
        // A conversation shows itself by its first message.
        Event::Joined { .. } => return None,
        Event::Rejoined { conversation, with } => {
            Line::Rejoined { conversation: conversation.to_string(), with: with.as_deref(), by: None, device: None }
        }
        Event::MemberRejoined { conversation, by, device } => Line::Rejoined {
            conversation: conversation.to_string(),
            with: None,
            by: Some(by.to_string()),
            device: Some(device.to_string()),
        },
        Event::Restored { conversations } => Line::Restored { conversations: *conversations },
        Event::Copied { conversation, with } => {
            Line::Copied { conversation: conversation.to_string(), with: with.as_deref() }
        }
        Event::GoneBack { conversation, with, epoch, epoch_seen, .. } => Line::GoneBack {
            conversation: conversation.to_string(),
            with: with.clone(),
            epoch: *epoch,
            epoch_seen: *epoch_seen,
        },
        Event::Restarted { conversation, with } => restarted_json(*conversation, with),
        Event::Group { conversation, name, change, by, who } => Line::Group(GroupLine {
            change: change.word(),
            conversation: conversation.to_string(),
            name: name.clone(),
            by: by.clone(),
            who: who.clone(),
        }),
        Event::IntentRefused { conversation, name, what, why } => {
            Line::GroupRefused { conversation: conversation.to_string(), name, what, why }
        }
        Event::SafetyNumber { handle, before, after, number_before, number } => Line::SafetyNumberChanged {
            with: handle.to_string(),
            account_before: Some(before.to_string()),
            account: Some(after.to_string()),
            number_before,
            number,
        },
        Event::Withheld { conversation, with, from_number, to_number, count } => Line::Withheld {
            conversation: conversation.to_string(),
            with: with.as_deref(),
            from_number: *from_number,
            to_number: *to_number,
            count: *count,
        },
        Event::Hidden { conversation } => Line::ConversationHidden { conversation: conversation.to_string() },
        Event::LogForked { account, handle } => Line::LogForked { account: account.to_string(), handle },
        Event::DeviceAdded { account, handle, device, name } => {
            device_json("added", *account, handle, *device, name.as_deref())
        }
        Event::DeviceRevoked { account, handle, device, name } => {
            device_json("revoked", *account, handle, *device, name.as_deref())
        }
        Event::AccountsGone { conversation, name, who, is_admin } => {
            Line::AccountsGone { conversation: conversation.to_string(), name, who, admin: *is_admin }
        }
        Event::CommitRefused { conversation, with, why, stopped } => Line::CommitRefused {
            conversation: conversation.to_string(),
            with: with.as_deref(),
            why,
            stopped: *stopped,
        },
        Event::SendFailed { conversation, with, why, .. } => {
            Line::SendFailed { conversation: conversation.to_string(), with: with.as_deref(), why }
        }
    })
}

/// A device that was added to an account or revoked.
pub(crate) fn device_json<'a>(
    change: &'static str,
    account: AccountId,
    handle: &'a str,
    device: DeviceId,
    name: Option<&'a str>,
) -> Line<'a> {
    Line::DeviceChange { change, account: account.to_string(), handle, device: device.to_string(), name }
}

/// Somebody types, or has stopped.
pub(crate) fn typing_json(conversation: ConversationId, from: &Handle, ends_in: Duration) -> Line<'static> {
    Line::Typing {
        conversation: conversation.to_string(),
        from: from.to_string(),
        ends_in_ms: u64::try_from(ends_in.as_millis()).unwrap_or(u64::MAX),
    }
}

pub(super) fn history_json(item: &HistoryItem) -> Line<'_> {
    match item {
        HistoryItem::Message(message) => message_json(message),
        HistoryItem::Gap { from_seq, to_seq, count, reason } => gap_json(*from_seq, *to_seq, *count, *reason),
        HistoryItem::Restarted { conversation, with } => restarted_json(*conversation, with),
        HistoryItem::SafetyNumber { with, number_before, number, .. } => Line::SafetyNumberChanged {
            with: with.to_string(),
            account_before: None,
            account: None,
            number_before,
            number,
        },
        HistoryItem::Unreadable { conversation, number, message_id, why, .. } => Line::Unreadable {
            conversation: conversation.to_string(),
            with: None,
            message_id: message_id.to_string(),
            number: *number,
            why,
        },
    }
}

fn message_json(message: &Message) -> Line<'_> {
    let people = |people: &[Handle]| people.iter().map(Handle::to_string).collect();
    let receipts = message.receipts.as_ref();
    Line::Message {
        conversation: message.conversation.to_string(),
        group: message.group.as_deref(),
        from: message.from_handle.to_string(),
        own: message.own,
        text: &message.text,
        message_id: message.message_id.map(|id| id.to_string()),
        server_time_ms: message.server_time_ms,
        seq: message.seq,
        request: message.request,
        delivered_to: receipts.map(|receipts| people(&receipts.delivered_to)),
        read_by: receipts.map(|receipts| people(&receipts.read_by)),
    }
}

fn restarted_json(conversation: ConversationId, with: &str) -> Line<'static> {
    Line::Restarted { conversation: conversation.to_string(), with: with.to_owned() }
}

const fn gap_json(from_seq: u64, to_seq: u64, count: u64, reason: GapReason) -> Line<'static> {
    let reason = match reason {
        GapReason::Expired => "expired",
        GapReason::Overflow => "overflow",
        GapReason::Lost => "lost",
    };
    Line::Gap { from_seq, to_seq, count, reason }
}
