//! What people do in groups: they make them, talk there, and change who is in them, from several devices at once.

use gureum_client::GroupCommand;
use gureum_client::vault::{ConversationStatus, GroupView, Target};
use gureum_proto::Handle;

use super::{Rng, Who, World};
use crate::sim::model::To;

/// Groups that are made; changes that were kept may make a few more.
const GROUPS_MAX: usize = 2;
/// People that stay in a group whatever is wanted.
const PEOPLE_MIN: usize = 2;
/// Devices that change a group at the same time.
const RACERS_MAX: usize = 3;
/// Messages that somebody writes to a group at once.
const TALK_MAX: usize = 12;
/// Messages of each device where everybody writes.
const COMMOTION_MAX: usize = 4;

/// A device at which somebody sits, with a group that it is in.
#[derive(Debug, Clone)]
struct Seat {
    who: Who,
    group: GroupView,
    /// Whether its account may change the group.
    is_admin: bool,
}

impl World {
    async fn seats(&self) -> Vec<Seat> {
        let mut seats = Vec::new();
        if self.model.ledger().groups() == 0 {
            return seats;
        }
        for who in self.online() {
            let Some(client) = self.at(who).client() else { continue };
            let own = client.identity().account;
            let groups = match client.groups().await {
                Ok(groups) => groups,
                Err(error) => {
                    self.journal.violate("groups can be read", error.to_string());
                    continue;
                }
            };
            for group in groups.into_iter().filter(|group| group.state == ConversationStatus::Active) {
                let is_admin = group.people.iter().any(|person| person.account == own && person.is_admin);
                seats.push(Seat { who, group, is_admin });
            }
        }
        seats
    }

    /// One of these.
    fn pick<T>(&mut self, mut of: Vec<T>) -> Option<T> {
        let index = self.random.random_range(0..of.len().max(1));
        (index < of.len()).then(|| of.swap_remove(index))
    }

    /// Somebody makes a group with some of the others.
    pub(super) async fn make_group(&mut self) {
        if self.model.ledger().groups() >= GROUPS_MAX {
            return;
        }
        let Some((who, with)) = self.pair() else { return };
        let others = (0..self.people.len()).filter(|person| *person != who.person && *person != with);
        let registered: Vec<_> = others.filter(|person| self.people[*person].is_registered()).collect();
        let some: Vec<_> = registered.into_iter().filter(|_| self.random.random_bool(0.6)).collect();
        let invited = some.into_iter().chain([with]).map(|person| self.people[person].handle()).collect();
        let name = self.new_name(who);
        self.journal.note(format!("{who} makes the group {name}"));
        self.at_mut(who).change(GroupCommand::Create { name, who: invited });
    }

    /// A name that no group has: what is done goes by the order of names.
    fn new_name(&mut self, who: Who) -> String {
        let text = self.people[who.person].next_text(0);
        format!("group {}", text.trim())
    }

    /// Somebody writes to a group, and reads there now and then.
    pub(super) async fn talk_in_group(&mut self) {
        let seats = self.seats().await;
        let Some(seat) = self.pick(seats) else { return };
        let count = self.random.random_range(1..=TALK_MAX);
        self.say_in(&seat, count);
        if self.random.random_bool(0.4) {
            self.at_mut(seat.who).read(seat.group.conversation);
        }
    }

    /// Everybody writes to every group that they are in, on each device.
    pub(super) async fn group_commotion(&mut self) {
        for seat in self.seats().await {
            let count = self.random.random_range(1..COMMOTION_MAX);
            self.say_in(&seat, count);
        }
    }

    fn say_in(&mut self, seat: &Seat, count: usize) {
        let conversation = seat.group.conversation;
        self.journal.note(format!("{} writes {count} to {}", seat.who, seat.group.name));
        self.speak(seat.who, (To::Group(conversation), Target::from(conversation)), count);
    }

    /// Everybody reads every group that they are in.
    pub(super) async fn read_groups(&mut self) {
        for seat in self.seats().await {
            self.at_mut(seat.who).read(seat.group.conversation);
        }
    }

    /// Somebody changes a group, or several do so at the same time.
    pub(super) async fn change_group(&mut self) {
        let mut seats = self.seats().await;
        let Some(first) = self.pick(seats.clone()) else { return };
        seats.retain(|seat| seat.group.conversation == first.group.conversation);
        let racers = if self.random.random_bool(0.5) { 1 } else { self.random.random_range(2..=RACERS_MAX) };
        for _ in 0..racers {
            if seats.is_empty() {
                return;
            }
            let index = self.random.random_range(0..seats.len());
            let seat = seats.swap_remove(index);
            if let Some((what, command)) = self.any_change(&seat) {
                self.journal.note(format!("{} {what}: {}", seat.who, seat.group.name));
                self.note_wanted_out(&seat, &command);
                self.at_mut(seat.who).change(command);
            }
            self.pause(200).await;
        }
    }

    /// Whom a command is to bring out of a group.
    fn note_wanted_out(&self, seat: &Seat, command: &GroupCommand) {
        let persons: Vec<usize> = match command {
            GroupCommand::Leave { .. } => vec![seat.who.person],
            GroupCommand::Remove { who, .. } => {
                let is_one = |person: &usize| who.contains(&self.people[*person].handle());
                (0..self.people.len()).filter(is_one).collect()
            }
            _ => Vec::new(),
        };
        persons.into_iter().for_each(|person| self.model.wants_out(seat.group.conversation, person));
    }

    /// Something that may be wanted of a group. Mostly of its admins; of others it is to be refused.
    fn any_change(&mut self, seat: &Seat) -> Option<(&'static str, GroupCommand)> {
        let group = Target::from(seat.group.conversation);
        let own = self.people[seat.who.person].handle();
        let inside: Vec<Handle> = seat.group.people.iter().filter_map(|person| person.handle.parse().ok()).collect();
        let registered = self.people.iter().filter(|person| person.is_registered()).map(|person| person.handle());
        let outside: Vec<_> = registered.filter(|handle| !inside.contains(handle)).collect();
        let others: Vec<_> = inside.iter().filter(|handle| **handle != own).cloned().collect();
        let may_shrink = inside.len() > PEOPLE_MIN;
        let kind = if seat.is_admin || self.random.random_bool(0.2) { self.random.random_range(0..10) } else { 9 };
        Some(match kind {
            0..=3 if self.random.random_bool(0.3) && !outside.is_empty() => {
                ("adds all", GroupCommand::Add { group, who: outside })
            }
            0..=3 => ("adds one", GroupCommand::Add { group, who: vec![self.pick(outside)?] }),
            4 | 5 if may_shrink => ("removes one", GroupCommand::Remove { group, who: vec![self.pick(others)?] }),
            6 => ("makes an admin", GroupCommand::Promote { group, who: vec![self.pick(others)?] }),
            7 => ("unmakes an admin", GroupCommand::Demote { group, who: vec![self.pick(inside)?] }),
            9 if may_shrink && self.random.random_bool(0.4) => ("leaves", GroupCommand::Leave { group }),
            _ => ("renames", GroupCommand::Rename { group, name: self.new_name(seat.who) }),
        })
    }
}
