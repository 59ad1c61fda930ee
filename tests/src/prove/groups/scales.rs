//! A device that is in groups only to weigh what the server gives it: Welcomes, commits, messages and trees.

use std::collections::BTreeSet;

use gureum_proto::{ConversationId, DeliveryFrame, EnvelopeBody, Handle, Position, Request, Response};
use serde::Serialize;

use crate::World;
use crate::device::Device;

const START: Position = Position { seq: 0, count: 0 };
/// What it is called.
const HANDLE: &str = "scales";
/// Groups that it may be put into.
const KEY_PACKAGES: usize = 50;

/// Longer messages are here only to be stored.
const SHORT_BYTES_MAX: usize = 4 * 1024;

/// Bytes, each as the median and the most.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Weights {
    /// A commit.
    pub commit: [usize; 2],
    /// A Welcome, which brings the tree.
    pub welcome: [usize; 2],
    /// The tree, as the server keeps it for whoever joins by itself.
    pub tree: [usize; 2],
    /// What goes with the tree.
    pub group_info: [usize; 2],
    /// A short message.
    pub message: [usize; 2],
}

/// The device.
pub(super) struct Scales {
    device: Device,
}

impl Scales {
    pub(super) async fn new(world: &World) -> Self {
        let device = Device::registered(world, HANDLE).await;
        let (raw, _) = device.connect(world.url(), false, START).await;
        device.publish(&raw, KEY_PACKAGES).await;
        raw.close().await;
        Self { device }
    }

    pub(super) fn handle() -> Handle {
        HANDLE.parse().unwrap()
    }

    /// Weighs what has come of some groups.
    pub(super) async fn weigh(&self, world: &World, groups: &[ConversationId]) -> Weights {
        let wanted: BTreeSet<_> = groups.iter().copied().collect();
        let (mut commits, mut welcomes, mut messages) = (Vec::new(), Vec::new(), Vec::new());
        let (raw, _) = self.device.connect(world.url(), true, START).await;
        let mut frames = raw.delivery().await;
        loop {
            let shared = match frames.delivery().await {
                DeliveryFrame::Envelope(envelope) => envelope.shared,
                DeliveryFrame::CaughtUp { .. } => break,
                DeliveryFrame::Gap(gap) => panic!("{gap:?}"),
            };
            if !wanted.contains(&shared.conversation) {
                continue;
            }
            match shared.body {
                EnvelopeBody::Commit { commit, .. } => commits.push(commit.len()),
                EnvelopeBody::Welcome(welcome) => welcomes.push(welcome.len()),
                EnvelopeBody::Message { ciphertext, .. } if ciphertext.len() <= SHORT_BYTES_MAX => {
                    messages.push(ciphertext.len());
                }
                EnvelopeBody::Message { .. }
                | EnvelopeBody::Silent(_)
                | EnvelopeBody::LogChange { .. }
                | EnvelopeBody::Leave(_) => {}
            }
        }
        let (mut trees, mut infos) = (Vec::new(), Vec::new());
        for conversation in wanted {
            let answer = raw.request(&Request::ReadGroup { conversation }).await;
            let Response::Group(group) = answer else { panic!("{answer:?} in place of a group") };
            trees.push(group.tree.len());
            infos.push(group.group_info.len());
        }
        raw.close().await;
        Weights {
            commit: weight(commits),
            welcome: weight(welcomes),
            tree: weight(trees),
            group_info: weight(infos),
            message: weight(messages),
        }
    }
}

/// The median and the most.
fn weight(mut bytes: Vec<usize>) -> [usize; 2] {
    bytes.sort_unstable();
    let median = bytes.get(bytes.len() / 2).copied().unwrap_or_default();
    [median, bytes.last().copied().unwrap_or_default()]
}
