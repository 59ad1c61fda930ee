//! Accounts made for a phone number, and people found by theirs, against a server of the test's making.

use std::sync::Mutex;

use gureum_proto::{
    ClientFrame, Code, CodeSent, DeliveryFrame, DeviceLog, FindBy, Phone, Refusal, Register, Request, Response,
    ServerFrame, ServerUrl,
};
use quinn::VarInt;
use tokio::sync::oneshot;

use super::confined::{answer, bytes, registered};
use super::*;
use crate::link::tests::{Peer, request, server};
use crate::vault::TrustError;

const TYPED: &str = "+82 10-1234-5678";

fn number() -> Phone {
    "+821012345678".parse().unwrap()
}

fn account(server: ServerUrl) -> NewAccount {
    NewAccount { invite: server, handle: "alice".parse().unwrap(), device_name: "laptop".to_owned() }
}

fn new_phone() -> NewPhone {
    NewPhone { phone: TYPED.parse().unwrap(), code: "012345".parse().unwrap(), pin: None, findable: true }
}

/// A server that sends a code to whatever number it is asked for, and calls that number so.
fn that_sends_codes(called: &'static str) -> ServerUrl {
    server(move |mut peer: Peer| async move {
        let Some(ClientFrame::RequestCode(asked)) = peer.next_unless_closed().await else { panic!("no number") };
        assert_eq!(asked.as_str(), TYPED);
        let sent = CodeSent { expires_ms: 300_000, again_after_ms: 60_000, phone: called.parse().unwrap() };
        peer.say(&[ServerFrame::CodeSent(sent)]).await;
        peer.connection.closed().await;
    })
}

/// A server that is shown a code, and takes it or does not.
fn that_is_shown(takes: bool) -> (ServerUrl, oneshot::Receiver<Register>) {
    let (shown, register) = oneshot::channel();
    let url = server(move |mut peer: Peer| async move {
        let Some(ClientFrame::Register(register)) = peer.next_unless_closed().await else { panic!("no account") };
        let log = DeviceLog::from_root(&register.root_entry).unwrap();
        let (device, _) = log.active().next().unwrap();
        let answer = if takes {
            ServerFrame::Registered(Registered { account: log.account(), device })
        } else {
            ServerFrame::Refused(Refusal::new(Code::CodeInvalid))
        };
        shown.send(register).unwrap();
        peer.say(&[answer]).await;
        if takes {
            // What it is asked next matters nothing here.
            drop(peer.next_unless_closed().await);
            peer.connection.close(VarInt::from_u32(Code::Stopping.number()), b"");
        }
        peer.connection.closed().await;
    });
    (url, register)
}

async fn register(home: &Path, server: ServerUrl) -> Result<Registration, ClientError> {
    let registering = Box::pin(Client::register_by_phone(home, KeySource::File, account(server), new_phone()));
    tokio::time::timeout(Duration::from_secs(20), registering).await.expect("an answer")
}

async fn ask(home: &Path, account: &NewAccount) -> Result<Option<CodeSent>, ClientError> {
    let typed = TYPED.parse().unwrap();
    let asking = Box::pin(Client::request_code(home, KeySource::File, account, &typed));
    tokio::time::timeout(Duration::from_secs(20), asking).await.expect("an answer")
}

#[tokio::test]
async fn an_account_is_made_by_a_code_with_the_keys_of_the_first_attempt() {
    let home = tempfile::tempdir().unwrap();
    let asking = account(that_sends_codes("+821012345678"));
    let sent = ask(home.path(), &asking).await.unwrap();
    assert_eq!(sent.map(|sent| sent.phone), Some(number()));
    let (url, wrong) = that_is_shown(false);
    let refused = register(home.path(), url).await.unwrap_err();
    assert_eq!(refused.code(), Some(Code::CodeInvalid), "{refused}");
    let (url, right) = that_is_shown(true);
    let client = register(home.path(), url).await.unwrap().client;
    let (wrong, right) = (wrong.await.unwrap(), right.await.unwrap());
    assert_eq!((&wrong.root_entry, &wrong.phone), (&right.root_entry, &right.phone));
    let proof = right.phone.unwrap();
    assert_eq!((proof.phone.as_str(), proof.code.as_str()), (TYPED, "012345"));
    assert_eq!((proof.lock, proof.findable), (None, true));
    let own = client.phone().await.unwrap().unwrap();
    assert_eq!((own.phone, own.findable, own.locked), (number(), true, false));
    // Nothing is asked for any more, and the words are shown still.
    let asking = account(that_sends_codes("+821012345678"));
    drop(client);
    assert_eq!(ask(home.path(), &asking).await.unwrap(), None);
}

#[tokio::test]
async fn what_a_server_calls_no_number_is_not_kept() {
    let home = tempfile::tempdir().unwrap();
    let asking = account(that_sends_codes("+82 1012345678"));
    let asked = ask(home.path(), &asking).await;
    assert!(matches!(asked, Err(ClientError::Mismatched)), "{asked:?}");
}

/// Answers who asks for a number as the test says at the time.
async fn serve(mut peer: Peer, proof: ed25519_dalek::VerifyingKey, answers: Arc<Mutex<Response>>) {
    peer.welcome_by(&proof).await;
    let mut delivery = peer.connection.open_uni().await.unwrap();
    delivery.write_all(&bytes(&[DeliveryFrame::CaughtUp { seq: 0 }])).await.unwrap();
    while let Ok((send, mut recv)) = peer.connection.accept_bi().await {
        let said = match request(&mut recv).await {
            Request::PutKeyPackages { .. } => Response::KeyPackagesStored { left: 20 },
            Request::FindAccount { by: FindBy::Phone(phone), .. } => {
                assert_eq!(phone.as_str(), TYPED);
                answers.lock().unwrap().clone()
            }
            other => panic!("{other:?}"),
        };
        answer(send, &said).await;
    }
}

#[tokio::test]
async fn whoever_has_a_number_is_found_by_it_and_its_next_owner_at_the_second_asking() {
    let homes = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let [home, first, second] = &homes;
    let (alice, _) = registered(home.path(), "alice");
    let ((_, bob), (_, carol)) = (registered(first.path(), "bob"), registered(second.path(), "carol"));
    let not_found = || Response::Refused(Refusal::new(Code::NotFound));
    let answers = Arc::new(Mutex::new(not_found()));
    let (proof, mut identity) = (alice.identity().proof.verifying_key(), alice.identity().clone());
    let served = Arc::clone(&answers);
    identity.server = server(move |peer| serve(peer, proof, served));
    let client = Client::new(Ground::system(), home.path(), alice, identity).unwrap();
    let mut session = client.session(TAKE).unwrap();
    let commands = session.commands();
    let target: Target = TYPED.parse().unwrap();
    let says = |answer: Response| *answers.lock().unwrap() = answer;

    let nobody = session.finish(commands.resolve(target.clone())).await;
    assert!(matches!(nobody, Err(ClientError::NobodyByNumber(_))), "{nobody:?}");
    says(Response::Account(bob.clone()));
    assert_eq!(account_of(session.finish(commands.resolve(target.clone())).await), bob.account);
    // He does not want to be found by it any more, or the server has been asked too often: he is known.
    for refused in [not_found(), Response::Refused(Refusal::new(Code::RateLimited))] {
        says(refused);
        assert_eq!(account_of(session.finish(commands.resolve(target.clone())).await), bob.account);
    }
    says(Response::Account(carol.clone()));
    let moved = session.finish(commands.resolve(target.clone())).await.unwrap_err();
    assert!(matches!(moved, ClientError::Trust(TrustError::NumberMoved { .. })), "{moved}");
    assert!(moved.is_handle_moved() && moved.to_string().contains("carol instead of bob"), "{moved}");
    assert_eq!(account_of(session.finish(commands.resolve(target.clone())).await), carol.account);
    drop(commands);
    session.abort().await;
}

#[track_caller]
fn account_of(resolved: Result<Resolved, ClientError>) -> AccountId {
    match resolved {
        Ok(Resolved::Contact(contact)) => contact.account,
        other => panic!("{other:?}"),
    }
}
