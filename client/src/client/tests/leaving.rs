//! A server whose groups change all the time while somebody leaves one.

use gureum_proto::{Code, Ready, Refusal, Request, Response};

use super::confined::{answer, registered};
use super::*;
use crate::limits::REMOVAL_RACES_MAX;
use crate::link::tests::{Peer, request, server};

/// Says so many times to who leaves that a commit has come between, and counts how often it was asked.
async fn serve(mut peer: Peer, proof: ed25519_dalek::VerifyingKey, conflicts: usize, asked: Arc<AtomicU32>) {
    peer.welcome_with(&proof, Ready { key_packages_left: 20, ..Ready::default() }).await;
    while let Ok((send, mut recv)) = peer.connection.accept_bi().await {
        let said = match request(&mut recv).await {
            Request::PutKeyPackages { .. } => Response::KeyPackagesStored { left: 20 },
            Request::SubmitCommit(commit) => Response::CommitAccepted { epoch: commit.epoch + 1 },
            Request::LeaveConversation { .. } => {
                let before = usize::try_from(asked.fetch_add(1, Ordering::SeqCst)).unwrap();
                if before < conflicts {
                    Response::Refused(Refusal::new(Code::EpochConflict))
                } else {
                    Response::ConversationLeft
                }
            }
            other => panic!("{other:?}"),
        };
        answer(send, &said).await;
    }
}

/// What comes of leaving, and how often the server was asked.
async fn leave(conflicts: usize) -> (Result<GroupAnswer, ClientError>, usize) {
    let home = tempfile::tempdir().unwrap();
    let (mut vault, _) = registered(home.path(), "alice");
    let (create, _) = vault.begin_group("trip", &[]).unwrap();
    vault.conversation_created(create.conversation).unwrap();
    let (proof, mut identity) = (vault.identity().proof.verifying_key(), vault.identity().clone());
    let asked = Arc::<AtomicU32>::default();
    let counted = Arc::clone(&asked);
    identity.server = server(move |peer| serve(peer, proof, conflicts, counted));
    let client = Client::new(Ground::system(), home.path(), vault, identity).unwrap();
    let mut session = client.session(SessionOptions { inbox: Inbox::Leave, reconnect: false }).unwrap();
    let commands = session.commands();
    let left = session.finish(commands.group(GroupCommand::Leave { group: "trip".parse().unwrap() }));
    let left = tokio::time::timeout(Duration::from_secs(20), left).await.expect("an answer");
    drop(commands);
    session.abort().await;
    (left, usize::try_from(asked.load(Ordering::SeqCst)).unwrap())
}

#[tokio::test]
async fn who_leaves_tries_again_when_a_commit_comes_between() {
    let (left, asked) = leave(3).await;
    assert_eq!((left.unwrap().name.as_str(), asked), ("trip", 4));
}

#[tokio::test]
async fn who_leaves_a_group_that_never_stands_still_gives_up_after_some_attempts() {
    let (left, asked) = leave(usize::MAX).await;
    assert!(matches!(left, Err(ClientError::Stuck(_))), "{left:?}");
    assert_eq!(asked, REMOVAL_RACES_MAX);
}
