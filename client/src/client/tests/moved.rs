//! A server that shows another account under a handle than before, while somebody writes to it.

use gureum_proto::{AccountFound, AccountId, DeliveryFrame, FindBy, Request, Response};

use super::confined::{answer, bytes, registered};
use super::*;
use crate::link::tests::{Peer, request, server};
use crate::vault::{Event, Target, TrustError};

/// Knows one account alone, under whatever handle it is asked for.
async fn serve(mut peer: Peer, proof: ed25519_dalek::VerifyingKey, found: AccountFound) {
    peer.welcome_by(&proof).await;
    let mut delivery = peer.connection.open_uni().await.unwrap();
    delivery.write_all(&bytes(&[DeliveryFrame::CaughtUp { seq: 0 }])).await.unwrap();
    while let Ok((send, mut recv)) = peer.connection.accept_bi().await {
        let said = match request(&mut recv).await {
            Request::PutKeyPackages { .. } => Response::KeyPackagesStored { left: 20 },
            Request::FindAccount { by: FindBy::Handle(_), .. } => Response::Account(found.clone()),
            Request::CreateConversation(create) => {
                Response::ConversationCreated { conversation: create.conversation, existed: false, epoch: 1 }
            }
            other => panic!("{other:?}"),
        };
        answer(send, &said).await;
    }
}

/// A client that knows a Bob, whose server shows another one; with the accounts of both.
async fn with_another_bob(home: &Path) -> (Client, AccountId, AccountId) {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (mut alice, _) = registered(home, "alice");
    let (_, bob) = registered(first.path(), "bob");
    let (_, other) = registered(second.path(), "bob");
    alice.learn_account(&bob, 0).unwrap();
    let accounts = (bob.account, other.account);
    let (proof, mut identity) = (alice.identity().proof.verifying_key(), alice.identity().clone());
    identity.server = server(move |peer| serve(peer, proof, other));
    (Client::new(Ground::system(), home, alice, identity).unwrap(), accounts.0, accounts.1)
}

async fn told(client: &Client) -> Vec<(AccountId, AccountId)> {
    let change = |stored: StoredEvent| match stored.event {
        Event::SafetyNumber { before, after, .. } => (before, after),
        other => panic!("{other:?}"),
    };
    client.unreported_events(9).await.unwrap().into_iter().map(change).collect()
}

fn is_moved<T>(answer: &Result<T, ClientError>) -> bool {
    matches!(answer, Err(ClientError::Trust(TrustError::HandleMoved { .. })))
}

#[tokio::test]
async fn who_looks_for_somebody_whose_handle_has_moved_is_told_so_first() {
    let home = tempfile::tempdir().unwrap();
    let (client, first, second) = with_another_bob(home.path()).await;
    let mut session = client.session(TAKE).unwrap();
    let commands = session.commands();
    let found = session.finish(commands.find("bob".parse().unwrap())).await;
    assert!(is_moved(&found), "{found:?}");
    assert_eq!(told(&client).await, [(first, second)]);
    let found = session.finish(commands.find("bob".parse().unwrap())).await.unwrap();
    assert_eq!(found.account, second);
    assert_eq!(told(&client).await.len(), 1, "once");
    drop(commands);
    session.abort().await;
}

#[tokio::test]
async fn who_begins_a_conversation_with_somebody_whose_handle_has_moved_is_told_so_before_anything_is_sent() {
    let home = tempfile::tempdir().unwrap();
    let (client, first, second) = with_another_bob(home.path()).await;
    let mut session = client.session(TAKE).unwrap();
    let commands = session.commands();
    let sent = session.finish(commands.send("bob".parse::<Target>().unwrap(), "hello?".to_owned())).await;
    assert!(is_moved(&sent), "{sent:?}");
    assert_eq!(told(&client).await, [(first, second)]);
    assert_eq!(client.vault.call(Vault::outbox_len).await.unwrap(), 0);
    assert_eq!(client.contact(&"bob".parse().unwrap()).await.unwrap(), None);
    drop(commands);
    session.abort().await;
}

#[tokio::test]
async fn whoever_would_bring_somebody_whose_handle_has_moved_into_a_group_is_told_so_and_brings_in_neither() {
    let home = tempfile::tempdir().unwrap();
    let (client, first, second) = with_another_bob(home.path()).await;
    let mut session = client.session(TAKE).unwrap();
    let commands = session.commands();
    let create = GroupCommand::Create { name: "club".to_owned(), who: vec!["bob".parse().unwrap()] };
    let made = session.finish(commands.group(create)).await.unwrap();
    assert_eq!(made.failed.len(), 1, "{made:?}");
    assert!(made.failed.iter().all(|(_, why)| why.contains("another account")), "{made:?}");
    assert_eq!((made.done, made.refused), (vec![], None));
    assert_eq!(told(&client).await, [(first, second)]);
    drop(commands);
    session.abort().await;
}
