//! A session against a server of the test's making that refuses, for now or for good.

use bytes::BytesMut;
use gureum_proto::{
    Accepted, AccountFound, ClientFrame, Code, Commits, ConversationState, DeliveryFrame, Gone, Position, Ready,
    Refusal, Request, Response, Sent, ServerFrame,
};
use quinn::VarInt;
use tokio::sync::oneshot;

use super::*;
use crate::limits::LIFE_BITS;
use crate::link::tests::{Peer, request, server};
use crate::vault::ConversationStatus;

/// What the server does with a conversation that is to be made.
type Create = Box<dyn FnMut() -> Result<(), Answer> + Send>;

enum Answer {
    Refuse(Code),
    Close(Code),
}

/// A home with a message for somebody, in a conversation that no server knows yet.
fn home_with_a_message(home: &Path) -> Vault {
    let profile =
        |name: &str| NewProfile { server: "gureum://192.0.2.1:4433".parse().unwrap(), device_name: name.to_owned() };
    let other = tempfile::tempdir().unwrap();
    let (mut bob, draft) = Vault::create(other.path(), &KeySource::File, &profile("bob")).unwrap();
    let (mut alice, _) = Vault::create(home, &KeySource::File, &profile("alice")).unwrap();
    let registered = Registered { account: alice.identity().account, device: alice.identity().device };
    alice.registered(&"alice".parse().unwrap(), registered).unwrap();
    let (account, device) = (bob.identity().account, bob.identity().device);
    let log_entries = vec![draft.root_entry];
    let found = AccountFound { account, handle: "bob".parse().unwrap(), log_entries, log_length: 1 };
    alice.learn_account(&found, 0).unwrap();
    let package = bob.make_key_packages(1).unwrap().remove(0);
    let create = alice.begin_conversation(account, &[(device, package)], &[]).unwrap();
    alice.queue_text(create.conversation, "hello").unwrap();
    alice
}

async fn serve(mut peer: Peer, proof: ed25519_dalek::VerifyingKey, mut create: Create, gone_back_to: Option<u64>) {
    peer.welcome_by(&proof).await;
    let mut delivery = peer.connection.open_uni().await.unwrap();
    let mut out = BytesMut::new();
    DeliveryFrame::CaughtUp { seq: 0 }.put(&mut out);
    delivery.write_all(&out).await.unwrap();
    let connection = peer.connection.clone();
    loop {
        tokio::select! {
            stream = connection.accept_bi() => {
                let Ok((mut send, mut recv)) = stream else { return };
                let answer = match request(&mut recv).await {
                    Request::PutKeyPackages { .. } => Response::KeyPackagesStored { left: 20 },
                    Request::SetRelation { .. } | Request::SetConversation { .. } => Response::Done,
                    Request::CreateConversation(asked) => match create() {
                        Ok(()) => Response::ConversationCreated {
                            conversation: asked.conversation,
                            existed: false,
                            epoch: 1,
                        },
                        Err(Answer::Refuse(code)) => Response::Refused(Refusal::new(code)),
                        Err(Answer::Close(code)) => {
                            return connection.close(VarInt::from_u32(code.number()), b"");
                        }
                    },
                    Request::ReadCommits { .. } => {
                        let epoch = gone_back_to.unwrap();
                        Response::Commits(Commits { commits: Vec::new(), epoch, first_epoch: epoch })
                    }
                    other => panic!("{other:?}"),
                };
                let mut out = BytesMut::new();
                answer.put(&mut out);
                send.write_all(&out).await.unwrap();
                send.finish().unwrap();
            }
            frame = peer.next_unless_closed() => {
                let Some(frame) = frame else { return };
                let ClientFrame::Send(sent) = frame else { continue };
                let accepted = Accepted { message_id: None, number: 1, repeated: false, gone: Gone::default() };
                let result = match gone_back_to {
                    Some(epoch) if epoch < sent.epoch && sent.counter > 1 => Err(Refusal::new(Code::EpochStale)),
                    _ => Ok(accepted),
                };
                peer.say(&[ServerFrame::Sent(Sent { counter: sent.counter, result })]).await;
            }
        }
    }
}

/// A client whose server makes of its conversation what `create` says.
async fn client_of(home: &Path, create: impl FnMut() -> Result<(), Answer> + Send + 'static) -> Client {
    client_of_one_that(home, create, None).await
}

/// The same, whose server says after the first message that every conversation is at this epoch.
async fn client_of_one_that(
    home: &Path,
    create: impl FnMut() -> Result<(), Answer> + Send + 'static,
    gone_back_to: Option<u64>,
) -> Client {
    let vault = home_with_a_message(home);
    let proof = vault.identity().proof.verifying_key();
    let url = server(move |peer| serve(peer, proof, Box::new(create), gone_back_to));
    let mut identity = vault.identity().clone();
    identity.server = url;
    Client::new(Ground::system(), home, vault, identity).unwrap()
}

const ONCE: SessionOptions = SessionOptions { inbox: Inbox::Take, reconnect: false };

/// The states of the conversations that are known.
async fn states(client: &Client) -> Vec<ConversationStatus> {
    let known = client.vault.call(Vault::conversations).await.unwrap();
    known.into_iter().map(|known| known.state).collect()
}

#[tokio::test]
async fn a_conversation_refused_for_now_is_asked_for_again_on_the_same_connection() {
    let home = tempfile::tempdir().unwrap();
    let mut refusals = 2;
    let create = move || {
        refusals -= 1;
        if refusals >= 0 { Err(Answer::Refuse(Code::Unavailable)) } else { Ok(()) }
    };
    let client = client_of(home.path(), create).await;
    let mut session = client.session(ONCE).unwrap();
    let sent = async {
        loop {
            match session.next().await.unwrap() {
                ClientEvent::Sent(_) => return,
                ClientEvent::Stopped(error) => panic!("{error}"),
                _ => (),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), sent).await.unwrap();
    assert_eq!(states(&client).await, [ConversationStatus::Active]);
    session.close().await;
}

#[tokio::test]
async fn a_connection_that_closes_abandons_no_conversation() {
    let home = tempfile::tempdir().unwrap();
    let client = client_of(home.path(), || Err(Answer::Close(Code::Displaced))).await;
    let mut session = client.session(ONCE).unwrap();
    let Some(ClientEvent::Stopped(error)) = session.next().await else { panic!("not stopped") };
    assert_eq!(error.code(), Some(Code::Displaced));
    assert_eq!(states(&client).await, [ConversationStatus::Creating]);
    assert_eq!(client.vault.call(Vault::outbox_len).await.unwrap(), 1);
}

#[tokio::test]
async fn a_conversation_refused_for_good_fails_its_messages_and_nothing_else() {
    let home = tempfile::tempdir().unwrap();
    let client = client_of(home.path(), || Err(Answer::Refuse(Code::NotFound))).await;
    let mut session = client.session(ONCE).unwrap();
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
    assert_eq!(states(&client).await, []);
    let told = client.unreported_events(9).await.unwrap();
    assert!(matches!(told.as_slice(), [StoredEvent { event: crate::vault::Event::SendFailed { .. }, .. }]), "{told:?}");
    session.close().await;
}

#[tokio::test]
async fn a_session_that_is_to_last_comes_back_after_a_newer_connection_took_over() {
    let home = tempfile::tempdir().unwrap();
    let client = client_of(home.path(), || Err(Answer::Close(Code::Displaced))).await;
    let mut session = client.session(TAKE).unwrap();
    let Some(ClientEvent::Disconnected { error, .. }) = session.next().await else { panic!("it has ended") };
    assert_eq!(error.code(), Some(Code::Displaced));
    session.abort().await;
}

#[tokio::test]
async fn a_server_that_has_gone_back_without_a_word_is_found_out_by_its_refusal() {
    let home = tempfile::tempdir().unwrap();
    let client = client_of_one_that(home.path(), || Ok(()), Some(0)).await;
    let mut session = client.session(ONCE).unwrap();
    let commands = session.commands();
    let sent = session.finish(commands.send("bob".parse::<Target>().unwrap(), "hello?".to_owned()));
    let sent = tokio::time::timeout(Duration::from_secs(20), sent).await.unwrap();
    let error = sent.unwrap_err();
    assert!(error.is_gone_back() && error.to_string().contains("not kept"), "{error}");
    assert_eq!(states(&client).await, [ConversationStatus::Ahead]);
    assert_eq!(client.vault.call(Vault::outbox_len).await.unwrap(), 0, "it is taken back");
    drop(commands);
    session.close().await;
}

/// A server that was restored, and cannot say now what has become of a conversation; it says whether a message came.
async fn serve_unchecked(mut peer: Peer, proof: ed25519_dalek::VerifyingKey, listed: ConversationState) -> bool {
    let head = Position { seq: 1 << LIFE_BITS, count: 0 };
    peer.welcome_with(&proof, Ready { key_packages_left: 20, head, ..Ready::default() }).await;
    let connection = peer.connection.clone();
    loop {
        tokio::select! {
            stream = connection.accept_bi() => {
                let Ok((mut send, mut recv)) = stream else { return false };
                let answer = match request(&mut recv).await {
                    Request::ListConversations { .. } => {
                        Response::Conversations { conversations: vec![listed.clone()], more: false }
                    }
                    Request::ReadGroup { .. } => Response::Refused(Refusal::new(Code::Unavailable)),
                    _ => Response::KeyPackagesStored { left: 20 },
                };
                let mut out = BytesMut::new();
                answer.put(&mut out);
                send.write_all(&out).await.unwrap();
                send.finish().unwrap();
            }
            frame = peer.next_unless_closed() => match frame {
                Some(ClientFrame::Send(_)) => return true,
                Some(_) => {}
                None => return false,
            }
        }
    }
}

#[tokio::test]
async fn what_cannot_be_checked_now_after_a_restore_is_checked_before_anything_is_sent() {
    let home = tempfile::tempdir().unwrap();
    let mut vault = home_with_a_message(home.path());
    let known = vault.conversations().unwrap().remove(0);
    vault.conversation_created(known.id).unwrap();
    let accounts = vec![vault.identity().account, known.peer.unwrap()];
    let listed = ConversationState { conversation: known.id, epoch: known.epoch, accounts, kind: known.kind };
    let (proof, mut identity) = (vault.identity().proof.verifying_key(), vault.identity().clone());
    let (told, sent) = oneshot::channel();
    identity.server = server(move |peer| async move {
        told.send(serve_unchecked(peer, proof, listed).await).unwrap();
    });
    let client = Client::new(Ground::system(), home.path(), vault, identity).unwrap();
    let mut session = client.session(ONCE).unwrap();
    let ended = async {
        loop {
            if let ClientEvent::Stopped(error) = session.next().await.unwrap() {
                return error;
            }
        }
    };
    let ended = async { tokio::join!(sent, ended) };
    let (sent, error) = tokio::time::timeout(Duration::from_secs(20), ended).await.unwrap();
    assert_eq!((sent, error.code()), (Ok(false), Some(Code::Unavailable)));
    assert_eq!(client.vault.call(Vault::outbox_len).await.unwrap(), 1, "it waits for the next connection");
}
