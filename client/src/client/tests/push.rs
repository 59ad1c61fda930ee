//! Where this device is woken, against a server of the test's making: what differs is told, and nothing else is asked.

use std::collections::VecDeque;
use std::sync::Mutex;

use bytes::BytesMut;
use ed25519_dalek::VerifyingKey;
use gureum_proto::{
    Code, DeliveryFrame, PushAddress, PushDigest, PushOffer, PushTarget, Ready, Refusal, Request, Response,
};
use tokio::sync::Notify;

use super::*;
use crate::link::tests::{Peer, request, server};

/// What a server has of a device, and what it hears of it.
#[derive(Default)]
struct Told {
    has: Option<PushDigest>,
    /// How it answers the first requests to change that.
    refusals: Mutex<VecDeque<Code>>,
    claimed: Mutex<Option<PushDigest>>,
    asked: Mutex<Vec<Request>>,
    done: Notify,
}

impl Told {
    fn asked(&self) -> Vec<Request> {
        self.asked.lock().unwrap().clone()
    }

    fn answer(&self, asked: Request) -> Response {
        let answer = match &asked {
            Request::PutKeyPackages { .. } => return Response::KeyPackagesStored { left: 20 },
            Request::ReadPush => Response::Push(PushOffer { target: self.has, ..PushOffer::default() }),
            Request::SetPushTarget(_) | Request::RemovePushTarget => {
                let refusal = self.refusals.lock().unwrap().pop_front();
                refusal.map_or(Response::Done, |code| Response::Refused(Refusal::new(code)))
            }
            other => panic!("{other:?}"),
        };
        self.asked.lock().unwrap().push(asked);
        answer
    }
}

async fn serve(mut peer: Peer, proof: VerifyingKey, differs: bool, told: Arc<Told>) {
    let ready = Ready { key_packages_left: 20, push_differs: differs, ..Ready::default() };
    let claim = peer.welcome_with(&proof, ready).await;
    *told.claimed.lock().unwrap() = claim.push_digest;
    let mut delivery = peer.connection.open_uni().await.unwrap();
    let mut out = BytesMut::new();
    DeliveryFrame::CaughtUp { seq: 0 }.put(&mut out);
    delivery.write_all(&out).await.unwrap();
    let connection = peer.connection.clone();
    loop {
        tokio::select! {
            stream = connection.accept_bi() => {
                let Ok((mut send, mut recv)) = stream else { return };
                let answer = told.answer(request(&mut recv).await);
                let mut out = BytesMut::new();
                answer.put(&mut out);
                // Whoever goes away at once does not stay for the answer.
                let _ = send.write_all(&out).await;
                let _ = send.finish();
                if answer == Response::Done {
                    told.done.notify_one();
                }
            }
            frame = peer.next_unless_closed() => {
                if frame.is_none() {
                    return;
                }
            }
        }
    }
}

fn target(token: &str) -> PushTarget {
    PushTarget { address: PushAddress::Fcm { token: token.to_owned() }, visible: true }
}

/// A client that wants to be woken there, and whose server says whether it has something else.
fn client(home: &Path, wanted: Option<&PushTarget>, differs: bool, told: &Arc<Told>) -> Client {
    let mut vault = Vault::open(home, &KeySource::File).unwrap();
    vault.set_push_target(wanted).unwrap();
    let proof = vault.identity().proof.verifying_key();
    let (mut identity, told) = (vault.identity().clone(), Arc::clone(told));
    identity.server = server(move |peer| serve(peer, proof, differs, told));
    Client::new(Ground::system(), home, vault, identity).unwrap()
}

async fn catch_up(client: &Client) {
    let mut session = client.session(SessionOptions { inbox: Inbox::Take, reconnect: false }).unwrap();
    let caught_up = async {
        loop {
            match session.next().await.unwrap() {
                ClientEvent::CaughtUp => return,
                ClientEvent::Stopped(error) => panic!("{error}"),
                _ => (),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), caught_up).await.unwrap();
    session.close().await;
}

#[tokio::test]
async fn a_session_tells_the_target_that_the_server_lacks() {
    let (home, told) = (home(), Arc::new(Told::default()));
    let client = client(home.path(), Some(&target("a")), true, &told);
    catch_up(&client).await;
    assert_eq!(*told.claimed.lock().unwrap(), Some(target("a").digest()));
    assert_eq!(told.asked(), [Request::ReadPush, Request::SetPushTarget(target("a"))]);
}

#[tokio::test]
async fn a_session_removes_the_target_that_is_not_wanted_any_more() {
    let told = Arc::new(Told { has: Some(target("a").digest()), ..Told::default() });
    let home = home();
    catch_up(&client(home.path(), None, true, &told)).await;
    assert_eq!(told.asked(), [Request::ReadPush, Request::RemovePushTarget]);
}

#[tokio::test]
async fn where_both_mean_the_same_a_session_asks_nothing() {
    let (home, told) = (home(), Arc::new(Told::default()));
    catch_up(&client(home.path(), Some(&target("a")), false, &told)).await;
    assert_eq!(told.asked(), []);
}

#[tokio::test]
async fn a_target_that_another_process_has_told_meanwhile_is_not_told_again() {
    let told = Arc::new(Told { has: Some(target("a").digest()), ..Told::default() });
    let home = home();
    catch_up(&client(home.path(), Some(&target("a")), true, &told)).await;
    assert_eq!(told.asked(), [Request::ReadPush]);
}

#[tokio::test]
async fn a_target_that_is_refused_for_good_holds_up_no_session_and_is_not_asked_again_on_it() {
    let told = Arc::new(Told { refusals: Mutex::new([Code::PushUnavailable].into()), ..Told::default() });
    let home = home();
    let client = client(home.path(), Some(&target("a")), true, &told);
    catch_up(&client).await;
    assert_eq!(told.asked().len(), 2);
    assert_eq!(client.push_target().await.unwrap(), Some(target("a")), "the service may be there again some day");
}

#[tokio::test]
async fn a_target_that_is_refused_for_now_is_told_again_on_the_same_connection() {
    let told = Arc::new(Told { refusals: Mutex::new([Code::Unavailable].into()), ..Told::default() });
    let home = home();
    let client = client(home.path(), Some(&target("a")), true, &told);
    let session = client.session(TAKE).unwrap();
    tokio::time::timeout(Duration::from_secs(20), told.done.notified()).await.unwrap();
    let set = || Request::SetPushTarget(target("a"));
    assert_eq!(told.asked(), [Request::ReadPush, set(), Request::ReadPush, set()]);
    session.close().await;
}

#[tokio::test]
async fn setting_a_target_tells_the_server_at_once() {
    let (home, told) = (home(), Arc::new(Told::default()));
    let client = client(home.path(), None, true, &told);
    client.set_push_target(target("a")).await.unwrap();
    assert_eq!(*told.claimed.lock().unwrap(), Some(target("a").digest()));
    assert_eq!(told.asked(), [Request::ReadPush, Request::SetPushTarget(target("a"))]);
}

#[tokio::test]
async fn a_target_that_the_server_refuses_leaves_the_one_before() {
    let told = Arc::new(Told { refusals: Mutex::new([Code::PushUnavailable].into()), ..Told::default() });
    let home = home();
    let client = client(home.path(), Some(&target("before")), true, &told);
    let refused = client.set_push_target(target("a")).await.unwrap_err();
    assert_eq!(refused.code(), Some(Code::PushUnavailable), "{refused}");
    assert_eq!(client.push_target().await.unwrap(), Some(target("before")));
}

#[tokio::test]
async fn what_is_no_target_is_neither_kept_nor_told() {
    let (home, told) = (home(), Arc::new(Told::default()));
    let client = client(home.path(), None, true, &told);
    let refused = client.set_push_target(target("two words")).await.unwrap_err();
    assert!(matches!(refused, ClientError::PushTarget(_)), "{refused}");
    assert_eq!((client.push_target().await.unwrap(), told.asked()), (None, Vec::new()));
}

#[tokio::test(start_paused = true)]
async fn without_a_network_what_is_set_or_cleared_is_kept_for_the_next_connection() {
    let home = home();
    let client = Client::open_on(ground(), home.path(), KeySource::File).await.unwrap();
    let kept = client.set_push_target(target("a")).await.unwrap_err();
    assert!(matches!(kept, ClientError::PushKept(_)), "{kept}");
    assert_eq!(client.push_target().await.unwrap(), Some(target("a")));
    let kept = client.clear_push_target().await.unwrap_err();
    assert!(matches!(kept, ClientError::PushKept(_)), "{kept}");
    assert_eq!(client.push_target().await.unwrap(), None);
}
