//! Pairs, and groups in which one sends and the others receive.

use super::cost::thousandths;
use super::play::{self, Role, Who};
use super::setup::{Person, SetUp};
use super::stage::Post;
use super::{FanoutReport, LoadError, LoadOptions, LoadReport, Tell};

/// N pairs of devices, one sending to the other.
pub(super) async fn pairs(options: &LoadOptions, pairs: usize, tell: Tell<'_>) -> Result<LoadReport, LoadError> {
    let set_up = SetUp::begin(&options.server, pairs * 2).await?;
    let roles = Box::pin(paired(&set_up, options, pairs, tell)).await?;
    let roles = roles.into_iter().flat_map(|(sender, receiver)| [sender, receiver]).collect();
    Box::pin(play::run(options, roles, tell)).await
}

/// Pairs of accounts with a conversation: who speaks in it, and who listens.
pub(super) async fn paired(
    set_up: &SetUp,
    options: &LoadOptions,
    pairs: usize,
    tell: Tell<'_>,
) -> Result<Vec<(Role, Role)>, LoadError> {
    let people = set_up.people(pairs * 2, false, tell).await?;
    let (senders, receivers) = people.split_at(pairs);
    let with = senders.iter().cloned().zip(receivers.iter().map(Person::handle)).collect();
    let conversations = set_up.conversations(with, tell).await?;
    let role = |((sender, receiver), conversation): ((&Person, &Person), _)| {
        let posts = vec![Post::new(&conversation, 1)];
        let sender = Role::speaker(Who::of(sender, options.body), posts);
        (sender, Role::listener(Who::of(receiver, options.body)))
    };
    Ok(senders.iter().zip(receivers).zip(conversations).map(role).collect())
}

/// Groups of so many accounts, of which one sends; of the others so many are connected.
pub(super) async fn fanout(
    options: &LoadOptions,
    (groups, members, connected): (usize, usize, usize),
    tell: Tell<'_>,
) -> Result<LoadReport, LoadError> {
    let set_up = SetUp::begin(&options.server, groups * members).await?;
    let people = set_up.people(groups * members, false, tell).await?;
    let casts: Vec<_> = people.chunks(members).filter_map(<[Person]>::split_first).collect();
    let founded = |(founder, others): &(&Person, &[Person])| {
        ((*founder).clone(), others.iter().map(Person::handle).collect::<Vec<_>>())
    };
    let conversations = Box::pin(set_up.groups(casts.iter().map(founded).collect(), tell)).await?;
    let hearers = u64::try_from(connected).unwrap_or(0);
    let mut roles = Vec::new();
    for ((founder, others), conversation) in casts.into_iter().zip(&conversations) {
        let mut sender = Role::speaker(Who::of(founder, options.body), vec![Post::new(conversation, hearers)]);
        // What others change in a group comes by the inbox; opaque bodies need none of it.
        sender.habits.hears = !options.body.is_sealed();
        roles.push(sender);
        roles.extend(others.iter().take(connected).map(|other| Role::listener(Who::of(other, options.body))));
    }
    drop(people);
    let mut report = Box::pin(play::run(options, roles, tell)).await?;
    let inboxes = report.accepted.saturating_mul(u64::try_from(members.saturating_sub(1)).unwrap_or(0));
    let cpu_us_per_inbox =
        report.cost.filter(|_| inboxes > 0).map(|cost| thousandths(cost.cpu_s * 1e6 / inboxes as f64));
    report.fanout = Some(FanoutReport { inboxes, cpu_us_per_inbox });
    Ok(report)
}
