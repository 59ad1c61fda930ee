//! Events and entries of the history as people read them.

use std::time::{Duration, UNIX_EPOCH};

use gureum_client::vault::{Event, GoneBack, GroupChange, HistoryItem, Message, PhoneEvent, ReceiptKind};
use gureum_proto::{ConversationId, DeviceId, GapReason, Handle};

/// Handles shorter than this are padded, so that texts begin in one column.
const HANDLE_COLUMN: usize = 10;
/// When the year has five digits, which no date here has: others may say any time.
const YEAR_10000_MS: u64 = 253_402_300_800_000;

pub(super) fn event_text(event: &Event) -> String {
    match event {
        Event::Message(message) => message_text(message),
        Event::Gap { count, reason, .. } => gap_text(*count, *reason),
        Event::Unreadable { with, why, .. } => {
            format!("· a message came in {} that this device cannot read: {}", talk_text(with.as_deref()), printable(why))
        }
        Event::Receipt { kind, message_id, by, .. } => {
            format!("· {by} {} your message of {}", has(*kind), time_text(message_id.time_ms()))
        }
        Event::Read { unread, by_device, .. } => read_text(*unread, by_device),
        Event::History { from, messages, of, done: false } => format!(
            "· {} was revoked: the rest of what was said before cannot come, {messages} of {of} messages are here",
            printable(from)
        ),
        Event::History { from, messages, .. } => {
            let what = if *messages == 1 { "1 message".to_owned() } else { format!("{messages} messages") };
            format!("· all that was said before is here: {what} from {}", printable(from))
        }
        Event::Phone { change, time_ms } => phone_text(*change, *time_ms),
        Event::PushRefused { service } => format!(
            "· nothing wakes this device any more: the push service ({}) does not know it, by the server's word. Set a new \
             target with `gureum push set`",
            printable(service)
        ),
        Event::Joined { .. } => "· somebody began a conversation with you".to_owned(),
        Event::Rejoined { with, .. } => format!(
            "· this device joined {} again; what was said meanwhile stays unreadable to it",
            talk_text(with.as_deref())
        ),
        Event::MemberRejoined { by, .. } => {
            format!(
                "· a device of {by} joined your conversation again; what was sent while it was not in, it may not have \
                 read"
            )
        }
        Event::Restored { .. } => {
            "· this home is an older copy of what was in use: it goes on from here and joins its conversations again, and \
             any other copy of it stops"
                .to_owned()
        }
        Event::Copied { with, .. } => format!(
            "· a copy of this home is in use, as {} shows: the next connection decides which of the two goes on",
            talk_text(with.as_deref())
        ),
        Event::GoneBack { with, is_group, .. } => {
            gone_back_text(&GoneBack { with: printable(with), is_group: *is_group })
        }
        Event::Group { name, change, by, who, .. } => format!("· {}", group_text(*change, name, by.as_deref(), who)),
        Event::IntentRefused { name, what, why, .. } => {
            let (name, what, why) = (printable(name), printable(what), printable(why));
            format!("· in the group {name} it was not possible to {what}: {why}")
        }
        Event::Restarted { with, .. } => restarted_text(with),
        Event::SafetyNumber { handle, number_before, number, .. } => moved_text(handle, number_before, number),
        Event::Withheld { with, count, .. } => withheld_text(with.as_deref(), *count),
        Event::Hidden { .. } => "· the server does not show a conversation that another device of yours has told of: it hides \
                                 it, has gone back to before it began, or you have left it since"
            .to_owned(),
        Event::LogForked { handle, .. } => format!(
            "· the server has shown this device other devices of {handle} than it has shown another device of yours: it \
             tampers with them. Compare `gureum safety-number {handle}`, and the devices that {handle} has"
        ),
        Event::DeviceAdded { handle, device, name, .. } => {
            format!("· {handle} has a new device: {}", device_text(*device, name.as_deref()))
        }
        Event::DeviceRevoked { handle, device, name, .. } => {
            format!("· {handle} has revoked a device: {}", device_text(*device, name.as_deref()))
        }
        Event::AccountsGone { conversation, name, who, is_admin } => gone_text(*conversation, name, who, *is_admin),
        Event::CommitRefused { with, why, stopped, .. } => {
            let end = if *stopped { "; the conversation is stopped" } else { "" };
            format!("· a change of {} was refused: {}{end}", talk_text(with.as_deref()), printable(why))
        }
        Event::SendFailed { with, why, .. } => {
            let to = with.as_deref().map(|with| format!(" to {}", printable(with))).unwrap_or_default();
            format!("· a message of yours{to} was not sent: {}", printable(why))
        }
    }
}

pub(super) fn history_text(item: &HistoryItem) -> String {
    match item {
        HistoryItem::Message(message) => message_text(message),
        HistoryItem::Gap { count, reason, .. } => gap_text(*count, *reason),
        HistoryItem::Restarted { with, .. } => restarted_text(with),
        HistoryItem::SafetyNumber { with, number_before, number, .. } => moved_text(with, number_before, number),
        HistoryItem::Unreadable { server_time_ms, why, .. } => {
            format!("{}  (a message that this device cannot read: {})", time_text(*server_time_ms), printable(why))
        }
    }
}

/// A device as people tell it from others.
pub(crate) fn device_text(device: DeviceId, name: Option<&str>) -> String {
    name.map_or_else(|| device.to_string(), |name| format!("{} ({device})", printable(name)))
}

/// One line for several receipts in a row that differ in their messages alone.
pub(super) fn receipts_text(kind: ReceiptKind, by: &Handle, count: usize) -> String {
    format!("· {by} {} {count} messages of yours", has(kind))
}

const fn has(kind: ReceiptKind) -> &'static str {
    match kind {
        ReceiptKind::Delivered => "has",
        ReceiptKind::Read => "has read",
    }
}

/// What has changed in a group, as a sentence.
pub(crate) fn group_text(change: GroupChange, name: &str, by: Option<&str>, who: &[String]) -> String {
    let (name, by, who) = (printable(name), printable(by.unwrap_or("somebody")), printable(&who.join(", ")));
    match change {
        GroupChange::Created if who.is_empty() => format!("{by} made the group {name}"),
        GroupChange::Created => format!("{by} made the group {name} with {who}"),
        GroupChange::Added => format!("{by} added {who} to the group {name}"),
        GroupChange::Removed => format!("{by} removed {who} from the group {name}"),
        GroupChange::Left => format!("{who} left the group {name}"),
        GroupChange::Renamed => format!("{by} gave a group another name: {name}"),
        GroupChange::Admins if who.is_empty() => format!("everybody in the group {name} is its admin now"),
        GroupChange::Admins => format!("the admins of the group {name} are now {who}"),
        GroupChange::Joined => format!("you are in the group {name}"),
    }
}

/// The group by its id: a name could be anything in a command.
fn gone_text(conversation: ConversationId, name: &str, who: &[String], is_admin: bool) -> String {
    let (name, people) = (printable(name), printable(&who.join(", ")));
    let were = if who.len() == 1 { "was" } else { "were" };
    let end = if is_admin {
        format!("`gureum group remove {conversation} {}` takes them out of it", printable(&who.join(" ")))
    } else {
        "an admin of the group can take them out of it; if no other is left, nobody can, and only a new group helps"
            .to_owned()
    };
    format!(
        "· the server says that {people} {were} deleted. Still in the group {name}, they get nothing any more; {end}"
    )
}

fn gone_back_text(gone_back: &GoneBack) -> String {
    let (with, compared, command) = (&gone_back.with, gone_back.to_compare(), gone_back.command());
    format!(
        "· the server has gone back to an older state of your conversation with {with}: its operator restored a backup, or \
         somebody tampers with it. Nothing is sent there until you have asked the operator, compared {compared}, and run \
         `{command}`"
    )
}

fn restarted_text(with: &str) -> String {
    let with = printable(with);
    format!("· from here on the conversation with {with} goes on from an older state of the server, as decided here")
}

fn moved_text(with: &Handle, number_before: &str, number: &str) -> String {
    format!(
        "· {with} stands for another account than before: either {with} has begun anew, or somebody takes their place. \
         Compare `gureum safety-number {with}`.\n  before:  {number_before}\n  now:     {number}"
    )
}

fn read_text(unread: u64, by_device: &str) -> String {
    let what = if unread == 0 { "everything".to_owned() } else { format!("all but {unread}") };
    format!("· {what} of a conversation was read on {}", printable(by_device))
}

/// A conversation as people know it, where it is known with whom.
fn talk_text(with: Option<&str>) -> String {
    with.map_or_else(|| "a conversation".to_owned(), |with| format!("your conversation with {}", printable(with)))
}

fn withheld_text(with: Option<&str>, count: u64) -> String {
    let messages = if count == 1 { "1 message".to_owned() } else { format!("{count} messages") };
    let talk = talk_text(with);
    format!(
        "· {messages} of {talk} did not come, without a gap that says why: the server keeps them back, or a copy \
         of this home has sent them"
    )
}

fn phone_text(change: PhoneEvent, time_ms: u64) -> String {
    let when = time_text(time_ms);
    match change {
        PhoneEvent::Moved => format!(
            "· your phone number belongs to another account since {when}: somebody has proven it with a code and without \
             your recovery words. If that was not you, ask your telephone company; this account goes on without it"
        ),
        PhoneEvent::Tried => format!(
            "· somebody has tried to take your phone number at {when}, with a right code; your registration lock has kept \
             it. If that was not you, ask your telephone company who gets your messages"
        ),
    }
}

fn message_text(message: &Message) -> String {
    let handle = match &message.group {
        Some(group) => format!("{} ({})", message.from_handle, printable(group)),
        None => message.from_handle.to_string(),
    };
    let mark = match &message.receipts {
        Some(receipts) if !receipts.read_by.is_empty() => " ✓✓",
        Some(receipts) if !receipts.delivered_to.is_empty() => " ✓",
        _ => "",
    };
    let request = if message.request { " (a request)" } else { "" };
    let (time, text) = (time_text(message.server_time_ms), printable(&message.text));
    format!("{time}  {handle:<HANDLE_COLUMN$}{request}  {text}{mark}")
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
    let time = UNIX_EPOCH.checked_add(Duration::from_millis(time_ms)).filter(|_| time_ms < YEAR_10000_MS);
    time.map_or_else(
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
