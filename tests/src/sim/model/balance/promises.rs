//! What the senders were told must have come true, and what was read is known to be.

use std::collections::BTreeMap;

use gureum_client::vault::Message;
use gureum_proto::ConversationId;

use super::{Books, Fate, Inner, Talk, name_of};
use crate::sim::installation::Who;
use crate::sim::model::{Seen, To};

/// Where a text stands.
struct Written<'a> {
    conversation: ConversationId,
    number: u64,
    writer: Who,
    message: &'a Message,
}

pub(super) fn check(books: &mut Books<'_>) {
    let Books { model, talks, open } = books;
    let mut written: BTreeMap<&str, Vec<Written<'_>>> = BTreeMap::new();
    for (conversation, talk) in &*talks {
        for (number, (writer, message)) in &talk.written {
            let (writer, message) = (*writer, *message);
            let found = Written { conversation: *conversation, number: *number, writer, message };
            written.entry(message.text.as_str()).or_default().push(found);
        }
    }
    check_senders(model, &written, open);
    for (text, found) in &written {
        if !model.handed.contains_key(*text) {
            let writer = found.first().map(|found| found.writer.to_string()).unwrap_or_default();
            open.push(format!("{writer} sent {}, which nobody handed over", name_of(text)));
        }
        for found in found {
            if let Some(talk) = talks.get(&found.conversation) {
                check_read(model, talk, found, open);
            }
        }
    }
}

fn check_senders(model: &Inner, written: &BTreeMap<&str, Vec<Written<'_>>>, open: &mut Vec<String>) {
    let mut unsent: BTreeMap<Who, Vec<&str>> = BTreeMap::new();
    for (text, handed) in &model.handed {
        let found = written.get(text.as_str()).map_or(&[][..], Vec::as_slice);
        let (name, has_departed) = (name_of(text), model.has_departed(handed));
        let account = handed.to.person().and_then(|to| model.people.get(&to)).map(|account| account.id);
        for Written { writer, message, conversation, .. } in found {
            // What a reader's history says of the other one is not of whom it was sent to.
            let is_to = match handed.to {
                To::Person(_) => !message.own || message.peer == account,
                To::Group(group) => group == *conversation,
            };
            if *writer != handed.from || !is_to {
                open.push(format!("{name} was sent by {writer} to somebody else"));
            }
        }
        let (from, life) = (handed.from, model.devices.get(&handed.from).map_or(0, |seen| seen.life));
        match &handed.fate {
            Fate::Acked(_) if found.is_empty() => open.push(format!("{name} was acknowledged and is lost")),
            Fate::Acked(id) if found.iter().all(|found| found.message.message_id != *id) => {
                open.push(format!("{name} was acknowledged under another id"));
            }
            Fate::Kept if found.is_empty() && !has_departed => unsent.entry(from).or_default().push(name),
            Fate::Unknown if life == handed.life && !has_departed => {
                open.push(format!("{from} still waits to hear of {name}"));
            }
            Fate::Refused(why) if !found.is_empty() && !has_departed => {
                open.push(format!("{name} was sent, though refused: {why}"));
            }
            _ => {}
        }
    }
    for (who, unsent) in unsent {
        let failed = model.devices.get(&who).map_or(0, |seen| seen.failed);
        if u64::try_from(unsent.len()).unwrap_or(u64::MAX) > failed {
            open.push(format!("kept by {who} and not sent: {unsent:?}"));
        }
    }
}

/// In a healthy system all devices of who wrote a message to one person know that that one has read it, where it did not
/// fall out of a full inbox before: of what a device was told to have missed it says nothing.
fn check_read(model: &Inner, talk: &Talk<'_>, found: &Written<'_>, open: &mut Vec<String>) {
    let Some(handed) = model.handed.get(&found.message.text).filter(|handed| handed.when_well) else { return };
    let Some(to) = handed.to.person() else { return };
    let has_read = |(who, seen): &(&Who, &Seen)| {
        who.person == to && seen.marks.get(&found.conversation).is_some_and(|mark| *mark >= found.number)
    };
    let held: Vec<_> =
        talk.read.get(&found.number).into_iter().flatten().map(|(who, message)| (*who, *message)).collect();
    let has_it = |who: &Who| held.iter().any(|(holder, _)| holder == who);
    let mut readers = model.devices.iter().filter(has_read).map(|(who, _)| who).peekable();
    if readers.peek().is_none() || !readers.all(has_it) {
        return;
    }
    let reader = format!("person{to}");
    let senders = held.iter().copied().filter(|(who, _)| who.person == found.writer.person);
    for (who, message) in senders.chain([(found.writer, found.message)]) {
        let mut read_by = message.receipts.iter().flat_map(|receipts| &receipts.read_by);
        let knows = read_by.any(|handle| handle.to_string() == reader);
        if model.is_in_use(who) && !knows {
            open.push(format!("{who} does not know that {} was read", name_of(&message.text)));
        }
    }
}
