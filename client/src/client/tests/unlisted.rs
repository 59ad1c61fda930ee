//! A conversation that begins while this device is connected, and of which the Welcome is for its siblings alone.

use gureum_proto::{Code, ConversationKind, ConversationState, DeliveryFrame, Position, Refusal, Request, Response};
use tokio::sync::oneshot;

use super::confined::{Sender, answer, bytes, registered};
use super::*;
use crate::link::tests::{Peer, request, server};

/// Lists one conversation, and tells when somebody wants to join it.
async fn serve(
    mut peer: Peer,
    proof: ed25519_dalek::VerifyingKey,
    delivered: Vec<DeliveryFrame>,
    listed: ConversationState,
    joins: oneshot::Sender<()>,
) {
    peer.welcome_by(&proof).await;
    let mut delivery = peer.connection.open_uni().await.unwrap();
    delivery.write_all(&bytes(&delivered)).await.unwrap();
    let mut joins = Some(joins);
    while let Ok((send, mut recv)) = peer.connection.accept_bi().await {
        let said = match request(&mut recv).await {
            Request::PutKeyPackages { .. } => Response::KeyPackagesStored { left: 20 },
            Request::ListConversations { .. } => {
                Response::Conversations { conversations: vec![listed.clone()], more: false }
            }
            Request::ReadGroup { conversation } => {
                assert_eq!(conversation, listed.conversation);
                joins.take().into_iter().for_each(|joins| joins.send(()).unwrap());
                Response::Refused(Refusal::new(Code::Unavailable))
            }
            other => panic!("{other:?}"),
        };
        answer(send, &said).await;
    }
}

#[tokio::test]
async fn a_conversation_whose_welcome_is_for_siblings_alone_is_joined_without_one() {
    let (home, sibling) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (bob, bob_found) = registered(home.path(), "bob");
    let (mut other, other_found) = registered(sibling.path(), "other");
    let alice = Sender::begin("alice", &mut other, &other_found);
    let delivered =
        vec![DeliveryFrame::CaughtUp { seq: 0 }, alice.envelope(Position { seq: 1, count: 0 }, alice.welcome())];
    let accounts = vec![alice.account(), bob_found.account];
    let listed = ConversationState { conversation: alice.talk, epoch: 1, accounts, kind: ConversationKind::Direct };
    let (told, joins) = oneshot::channel();
    let proof = bob.identity().proof.verifying_key();
    let url = server(move |peer| serve(peer, proof, delivered, listed, told));
    let mut identity = bob.identity().clone();
    identity.server = url;
    let client = Client::new(Ground::system(), home.path(), bob, identity).unwrap();
    let session = client.session(TAKE).unwrap();
    tokio::time::timeout(Duration::from_secs(20), joins).await.expect("it wants to join").unwrap();
    session.abort().await;
}
