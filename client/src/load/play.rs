//! Brings the devices of a load before the server, lets them play their parts, and reports.

use std::sync::Arc;

use tokio::runtime::Handle;

use super::cost::{Cost, look};
use super::device::Device;
use super::meter::Meter;
use super::pace::Pace;
use super::setup::{self, Person};
use super::stage::{Habits, Part, Post, Says, Stage, Tasks};
use super::{LoadBody, LoadError, LoadOptions, LoadReport, Progress, Tell, encrypted, sealed};
use crate::client::{Client, ClientError};
use crate::link::Dialer;
use crate::vault::Conversation;

/// A device, where it speaks, and what else it does.
#[derive(Debug, Clone)]
pub(super) struct Role {
    pub(super) who: Who,
    /// Where it speaks; nowhere, if it only listens.
    pub(super) posts: Vec<Post>,
    pub(super) habits: Habits,
}

/// A device as the bodies of its load need it.
#[derive(Debug, Clone)]
pub(super) enum Who {
    /// Opaque bodies: only its keys.
    Sealed(Box<Device>),
    /// Texts: its home.
    Text(Client),
}

impl Who {
    pub(super) fn of(person: &Person, body: LoadBody) -> Self {
        match body {
            LoadBody::Sealed(_) => Self::Sealed(Box::new(Device::of(&person.client, Arc::clone(&person.dialer)))),
            LoadBody::Text(_) => Self::Text(person.client.clone()),
        }
    }

    async fn enter(self, hears: bool, settles: bool) -> Result<Entered, ClientError> {
        Ok(match self {
            Self::Sealed(device) => Entered::Sealed(Box::new(sealed::connect(*device, hears).await?)),
            Self::Text(client) => Entered::Text(Box::new(Box::pin(encrypted::connect(client, settles)).await?)),
        })
    }
}

impl Role {
    /// One who listens.
    pub(super) fn listener(who: Who) -> Self {
        Self { who, posts: Vec::new(), habits: Habits { hears: true, ..Habits::default() } }
    }

    /// One who speaks there and hears nothing.
    pub(super) fn speaker(who: Who, posts: Vec<Post>) -> Self {
        Self { who, posts, habits: Habits::default() }
    }

    /// Goes another way to the server, unless its home knows its own.
    pub(super) fn dials_by(&mut self, dialer: &Arc<Dialer>) {
        if let Who::Sealed(device) = &mut self.who {
            device.dials_by(Arc::clone(dialer));
        }
    }
}

impl Post {
    /// In a conversation, with so many devices that hear it.
    pub(super) const fn new(conversation: &Conversation, hearers: u64) -> Self {
        Self { conversation: conversation.id, epoch: conversation.epoch, hearers }
    }
}

/// A device that is connected.
#[derive(Debug)]
pub(super) enum Entered {
    Sealed(Box<sealed::Connected>),
    Text(Box<encrypted::Connected>),
}

impl Entered {
    async fn run(self, part: Part) -> Result<(), ClientError> {
        match self {
            Self::Sealed(device) => sealed::run(*device, part).await,
            Self::Text(device) => Box::pin(encrypted::run(*device, part)).await,
        }
    }
}

/// Connects everybody, before the clock starts.
pub(super) async fn enter(roles: &[Role], tell: Tell<'_>) -> Result<Vec<Entered>, LoadError> {
    enter_on(&Handle::current(), roles, tell).await
}

/// The same in another runtime.
pub(super) async fn enter_on(runtime: &Handle, roles: &[Role], tell: Tell<'_>) -> Result<Vec<Entered>, LoadError> {
    let count = roles.len();
    let enter = |index: usize| {
        let role = roles.get(index).cloned();
        async move {
            let Role { who, habits, .. } = role.ok_or(ClientError::Ended)?;
            Box::pin(who.enter(habits.hears, habits.hears)).await
        }
    };
    let told = |done| tell(&Progress::SetUp { what: "connections", done, of: count });
    Ok(setup::each_on(runtime, count, enter, told).await?)
}

/// What all devices of a load have in common.
pub(super) struct Play<'a> {
    pub(super) options: &'a LoadOptions,
    pub(super) meter: &'a Meter,
    pub(super) stage: &'a Stage,
    /// Messages that each device says at most.
    pub(super) messages: Option<u64>,
}

impl Play<'_> {
    /// Those who are connected begin.
    pub(super) fn begin(&self, roles: Vec<Role>, entered: Vec<Entered>, tasks: &mut Tasks) {
        self.begin_on(&Handle::current(), roles, entered, tasks);
    }

    /// The same in another runtime: that in which they were connected.
    pub(super) fn begin_on(&self, runtime: &Handle, roles: Vec<Role>, entered: Vec<Entered>, tasks: &mut Tasks) {
        let speakers = roles.iter().filter(|role| !role.posts.is_empty()).count();
        let mut speaker = 0;
        for (index, (role, entered)) in roles.into_iter().zip(entered).enumerate() {
            let says = (!role.posts.is_empty()).then(|| {
                let LoadOptions { pace, duration, .. } = self.options;
                let pace = Pace::new(*pace, speakers, speaker, self.stage.start(), *duration);
                let pace = self.messages.map_or(pace.clone(), |messages| pace.at_most(messages));
                speaker += 1;
                Says::new(role.posts, pace, self.stage)
            });
            tasks.spawn_on(entered.run(self.part(index, says, role.habits, 0)), runtime);
        }
    }

    /// Those who were absent come in while the clock runs, and listen.
    pub(super) fn come_in(&self, roles: Vec<Role>, tasks: &mut Tasks) {
        let now_ns = self.stage.now_ns();
        for (index, Role { who, habits, .. }) in roles.into_iter().enumerate() {
            let part = self.part(index, None, habits, now_ns);
            tasks.spawn(async move { Box::pin(who.enter(true, false)).await?.run(part).await });
        }
    }

    fn part(&self, index: usize, says: Option<Says>, habits: Habits, counts_from_ns: u64) -> Part {
        let (stage, lane) = (self.stage.clone(), self.meter.lane(index));
        Part { says, habits, lane, stage, bytes: self.options.body.bytes(), counts_from_ns }
    }
}

/// A load from the first connection to the report, where everybody is there from the beginning.
pub(super) async fn run(options: &LoadOptions, roles: Vec<Role>, tell: Tell<'_>) -> Result<LoadReport, LoadError> {
    let entered = Box::pin(enter(&roles, tell)).await?;
    let before = look(options.metrics.as_ref()).await?;
    let (meter, stage, mut tasks) = (Meter::new(roles.len()), Stage::begin(), Tasks::new());
    Play { options, meter: &meter, stage: &stage, messages: None }.begin(roles, entered, &mut tasks);
    stage.run(&mut tasks, &meter, tell).await;
    let after = look(options.metrics.as_ref()).await?;
    let mut report = LoadReport::of(options, &meter, stage.due(), stage.elapsed());
    report.cost = Cost::between(before, after, report.delivered);
    Ok(report)
}
