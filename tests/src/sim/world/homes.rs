//! What must be true of all homes when everything is quiet: nothing waits in them, whoever is in a group sees the same one,
//! and the devices of an account have the same records.

use std::path::Path;

use gureum_client::vault::{
    Conversation, ConversationStatus, GroupView, HandOver, HandedOver, InCommon, KeySource, Vault, VaultError,
};
use gureum_proto::ConversationKind;

use super::{Who, World};
use crate::sim::sabotage::Sabotage;
use crate::sim::server::Group;

/// What lies in the home of a device.
struct Home {
    who: Who,
    commits: usize,
    removals: usize,
    changes: usize,
    conversations: Vec<Conversation>,
    groups: Vec<GroupView>,
    in_common: InCommon,
    /// Histories that it hands over, and that it is handed.
    owed: Vec<HandOver>,
    coming: Vec<HandedOver>,
}

impl Home {
    fn of(who: Who, home: &Path, sabotage: Option<Sabotage>) -> Result<Self, String> {
        let mut vault = Vault::open(home, &KeySource::File).map_err(|error| error.to_string())?;
        let mut look = || -> Result<Self, VaultError> {
            let (commits, removals) = (vault.pending_commits()?.len(), vault.removals_due()?.len());
            let (changes, conversations) = (vault.intents_due()?.len(), vault.conversations()?);
            let (groups, in_common) = (vault.groups()?, vault.in_common()?);
            let (owed, coming) = (vault.history_owed()?, vault.history_coming()?);
            Ok(Self { who, commits, removals, changes, conversations, groups, in_common, owed, coming })
        };
        let mut home = look().map_err(|error| error.to_string())?;
        if let Some(bug) = sabotage {
            home.groups = bug.shown(who, home.groups);
            home.changes = bug.changes_left(home.changes, home.groups.len());
            home.coming = bug.coming(home.coming);
        }
        Ok(home)
    }

    /// What it sees of a group that it is in, against what the server has of it.
    fn against(&self, group: &Group, open: &mut Vec<String>) {
        let (who, id) = (self.who, group.conversation);
        let known = self.conversations.iter().find(|known| known.id == id);
        if !known.is_some_and(|known| known.state == ConversationStatus::Active && known.epoch == group.epoch) {
            let seen = known.map(|known| (known.state, known.epoch));
            open.push(format!("{who} has the group {id} at {seen:?}, and the server at {}", group.epoch));
        }
        let devices: usize = self.view(group).map_or(0, |view| view.people.iter().map(|person| person.devices).sum());
        if devices != group.members.len() {
            open.push(format!("{who} sees {devices} devices in the group {id} of {}", group.members.len()));
        }
    }

    fn has_left(&self, group: &Group) -> bool {
        let known = self.conversations.iter().find(|known| known.id == group.conversation);
        known.is_some_and(|known| known.state == ConversationStatus::Left)
    }

    fn view(&self, group: &Group) -> Option<&GroupView> {
        self.groups.iter().find(|view| view.conversation == group.conversation)
    }
}

impl World {
    /// What is not as it must be in homes.
    pub(super) fn open_homes(&self) -> Vec<String> {
        let (mut open, mut homes) = (Vec::new(), Vec::new());
        for who in self.all().into_iter().filter(|who| self.at(*who).is_in_use()) {
            match Home::of(who, self.at(who).home(), self.options.sabotage) {
                Ok(home) => homes.push(home),
                Err(error) => open.push(format!("{who}: {error}")),
            }
        }
        for Home { who, commits, removals, changes, .. } in &homes {
            if *commits > 0 || *removals > 0 {
                open.push(format!("{who}: {commits} commits and {removals} removals wait"));
            }
            if *changes > 0 {
                open.push(format!("{who}: changes of {changes} groups wait"));
            }
        }
        self.open_histories(&homes, &mut open);
        match self.server.groups() {
            Ok(groups) => self.open_rosters(&groups, &homes, &mut open),
            Err(error) => open.push(format!("the conversations cannot be read: {error:#}")),
        }
        if self.has_begun_everything {
            open_records(&homes, &mut open);
        }
        open
    }

    /// Every history that is handed over has come to its end. An older copy may have forgotten on either side that there
    /// is one; what both know of ends.
    fn open_histories(&self, homes: &[Home], open: &mut Vec<String>) {
        let owes = |from: Who, to: Who| {
            let device = self.at(to).device();
            let mut owed = homes.iter().filter(|home| home.who == from).flat_map(|home| &home.owed);
            owed.any(|owed| Some(owed.device) == device)
        };
        for home in homes {
            let who = home.who;
            for coming in home.coming.iter().filter(|coming| !coming.is_done && !coming.is_over) {
                let (name, messages, total) = (&coming.from, coming.messages, coming.total);
                let is_from = |from: &Who| from.person == who.person && self.at(*from).is_called(name);
                let from = self.all().into_iter().find(is_from);
                let is_forgotten = from
                    .is_some_and(|from| self.at(from).is_in_use() && self.model.was_put_back(from) && !owes(from, who));
                if !is_forgotten {
                    open.push(format!("{who} waits for the history of {name}: {messages} of {total}"));
                }
            }
            for owed in home.owed.iter().filter(|owed| !owed.is_done) {
                let is_to = |to: &&Home| self.at(to.who).device() == Some(owed.device);
                let to = homes.iter().find(is_to).map(|to| to.who);
                let waiting = to.filter(|to| !self.model.was_put_back(*to));
                if let Some(to) = waiting {
                    open.push(format!("{who} has handed {} messages over to {to} of {}", owed.messages, owed.total));
                }
            }
        }
    }

    /// Whoever is in a group is at its epoch, and all see the same people, admins and name; nobody else takes part.
    fn open_rosters(&self, groups: &[Group], homes: &[Home], open: &mut Vec<String>) {
        for group in groups.iter().filter(|group| group.kind == ConversationKind::Group) {
            let is_in = |home: &&Home| {
                let device = self.at(home.who).device();
                device.is_some_and(|device| group.members.contains(&device))
            };
            let inside: Vec<_> = homes.iter().filter(is_in).collect();
            // One that all have left at the same time stays as it is: nobody is there to remove anybody.
            if inside.iter().all(|home| home.has_left(group)) {
                continue;
            }
            inside.iter().for_each(|home| home.against(group, open));
            for pair in inside.windows(2) {
                let [one, other] = pair else { continue };
                if one.view(group) != other.view(group) {
                    open.push(format!("{} and {} see two groups in {}", one.who, other.who, group.conversation));
                }
            }
            for home in homes.iter().filter(|home| !is_in(home)) {
                let is_known = home.conversations.iter().any(|known| known.id == group.conversation);
                if is_known && !home.has_left(group) {
                    open.push(format!(
                        "{} is not in the group {} and has not heard of it",
                        home.who, group.conversation
                    ));
                }
            }
        }
        for home in homes {
            let is_stuck = |known: &&Conversation| {
                known.kind == ConversationKind::Group && known.state == ConversationStatus::Creating
            };
            let stuck = home.conversations.iter().filter(is_stuck).count();
            if stuck > 0 {
                open.push(format!("{} has not made {stuck} groups that it has begun", home.who));
            }
        }
    }
}

/// The devices of an account have the same marks, settings and contacts.
fn open_records(homes: &[Home], open: &mut Vec<String>) {
    for pair in homes.windows(2) {
        let [one, other] = pair else { continue };
        if one.who.person == other.who.person && one.in_common != other.in_common {
            let what = if one.in_common.marks == other.in_common.marks { "settings or contacts" } else { "read marks" };
            open.push(format!("{} and {} are not in step: {what}", one.who, other.who));
        }
    }
}
