//! What a session tells the server of people, hears of it about the account's number, and the end of an account.

use std::collections::VecDeque;
use std::sync::Mutex;

use ed25519_dalek::VerifyingKey;
use gureum_proto::{Code, DeliveryFrame, PhoneNotice, Ready, Refusal, Relation, Request, Response, ServerFrame};
use quinn::VarInt;
use tokio::sync::mpsc;

use super::confined::{answer, bytes, registered};
use super::*;
use crate::limits::DECISIONS_AGAIN_MS;
use crate::link::tests::{Peer, request, server};
use crate::vault::{Event, PhoneEvent};

const SOMEBODY: AccountId = AccountId::from_bytes([9; 16]);

/// How the server takes what it is told.
enum Takes {
    It,
    Refuses(Code),
    /// It is older than such requests.
    NotAtAll,
}

/// Says what it is told about people, and takes it as it is said here; from then on, it does.
async fn serve(
    mut peer: Peer,
    proof: VerifyingKey,
    notices: Vec<PhoneNotice>,
    takes: Arc<Mutex<VecDeque<Takes>>>,
    told: mpsc::Sender<Request>,
) {
    let phone = notices.first().copied().unwrap_or_default();
    peer.welcome_with(&proof, Ready { key_packages_left: 20, phone, ..Ready::default() }).await;
    let mut delivery = peer.connection.open_uni().await.unwrap();
    delivery.write_all(&bytes(&[DeliveryFrame::CaughtUp { seq: 0 }])).await.unwrap();
    for notice in notices {
        peer.say(&[ServerFrame::PhoneNotice(notice)]).await;
    }
    while let Ok((mut send, mut recv)) = peer.connection.accept_bi().await {
        let asked = request(&mut recv).await;
        if matches!(asked, Request::PutKeyPackages { .. }) {
            answer(send, &Response::KeyPackagesStored { left: 20 }).await;
            continue;
        }
        told.send(asked.clone()).await.unwrap();
        let takes = takes.lock().unwrap().pop_front().unwrap_or(Takes::It);
        match takes {
            Takes::It => answer(send, &taken(&asked)).await,
            Takes::Refuses(code) => answer(send, &Response::Refused(Refusal::new(code))).await,
            Takes::NotAtAll => send.reset(VarInt::from_u32(Code::PayloadMalformed.number())).unwrap(),
        }
    }
}

/// What a server says that takes a request.
fn taken(asked: &Request) -> Response {
    match asked {
        Request::ReadRelations { .. } => {
            Response::Relations { relations: vec![(SOMEBODY, Relation::Blocked)], more: false }
        }
        Request::ReadPreferences { .. } => Response::Preferences { preferences: Vec::new(), more: false },
        _ => Response::Done,
    }
}

/// Alice, and what her server hears.
fn alice(home: &Path, notices: Vec<PhoneNotice>, takes: Vec<Takes>) -> (Client, mpsc::Receiver<Request>) {
    let (vault, _) = registered(home, "alice");
    alice_with(home, vault, notices, takes)
}

/// The same with this vault.
fn alice_with(
    home: &Path,
    vault: Vault,
    notices: Vec<PhoneNotice>,
    takes: Vec<Takes>,
) -> (Client, mpsc::Receiver<Request>) {
    let (told, heard) = mpsc::channel(16);
    let (proof, mut identity) = (vault.identity().proof.verifying_key(), vault.identity().clone());
    let takes = Arc::new(Mutex::new(takes.into()));
    identity.server = server(move |peer| serve(peer, proof, notices, takes, told));
    (Client::new(Ground::system(), home, vault, identity).unwrap(), heard)
}

async fn next(heard: &mut mpsc::Receiver<Request>) -> Request {
    let next = tokio::time::timeout(Duration::from_secs(20), heard.recv());
    next.await.expect("the server is told").expect("it listens")
}

fn blocked() -> Request {
    Request::SetRelation { account: SOMEBODY, relation: Relation::Blocked }
}

async fn catch_up(session: &mut ClientSession) {
    let caught_up = async { while !matches!(session.next().await.unwrap(), ClientEvent::CaughtUp) {} };
    tokio::time::timeout(Duration::from_secs(20), caught_up).await.expect("the inbox is taken");
}

async fn owes(client: &Client) -> usize {
    client.vault.call(|vault| vault.untold(9)).await.unwrap().len()
}

#[tokio::test]
async fn what_was_decided_without_a_connection_is_told_by_the_next_session() {
    let home = tempfile::tempdir().unwrap();
    let (client, mut heard) = alice(home.path(), Vec::new(), Vec::new());
    client.set_relation(SOMEBODY, Relation::Blocked).await.unwrap();
    let mut session = client.session(TAKE).unwrap();
    assert_eq!(next(&mut heard).await, blocked());
    // What is decided while it lasts is told at once.
    catch_up(&mut session).await;
    client.set_relation(SOMEBODY, Relation::None).await.unwrap();
    assert_eq!(next(&mut heard).await, Request::SetRelation { account: SOMEBODY, relation: Relation::None });
    session.close().await;
    assert_eq!(owes(&client).await, 0);
}

#[tokio::test]
async fn what_was_decided_is_told_without_a_session_as_well() {
    let home = tempfile::tempdir().unwrap();
    let (client, mut heard) = alice(home.path(), Vec::new(), Vec::new());
    client.set_relation(SOMEBODY, Relation::Blocked).await.unwrap();
    client.tell_decisions().await.unwrap();
    assert_eq!((next(&mut heard).await, owes(&client).await), (blocked(), 0));
}

#[tokio::test]
async fn what_the_server_cannot_take_now_is_told_again_on_the_same_connection() {
    let home = tempfile::tempdir().unwrap();
    let (client, mut heard) = alice(home.path(), Vec::new(), vec![Takes::Refuses(Code::RateLimited)]);
    client.set_relation(SOMEBODY, Relation::Blocked).await.unwrap();
    let session = client.session(TAKE).unwrap();
    assert_eq!((next(&mut heard).await, next(&mut heard).await), (blocked(), blocked()));
    session.close().await;
}

#[tokio::test]
async fn what_the_server_does_not_take_is_told_once_and_holds_here() {
    let home = tempfile::tempdir().unwrap();
    let (client, mut heard) = alice(home.path(), Vec::new(), vec![Takes::Refuses(Code::LimitReached)]);
    client.set_relation(SOMEBODY, Relation::Blocked).await.unwrap();
    client.tell_decisions().await.unwrap();
    assert_eq!((next(&mut heard).await, owes(&client).await), (blocked(), 0));
    assert_eq!(client.relation(SOMEBODY).await.unwrap(), Relation::Blocked);
}

#[tokio::test]
async fn a_server_that_knows_no_such_requests_serves_on() {
    let home = tempfile::tempdir().unwrap();
    let (client, mut heard) = alice(home.path(), Vec::new(), vec![Takes::NotAtAll]);
    client.set_relation(SOMEBODY, Relation::Blocked).await.unwrap();
    let mut session = client.session(TAKE).unwrap();
    assert_eq!(next(&mut heard).await, blocked());
    catch_up(&mut session).await;
    assert_eq!(owes(&client).await, 1, "another one is told");
    session.close().await;
}

#[tokio::test]
async fn a_server_that_is_older_is_asked_again_what_was_decided_once_it_may_be_newer() {
    let home = tempfile::tempdir().unwrap();
    let (mut vault, _) = registered(home.path(), "alice");
    vault.seem_added();
    let (client, mut heard) = alice_with(home.path(), vault, Vec::new(), vec![Takes::NotAtAll]);
    let (link, _events, _ready) = client.link(&client.dialer().unwrap(), false).await.unwrap();
    let sync = client.sync(link);
    sync.read_decisions().await.unwrap();
    assert_eq!(next(&mut heard).await, Request::ReadRelations { after: None });
    sync.read_decisions().await.unwrap();
    heard.try_recv().expect_err("not at once: its connection is over each time");
    let wait = |vault: &mut Vault| vault.wait(DECISIONS_AGAIN_MS);
    client.vault.run(wait).await.unwrap();
    sync.read_decisions().await.unwrap();
    assert_eq!(next(&mut heard).await, Request::ReadRelations { after: None });
    assert_eq!(next(&mut heard).await, Request::ReadPreferences { after: None });
    assert_eq!(client.relation(SOMEBODY).await.unwrap(), Relation::Blocked);
    client.vault.run(wait).await.unwrap();
    sync.read_decisions().await.unwrap();
    heard.try_recv().expect_err("once it has said so");
    sync.link.close().await;
}

#[tokio::test]
async fn what_has_happened_to_the_number_is_told_once_however_often_the_server_says_it() {
    let home = tempfile::tempdir().unwrap();
    let (moved, tried) = (PhoneNotice { moved_ms: 7, tried_ms: 0 }, PhoneNotice { moved_ms: 7, tried_ms: 8 });
    let (client, _heard) = alice(home.path(), vec![moved, moved, tried, moved], Vec::new());
    let mut session = client.session(TAKE).unwrap();
    let told = async {
        loop {
            let told = client.unreported_events(9).await.unwrap();
            if told.len() == 2 {
                return told;
            }
            session.next().await.unwrap();
        }
    };
    let told = tokio::time::timeout(Duration::from_secs(20), told).await.expect("both are told");
    let told: Vec<_> = told.into_iter().map(|stored| stored.event).collect();
    let event = |change, time_ms| Event::Phone { change, time_ms };
    assert_eq!(told, [event(PhoneEvent::Moved, 7), event(PhoneEvent::Tried, 8)]);
    session.close().await;
    assert_eq!(client.unreported_events(9).await.unwrap().len(), 2);
}

#[tokio::test]
async fn an_account_is_deleted_by_its_own_handle_and_its_home_connects_no_more() {
    let home = tempfile::tempdir().unwrap();
    let (client, mut heard) = alice(home.path(), Vec::new(), Vec::new());
    let other = client.delete_account(&"bob".parse().unwrap()).await.unwrap_err();
    assert!(matches!(other, ClientError::OtherHandle { .. }), "{other}");
    let own: Handle = "alice".parse().unwrap();
    client.delete_account(&own).await.unwrap();
    assert_eq!(next(&mut heard).await, Request::DeleteAccount { handle: own });
    let mut session = client.session(TAKE).unwrap();
    let Some(ClientEvent::Stopped(error)) = session.next().await else { panic!("it goes on") };
    assert!(matches!(error, ClientError::Deleted), "{error}");
    session.close().await;
    assert!(client.history(None, 9).await.unwrap().is_empty(), "it can be read");
}
