//! What was said before a device came in, and is handed over to it by another one of its account: once that is told to be
//! whole, the device has all that the other one had when it came in.

use std::collections::BTreeSet;

use gureum_client::vault::{Event, HistoryItem};

use super::{Inner, Model, name_of};
use crate::sim::installation::Who;

impl Model {
    /// A device is to be handed this history, which is that of another device of its account before it comes in.
    pub fn history_promised(&self, to: Who, from: Who, history: &[HistoryItem]) {
        // What came in between two tries may be missing from an older copy of the sender's home.
        let mut inner = self.inner();
        inner.promised.entry((to, from)).or_insert_with(|| texts(history).map(str::to_owned).collect());
    }

    /// Whether a device goes on from an older copy of its home.
    #[must_use]
    pub fn was_put_back(&self, who: Who) -> bool {
        self.inner().devices.get(&who).is_some_and(|seen| seen.put_back_life.is_some())
    }

    /// A history has come to its end, or ends because its sender was revoked.
    pub(super) fn told_history(&self, inner: &mut Inner, who: Who, event: &Event) {
        let Event::History { from: name, messages, of, done } = event else { return };
        let from = inner.called(who.person, name).filter(|from| inner.promised.contains_key(&(who, *from)));
        let Some(from) = from else {
            let rule = "a history is handed over by whoever was to";
            return self.journal.violate(rule, format!("{who} got that of {name}"));
        };
        if *done {
            inner.counts.histories += 1;
            self.journal.check(messages == of, "a history that is whole lacks nothing", || {
                format!("{who} has {messages} of {of} of {from}")
            });
        } else {
            inner.counts.histories_over += 1;
            let is_gone = inner.seen(from).may_be_revoked;
            self.journal.check(is_gone, "the history of a device that stays comes to its end", || {
                format!("{who} does not wait for that of {from}")
            });
        }
        let before = inner.seen(who).histories.insert(from, *done);
        self.journal
            .check(before.is_none(), "the end of a history is told once", || format!("{who} heard again of {from}"));
    }
}

impl Inner {
    /// The device of a person that is called so.
    fn called(&self, person: usize, name: &str) -> Option<Who> {
        let is_called = |(who, seen): &(&Who, &super::Seen)| {
            let is_id = seen.device.is_some_and(|device| device.to_string() == name);
            who.person == person && (is_id || who.device_name() == name)
        };
        self.devices.iter().find(is_called).map(|(who, _)| *who)
    }
}

/// Who was told that a history is whole has every message of it.
pub(super) fn check(model: &Inner, histories: &[(Who, Vec<HistoryItem>)], open: &mut Vec<String>) {
    for (who, history) in histories.iter().filter(|(who, _)| model.is_in_use(*who)) {
        let whole = model.devices.get(who).into_iter().flat_map(|seen| &seen.histories);
        let whole: Vec<Who> = whole.filter(|(_, is_whole)| **is_whole).map(|(from, _)| *from).collect();
        if whole.is_empty() {
            continue;
        }
        let has: BTreeSet<&str> = texts(history).collect();
        for from in whole {
            let promised = model.promised.get(&(*who, from)).into_iter().flatten();
            let lacking: Vec<&str> = promised.map(String::as_str).filter(|text| !has.contains(text)).collect();
            if let Some(first) = lacking.first() {
                let (count, first) = (lacking.len(), name_of(first));
                open.push(format!("{who} lacks {count} messages (from {first}) of the history of {from}"));
            }
        }
    }
}

fn texts(history: &[HistoryItem]) -> impl Iterator<Item = &str> {
    history.iter().filter_map(|item| match item {
        HistoryItem::Message(message) => Some(message.text.as_str()),
        _ => None,
    })
}
