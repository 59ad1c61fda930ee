//! One valid commit an epoch: everything else is refused with its code, and nobody is delivered a losing one.

use gureum_proto::{Code, ConversationWith, EnvelopeBody, Position, Request, Response, SubmitCommit};
use gureum_tests::device::Device;
use gureum_tests::raw::Raw;

use crate::delivery::Two;

const START: Position = Position { seq: 0, count: 0 };

pub(crate) async fn submit(raw: &Raw, commit: &SubmitCommit) -> Result<u64, Code> {
    match raw.request(&Request::SubmitCommit(commit.clone())).await {
        Response::CommitAccepted { epoch } => Ok(epoch),
        Response::Refused(refusal) => Err(refusal.code),
        other => panic!("{other:?} in place of an answer"),
    }
}

#[tokio::test]
async fn an_invalid_commit_is_refused_and_the_conversation_goes_on() {
    let mut two = Two::start().await;
    let good = two.alice.commit(&mut two.talk);
    let mut damaged = good.commit.to_vec();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    for bad in [
        SubmitCommit { commit: damaged.into(), ..good.clone() },
        SubmitCommit { commit: good.group_info.clone(), ..good.clone() },
        SubmitCommit { group_info: good.commit.clone(), ..good.clone() },
        SubmitCommit { commit: "no commit".into(), ..good.clone() },
    ] {
        assert_eq!(submit(&two.raw, &bad).await, Err(Code::CommitInvalid));
    }
    let unknown = SubmitCommit { conversation: gureum_proto::ConversationId::from_bytes([7; 16]), ..good.clone() };
    assert_eq!(submit(&two.raw, &unknown).await, Err(Code::NotFound));
    // None of them has used up the counter or the epoch.
    assert_eq!(submit(&two.raw, &good).await, Ok(2));
    two.alice.merge_own(&mut two.talk);
    let next = two.alice.commit(&mut two.talk);
    assert_eq!(submit(&two.raw, &next).await, Ok(3));
}

#[tokio::test]
async fn of_two_commits_of_one_epoch_the_first_wins_and_the_other_is_never_delivered() {
    let mut two = Two::start().await;
    let (bob_raw, mut frames) = two.subscribe(START).await;
    let EnvelopeBody::Welcome(welcome) = frames.envelope().await.shared.body else { panic!("no Welcome") };
    let mut bobs = two.bob.join(&bob_raw, two.talk.id, &welcome).await;
    let loser = two.bob.commit(&mut bobs);
    let winner = two.alice.commit(&mut two.talk);
    let (alice_raw, _) = two.alice.connect(two.world.url(), true, START).await;
    let mut alices = alice_raw.delivery().await;

    assert_eq!(submit(&two.raw, &winner).await, Ok(2));
    two.alice.merge_own(&mut two.talk);
    assert_eq!(submit(&bob_raw, &loser).await, Err(Code::EpochConflict));

    // Bob takes what came first, and tries again.
    let EnvelopeBody::Commit { epoch, commit } = frames.envelope().await.shared.body else { panic!("no commit") };
    assert_eq!((epoch, &commit), (1, &winner.commit));
    two.bob.clear_own(&mut bobs);
    two.bob.merge(&mut bobs, &commit);
    let again = two.bob.commit(&mut bobs);
    assert_eq!(submit(&bob_raw, &again).await, Ok(3));
    let EnvelopeBody::Commit { epoch, commit } = alices.envelope().await.shared.body else { panic!("no commit") };
    assert_eq!((epoch, &commit), (2, &again.commit), "Alice sees Bob's second commit and nothing of his first");
    two.alice.merge(&mut two.talk, &commit);
    let send = two.alice.encrypt(&mut two.talk, b"in step");
    two.raw.send(&[send]).await[0].result.clone().unwrap();
    let (_, ciphertext) = crate::delivery::next_body(&mut frames).await;
    two.bob.merge_own(&mut bobs);
    assert_eq!(two.bob.decrypt(&mut bobs, &ciphertext), b"in step");
}

#[tokio::test]
async fn a_commit_sent_again_after_a_lost_answer_does_no_harm() {
    let mut two = Two::start().await;
    let (_bob_raw, mut frames) = two.subscribe(START).await;
    frames.envelope().await;
    let commit = two.alice.commit(&mut two.talk);
    assert_eq!(submit(&two.raw, &commit).await, Ok(2));
    assert_eq!(submit(&two.raw, &commit).await, Ok(2), "the same counter gets the same answer");
    let EnvelopeBody::Commit { epoch: 1, .. } = frames.envelope().await.shared.body else { panic!("no commit") };

    two.world.kill_and_restart();
    let (raw, _) = two.alice.connect(two.world.url(), false, START).await;
    assert_eq!(submit(&raw, &commit).await, Ok(2), "also after a restart");
    // Under another counter it is a commit of an epoch that has ended.
    let doubled = SubmitCommit { counter: two.alice.next_counter(), ..commit };
    assert_eq!(submit(&raw, &doubled).await, Err(Code::EpochConflict));

    two.alice.merge_own(&mut two.talk);
    let next = two.alice.commit(&mut two.talk);
    assert_eq!(submit(&raw, &next).await, Ok(3));
    let (_bob_raw, mut frames) = two.subscribe(START).await;
    let mut epochs = Vec::new();
    while epochs.len() < 2 {
        if let EnvelopeBody::Commit { epoch, .. } = frames.envelope().await.shared.body {
            epochs.push(epoch);
        }
    }
    assert_eq!(epochs, [1, 2], "each commit stands once in the inbox");
}

#[tokio::test]
async fn a_stranger_neither_reads_a_group_nor_commits_to_it() {
    let mut two = Two::start().await;
    let mut mallory = Device::registered(&two.world, "mallory").await;
    let (raw, _) = mallory.connect(two.world.url(), false, START).await;
    let id = two.talk.id;
    for request in [Request::ReadGroup { conversation: id }, Request::ReadCommits { conversation: id, from_epoch: 1 }] {
        let Response::Refused(refusal) = raw.request(&request).await else { panic!("{request:?} was answered") };
        assert!(matches!(refusal.code, Code::NotMember | Code::NotFound), "{refusal:?}");
    }
    // Even with the group's state, which a member may have leaked.
    let Response::Group(group) = two.raw.request(&Request::ReadGroup { conversation: id }).await else {
        panic!("a member reads its group")
    };
    let external = mallory.external_commit(id, &group);
    assert!(matches!(submit(&raw, &external).await, Err(Code::NotMember | Code::NotFound)));
    let send = mallory.opaque(&two.talk, "let me in".as_bytes());
    let (mut raw, _) = mallory.connect(two.world.url(), false, START).await;
    assert_eq!(raw.send(&[send]).await[0].result.as_ref().unwrap_err().code, Code::NotMember);
    // Nor does a member bring a stranger's commit, or another member's, as its own.
    let commit = two.alice.commit(&mut two.talk);
    let (bob_raw, _) = two.bob.connect(two.world.url(), false, START).await;
    let stolen = SubmitCommit { counter: two.bob.next_counter(), ..commit.clone() };
    assert_eq!(submit(&bob_raw, &stolen).await, Err(Code::CommitInvalid));
    let strange = SubmitCommit { counter: two.bob.next_counter(), ..external };
    assert_eq!(submit(&bob_raw, &strange).await, Err(Code::CommitInvalid));
    assert_eq!(submit(&two.raw, &commit).await, Ok(2));
}

#[tokio::test]
async fn a_pair_has_one_conversation_and_a_group_of_others_is_none() {
    let two = Two::start().await;
    let mallory = Device::registered(&two.world, "mallory").await;
    let (_, second) = two.alice.prepare(&two.bob, &two.bob.key_package());
    match two.raw.request(&Request::CreateConversation(second)).await {
        Response::ConversationCreated { conversation, existed, epoch } => {
            assert_eq!((conversation, existed, epoch), (two.talk.id, true, 1));
        }
        other => panic!("{other:?}"),
    }
    // A group with Bob that claims to be with Mallory.
    let (_, mut other) = two.alice.prepare(&two.bob, &two.bob.key_package());
    other.with = ConversationWith::Peer(mallory.account);
    let answer = two.raw.request(&Request::CreateConversation(other)).await;
    assert!(matches!(&answer, Response::Refused(refusal) if refusal.code == Code::CommitInvalid), "{answer:?}");
}

#[tokio::test]
async fn a_member_that_lost_its_state_joins_again_by_an_external_commit() {
    let mut two = Two::start().await;
    let (raw, _) = two.bob.connect(two.world.url(), false, START).await;
    let Response::Group(group) = raw.request(&Request::ReadGroup { conversation: two.talk.id }).await else {
        panic!("a member reads its group")
    };
    let external = two.bob.external_commit(two.talk.id, &group);
    assert_eq!(submit(&raw, &external).await, Ok(2));
    let (alice_raw, _) = two.alice.connect(two.world.url(), true, START).await;
    let mut frames = alice_raw.delivery().await;
    let EnvelopeBody::Commit { commit, .. } = frames.envelope().await.shared.body else { panic!("no commit") };
    two.alice.merge(&mut two.talk, &commit);
    assert_eq!(two.talk.epoch(), 2);
}

#[tokio::test]
async fn the_commit_log_outlives_messages_and_then_says_that_it_is_gone() {
    let options = gureum_tests::Options {
        retention: Some("1s"),
        commit_retention: Some("3s"),
        ..gureum_tests::Options::default()
    };
    let mut two = Two::in_world(gureum_tests::World::start_with(options)).await;
    let commit = two.alice.commit(&mut two.talk);
    assert_eq!(submit(&two.raw, &commit).await, Ok(2));
    two.alice.merge_own(&mut two.talk);
    gureum_tests::wait::until_ms(gureum_tests::wait::now_ms() + 1_500);
    let (raw, _) = two.bob.connect(two.world.url(), false, START).await;
    let read = Request::ReadCommits { conversation: two.talk.id, from_epoch: 1 };
    match raw.request(&read).await {
        Response::Commits(page) => assert_eq!(page.commits, [(1, commit.commit)]),
        other => panic!("{other:?}"),
    }
    let until = tokio::time::Instant::now() + gureum_tests::wait::SOON;
    loop {
        match raw.request(&read).await {
            Response::Refused(refusal) => break assert_eq!(refusal.code, Code::CommitsGone),
            _ => assert!(tokio::time::Instant::now() < until, "the commit log never ends"),
        }
        tokio::task::yield_now().await;
    }
}
