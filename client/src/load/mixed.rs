//! A day's mix: people who talk with one another and in groups, confirm what they hear, go away and come back.

use std::time::Duration;

use super::play::{self, Role, Who};
use super::setup::{Person, SetUp};
use super::stage::{Away, Habits, Post};
use super::{LoadError, LoadOptions, LoadReport, Tell};
use crate::vault::Conversation;

/// Of so many messages of a person ...
const ROUND: usize = 10;
/// ... every so many go to the group: three of ten.
const TO_GROUP: usize = 3;

/// How often people go away, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AwayTimes {
    /// From coming back until going away again.
    pub every: Duration,
    /// How long.
    pub lasts: Duration,
}

/// So many people, each with two of whom they talk alone and in a group of so many.
pub(super) async fn mixed(
    options: &LoadOptions,
    (count, members, away): (usize, usize, Option<AwayTimes>),
    tell: Tell<'_>,
) -> Result<LoadReport, LoadError> {
    let set_up = SetUp::begin(&options.server, count).await?;
    let people = set_up.people(count, true, tell).await?;
    // Each begins with the next one; of two people there is one conversation.
    let begun = if count == 2 { 1 } else { count };
    let next = people.iter().skip(1).chain(people.first());
    let with = people.iter().cloned().zip(next.map(Person::handle)).take(begun).collect();
    let conversations = set_up.conversations(with, tell).await?;
    let casts: Vec<_> = people.chunks(members).filter(|cast| cast.len() > 1).collect();
    let founded = |cast: &&[Person]| {
        let (founder, others) = cast.split_first()?;
        Some((founder.clone(), others.iter().map(Person::handle).collect::<Vec<_>>()))
    };
    let groups = Box::pin(set_up.groups(casts.iter().filter_map(founded).collect(), tell)).await?;
    let sizes: Vec<_> = casts.iter().map(|cast| cast.len()).collect();
    let role = |(index, person): (usize, &Person)| {
        let group = groups.get(index / members).zip(sizes.get(index / members));
        let posts = posts(index, &conversations, group);
        let away = away.map(|times| leaves(times, index, count));
        let habits = Habits { hears: true, confirms: true, returns: false, away };
        Role { who: Who::of(person, options.body), posts, habits }
    };
    let roles = people.iter().enumerate().map(role).collect();
    drop(people);
    Box::pin(play::run(options, roles, tell)).await
}

/// Where somebody speaks: now with the one before, now with the one behind, and three times in ten in the group.
fn posts(index: usize, conversations: &[Conversation], group: Option<(&Conversation, &usize)>) -> Vec<Post> {
    let count = conversations.len().max(1);
    let alone = [conversations.get(index % count), conversations.get((index + count - 1) % count)];
    let group = group.map(|(group, size)| Post::new(group, u64::try_from(size.saturating_sub(1)).unwrap_or(0)));
    let post = |turn: usize| {
        let to_group = group.filter(|_| turn > 0 && turn.is_multiple_of(TO_GROUP));
        to_group.or_else(|| alone.get(turn % alone.len()).copied().flatten().map(|with| Post::new(with, 1)))
    };
    (0..ROUND).filter_map(post).collect()
}

/// They do not all go at once.
fn leaves(times: AwayTimes, index: usize, count: usize) -> Away {
    let share = u32::try_from(index + 1).unwrap_or(u32::MAX);
    let of = u32::try_from(count).unwrap_or(u32::MAX).max(1);
    let first = times.every.saturating_mul(share) / of;
    Away { first, every: times.every, lasts: times.lasts }
}

#[cfg(test)]
mod tests {
    use gureum_proto::{ConversationId, ConversationKind};

    use super::*;
    use crate::vault::ConversationStatus;

    fn conversation(byte: u8) -> Conversation {
        Conversation {
            id: ConversationId::from_bytes([byte; 16]),
            kind: ConversationKind::Group,
            peer: None,
            name: None,
            epoch: 1,
            epoch_seen: 1,
            state: ConversationStatus::Active,
        }
    }

    fn places(posts: &[Post]) -> Vec<(u8, u64)> {
        posts.iter().map(|post| (post.conversation.as_bytes()[0], post.hearers)).collect()
    }

    #[test]
    fn three_messages_of_ten_go_to_the_group_and_the_others_to_both_sides() {
        let conversations: Vec<_> = (0..4).map(conversation).collect();
        let group = conversation(9);
        let posts = posts(1, &conversations, Some((&group, &5)));
        let expected = [(1, 1), (0, 1), (1, 1), (9, 4), (1, 1), (0, 1), (9, 4), (0, 1), (1, 1), (9, 4)];
        assert_eq!(places(&posts), expected);
    }

    #[test]
    fn two_people_have_one_conversation() {
        for index in [0, 1] {
            let posts = posts(index, &[conversation(3)], None);
            assert_eq!(places(&posts), [(3, 1); ROUND]);
        }
    }

    #[test]
    fn people_go_away_one_after_the_other() {
        let times = AwayTimes { every: Duration::from_secs(10), lasts: Duration::from_secs(1) };
        let firsts: Vec<_> = (0..4).map(|index| leaves(times, index, 4).first).collect();
        assert_eq!(firsts, [2_500, 5_000, 7_500, 10_000].map(Duration::from_millis));
    }
}
