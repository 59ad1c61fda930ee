//! Events and entries of the history as lines of JSON.

use gureum_client::vault::{Event, HistoryItem, Message};
use gureum_proto::{ConversationId, GapReason};

use super::{GroupLine, Line};

pub(super) fn event_json(event: &Event) -> Option<Line<'_>> {
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

pub(super) fn history_json(item: &HistoryItem) -> Line<'_> {
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
        group: message.group.as_deref(),
        from: message.from_handle.to_string(),
        own: message.own,
        text: &message.text,
        message_id: message.message_id.map(|id| id.to_string()),
        server_time_ms: message.server_time_ms,
        seq: message.seq,
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
