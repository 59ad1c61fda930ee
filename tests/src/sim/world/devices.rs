//! How people come to have several devices, and fewer; and what becomes of copies of their homes.

use std::ops::Range;

use super::{Due, HOUR_MS, Installation, MINUTE_MS, Rng, Who, World};
use crate::sim::installation::Past;

/// How long until something is tried again, in milliseconds.
const AGAIN_MS: u64 = 5 * MINUTE_MS;
/// How long a device goes on at most until its older copy takes its place, in milliseconds; and no longer than messages
/// live, so that some of them are still there for the copy.
const COPY_MS_MAX: u64 = 12 * HOUR_MS;
/// How often what people have begun is tried again when nothing is wrong any more.
const TRIES_MAX: usize = 5;

impl World {
    /// All devices that there have been.
    pub(super) fn all(&self) -> Vec<Who> {
        self.people.iter().flat_map(|person| person.devices()).map(Installation::who).collect()
    }

    pub(super) fn at(&self, who: Who) -> &Installation {
        self.people[who.person].device(who.device)
    }

    pub(super) fn at_mut(&mut self, who: Who) -> &mut Installation {
        self.people[who.person].device_mut(who.device)
    }

    /// Devices at which somebody sits.
    pub(super) fn online(&self) -> Vec<Who> {
        self.all().into_iter().filter(|who| self.at(*who).is_online()).collect()
    }

    /// Devices of a person that nobody is about to revoke.
    fn members(&self, person: usize) -> Vec<Who> {
        let devices = self.people[person].devices().iter().filter(|device| device.is_in_use());
        devices.map(Installation::who).filter(|who| !self.revoking.contains(who)).collect()
    }

    /// One of these.
    pub(super) fn choose<T: Copy>(&mut self, of: &[T]) -> Option<T> {
        let index = self.random.random_range(0..of.len().max(1));
        of.get(index).copied()
    }

    /// Whether a person waits for a device, or to have the account back.
    fn is_busy(&self, person: usize) -> bool {
        self.people[person].devices().iter().any(|device| device.is_new() || device.was_lost())
    }

    /// Persons with an account, who wait for nothing, for whom something holds.
    fn persons(&self, holds: impl Fn(usize) -> bool) -> Vec<usize> {
        let ready = |person: &usize| self.people[*person].is_registered() && !self.is_busy(*person);
        (0..self.people.len()).filter(ready).filter(|person| holds(*person)).collect()
    }

    pub(super) async fn link(&mut self) {
        let most = self.profile.devices_at_once_max;
        let may = |person: usize| self.people[person].has_room() && self.people[person].count() < most;
        let persons = self.persons(may);
        let Some(person) = self.choose(&persons) else { return };
        let new = self.people[person].install();
        self.draw_past(new);
        Box::pin(self.link_amid_faults(new)).await;
    }

    /// Tries to link a device, with a yes on any other one of its person; which that was, where it is linked.
    pub(super) async fn try_link(&mut self, new: Who) -> Option<Who> {
        if !self.at(new).is_new() {
            return None;
        }
        let others: Vec<_> = self.members(new.person).into_iter().filter(|who| self.at(*who).is_online()).collect();
        let by = self.choose(&others);
        let yes = by.and_then(|who| self.at(who).client().map(|client| (who, client)));
        if let Some((by, yes)) = yes {
            self.journal.note(format!("{new} is to be linked"));
            self.model.about_to_link(new.person);
            let url = self.server.url();
            self.at_mut(new).link(url, yes).await;
            if self.at(new).past() != Past::Unknown {
                let history = self.at(by).history().await.unwrap_or_default();
                self.model.history_promised(new, by, &history);
            }
        }
        if self.at(new).is_in_use() {
            self.at_mut(new).come().await;
            return by;
        }
        if self.at(new).is_new() {
            self.later(AGAIN_MS, Due::Link(new));
        }
        None
    }

    pub(super) async fn revoke(&mut self) {
        let persons = self.persons(|person| self.members(person).len() > 1);
        let Some(person) = self.choose(&persons) else { return };
        let members = self.members(person);
        let Some(who) = self.choose(&members) else { return };
        self.begin_revoking(who).await;
    }

    /// Has a device revoked, unless it is the last one or somebody is about to do so already.
    pub(super) async fn begin_revoking(&mut self, who: Who) {
        let members = self.members(who.person);
        if members.len() < 2 || !members.contains(&who) {
            return;
        }
        self.revoking.insert(who);
        self.model.about_to_be_revoked(who);
        self.journal.note(format!("{who} is to be revoked"));
        self.try_revoke(who).await;
    }

    /// Tries to revoke a device, on any other one of its person.
    pub(super) async fn try_revoke(&mut self, who: Who) {
        if !self.at(who).is_in_use() {
            return;
        }
        let others: Vec<_> = self.members(who.person).into_iter().filter(|who| self.at(*who).is_online()).collect();
        let is_done = match self.choose(&others) {
            Some(by) => self.at(by).revoke(self.at(who)).await,
            None => false,
        };
        if is_done {
            self.at_mut(who).is_gone();
        } else {
            self.later(AGAIN_MS, Due::Revoke(who));
        }
    }

    pub(super) async fn recover(&mut self) {
        let may = |person: usize| self.people[person].has_room() && self.people[person].recovery_words().is_some();
        let persons = self.persons(may);
        let Some(person) = self.choose(&persons) else { return };
        for who in self.all().into_iter().filter(|who| who.person == person) {
            if self.at(who).is_in_use() {
                self.at_mut(who).is_lost().await;
            }
        }
        self.model.about_to_link(person);
        let new = self.people[person].install();
        self.try_recover(new).await;
    }

    /// Tries to bring an account back with a new device.
    pub(super) async fn try_recover(&mut self, new: Who) {
        let Some(words) = self.people[new.person].recovery_words().filter(|_| self.at(new).is_new()) else { return };
        self.journal.note(format!("{new} is to bring its account back"));
        let url = self.server.url();
        self.at_mut(new).recover(url, &words).await;
        if !self.at(new).is_in_use() {
            return self.later(AGAIN_MS, Due::Recover(new));
        }
        for who in self.all().into_iter().filter(|who| who.person == new.person) {
            if self.at(who).was_lost() {
                self.at_mut(who).is_gone();
            }
        }
        self.at_mut(new).come().await;
    }

    /// Copies the home of a device, which goes on, and in whose place the copy is put later.
    pub(super) async fn copy(&mut self) {
        let devices: Vec<_> = self.online().into_iter().filter(|who| self.may_be_copied(*who)).collect();
        let Some(who) = self.choose(&devices) else { return };
        let most_ms = COPY_MS_MAX.min(self.profile.retention_ms).max(11 * MINUTE_MS);
        self.copy_and_put_back(who, 10 * MINUTE_MS..most_ms).await;
    }

    fn may_be_copied(&self, who: Who) -> bool {
        let device = self.at(who);
        device.is_online() && device.is_in_step() && !device.has_copy() && !self.revoking.contains(&who)
    }

    /// The same with this device, if it can be; it goes on for so many milliseconds.
    pub(super) async fn copy_and_put_back(&mut self, who: Who, after_ms: Range<u64>) {
        if !self.may_be_copied(who) {
            return;
        }
        self.at_mut(who).copy().await;
        let for_ms = self.random.random_range(after_ms);
        self.later(for_ms, Due::PutBack(who));
    }

    pub(super) async fn put_back(&mut self, who: Who) {
        let is_troubled = self.due.iter().any(|due| matches!(due.0, (_, _, Due::Disk)));
        self.at_mut(who).put_back(!is_troubled).await;
    }

    /// Everything that people have begun with their devices is brought to its end; what cannot be, is a violation.
    pub(super) async fn finish_devices(&mut self) {
        for _ in 0..TRIES_MAX {
            for who in self.all() {
                if self.at(who).is_new() && self.people[who.person].devices().iter().any(Installation::was_lost) {
                    self.try_recover(who).await;
                } else if self.people[who.person].is_registered() {
                    self.try_link(who).await;
                }
                if self.revoking.contains(&who) {
                    self.try_revoke(who).await;
                }
            }
        }
        self.due.clear();
        for who in self.all() {
            let device = self.at(who);
            let is_open = device.is_new() && self.people[who.person].is_registered();
            self.journal.check(!is_open, "a device that waits is linked", || who.to_string());
            let is_left = device.is_in_use() && self.revoking.contains(&who);
            self.journal.check(!is_left, "a device that is to be revoked is revoked", || who.to_string());
        }
    }
}
