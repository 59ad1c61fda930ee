//! A session over one connection that brings a conversation in trouble, and another one that goes on.

use bytes::{Bytes, BytesMut};
use gureum_proto::{
    AccountFound, AccountId, ClientFrame, Code, Commits, ConversationId, DeliveryFrame, DeviceId, Envelope,
    EnvelopeBody, MessageId, Position, Ready, Refusal, Request, Response, SharedEnvelope,
};
use tokio::sync::oneshot;

use super::*;
use crate::link::tests::{Peer, request, server};
use crate::vault::HistoryItem;

/// Somebody who has begun a conversation with Bob.
pub(super) struct Sender {
    _home: tempfile::TempDir,
    vault: Vault,
    pub(super) talk: ConversationId,
    welcome: Bytes,
}

fn profile(name: &str) -> NewProfile {
    NewProfile { server: "gureum://192.0.2.1:4433".parse().unwrap(), device_name: name.to_owned() }
}

fn found(handle: &str, account: AccountId, root_entry: Bytes) -> AccountFound {
    AccountFound { account, handle: handle.parse().unwrap(), log_entries: vec![root_entry], log_length: 1 }
}

pub(super) fn registered(home: &Path, handle: &str) -> (Vault, AccountFound) {
    let (mut vault, draft) = Vault::create(home, &KeySource::File, &profile(handle)).unwrap();
    let (account, device) = (vault.identity().account, vault.identity().device);
    vault.registered(&handle.parse().unwrap(), Registered { account, device }).unwrap();
    (vault, found(handle, account, draft.root_entry))
}

impl Sender {
    /// Both know each other; the Welcome is on its way.
    pub(super) fn begin(handle: &str, bob: &mut Vault, bob_found: &AccountFound) -> Self {
        let home = tempfile::tempdir().unwrap();
        let (mut vault, own) = registered(home.path(), handle);
        bob.learn_account(&own, 0).unwrap();
        vault.learn_account(bob_found, 0).unwrap();
        let package = (bob.identity().device, bob.make_key_packages(1).unwrap().remove(0));
        let create = vault.begin_conversation(bob_found.account, &[package], &[]).unwrap();
        let (talk, welcome) = (create.conversation, create.welcome);
        vault.conversation_created(talk).unwrap();
        Self { _home: home, vault, talk, welcome }
    }

    /// Goes on to an epoch whose commit Bob will never get.
    fn leave_behind(&mut self) {
        self.vault.commit_self_update(self.talk).unwrap().unwrap();
        self.vault.commit_accepted(self.talk).unwrap();
    }

    pub(super) fn account(&self) -> AccountId {
        self.vault.identity().account
    }

    pub(super) fn welcome(&self) -> EnvelopeBody {
        EnvelopeBody::Welcome(self.welcome.clone())
    }

    fn say(&mut self, number: u64, text: &str) -> EnvelopeBody {
        self.vault.queue_text(self.talk, text).unwrap();
        let sends = self.vault.next_sends(0, 64).unwrap();
        EnvelopeBody::Message { number, ciphertext: sends.last().unwrap().ciphertext.clone() }
    }

    pub(super) fn envelope(&self, position: Position, body: EnvelopeBody) -> DeliveryFrame {
        let (sender_account, sender_device): (AccountId, DeviceId) =
            (self.vault.identity().account, self.vault.identity().device);
        let message_id = MessageId::new(1_700_000_000_000 + position.seq, 1);
        let shared = SharedEnvelope { message_id, conversation: self.talk, sender_account, sender_device, body };
        DeliveryFrame::Envelope(Envelope { position, shared })
    }
}

/// Delivers some frames, and the others when those were acked up to a position; refuses every way into a conversation.
async fn serve(
    mut peer: Peer,
    proof: ed25519_dalek::VerifyingKey,
    (first, then): (Vec<DeliveryFrame>, Vec<DeliveryFrame>),
    acked: (u64, oneshot::Sender<()>),
) {
    peer.welcome_by(&proof).await;
    let mut delivery = peer.connection.open_uni().await.unwrap();
    delivery.write_all(&bytes(&first)).await.unwrap();
    let (connection, mut acked) = (peer.connection.clone(), Some(acked));
    loop {
        tokio::select! {
            stream = connection.accept_bi() => {
                let Ok((send, mut recv)) = stream else { return };
                let said = match request(&mut recv).await {
                    Request::PutKeyPackages { .. } => Response::KeyPackagesStored { left: 20 },
                    Request::ReadCommits { .. } => Response::Refused(Refusal::new(Code::CommitsGone)),
                    Request::ReadGroup { .. } => Response::Refused(Refusal::new(Code::NotMember)),
                    Request::SubmitCommit(_) => Response::Refused(Refusal::new(Code::EpochConflict)),
                    other => panic!("{other:?}"),
                };
                answer(send, &said).await;
            }
            frame = peer.next_unless_closed() => {
                let Some(frame) = frame else { return };
                let ClientFrame::Ack(ack) = frame else { continue };
                if let Some((_, told)) = acked.take_if(|(seq, _)| ack.seq >= *seq) {
                    told.send(()).unwrap();
                    delivery.write_all(&bytes(&then)).await.unwrap();
                }
            }
        }
    }
}

/// Delivers some frames, and others when a message comes, to which it gives no answer. From then on it shows no
/// conversation that has begun.
async fn serve_from_before(
    mut peer: Peer,
    proof: ed25519_dalek::VerifyingKey,
    (first, then): (Vec<DeliveryFrame>, Vec<DeliveryFrame>),
) {
    let ready = Ready { key_packages_left: 20, epochs_differ: true, ..Ready::default() };
    peer.welcome_with(&proof, ready).await;
    let mut has_gone_back = false;
    let mut delivery = peer.connection.open_uni().await.unwrap();
    delivery.write_all(&bytes(&first)).await.unwrap();
    let connection = peer.connection.clone();
    loop {
        tokio::select! {
            stream = connection.accept_bi() => {
                let Ok((mut send, mut recv)) = stream else { return };
                let answer = match request(&mut recv).await {
                    Request::PutKeyPackages { .. } => Response::KeyPackagesStored { left: 20 },
                    Request::SetRelation { .. } | Request::SetConversation { .. } => Response::Done,
                    Request::ReadCommits { .. } if has_gone_back => {
                        Response::Commits(Commits { commits: Vec::new(), epoch: 0, first_epoch: 0 })
                    }
                    Request::ListConversations { .. } if has_gone_back => {
                        Response::Conversations { conversations: Vec::new(), more: false }
                    }
                    Request::ReadCommits { .. } | Request::ListConversations { .. } => {
                        Response::Refused(Refusal::new(Code::NotMember))
                    }
                    Request::SubmitCommit(_) => Response::Refused(Refusal::new(Code::EpochConflict)),
                    other => panic!("{other:?}"),
                };
                let mut out = BytesMut::new();
                answer.put(&mut out);
                send.write_all(&out).await.unwrap();
                send.finish().unwrap();
            }
            frame = peer.next_unless_closed() => match frame {
                Some(ClientFrame::Send(_)) => {
                    has_gone_back = true;
                    delivery.write_all(&bytes(&then)).await.unwrap();
                }
                Some(_) => {}
                None => return,
            }
        }
    }
}

/// What Bob is told who has sent a message into Alice's conversation. `deliveries` makes of her what comes before that
/// message, and what comes then.
async fn told_to_who_waits(deliveries: fn(&mut Sender) -> (Vec<DeliveryFrame>, Vec<DeliveryFrame>)) {
    let home = tempfile::tempdir().unwrap();
    let (mut bob, bob_found) = registered(home.path(), "bob");
    let mut alice = Sender::begin("alice", &mut bob, &bob_found);
    let frames = deliveries(&mut alice);
    let (proof, mut identity) = (bob.identity().proof.verifying_key(), bob.identity().clone());
    identity.server = server(move |peer| serve_from_before(peer, proof, frames));
    let client = Client::new(Ground::system(), home.path(), bob, identity).unwrap();
    let mut session = client.session(TAKE).unwrap();
    let commands = session.commands();
    let sent = session.finish(commands.send("alice".parse::<Target>().unwrap(), "hello?".to_owned()));
    let error = tokio::time::timeout(Duration::from_secs(20), sent).await.expect("an answer").unwrap_err();
    assert!(error.is_gone_back(), "{error}");
    assert_eq!(client.vault.call(Vault::outbox_len).await.unwrap(), 0, "it is taken back");
    drop(commands);
    session.abort().await;
}

const fn at(seq: u64, count: u64) -> Position {
    Position { seq, count }
}

#[tokio::test]
async fn who_waits_for_an_answer_is_told_when_the_inbox_shows_that_the_server_has_gone_back() {
    told_to_who_waits(|alice| {
        let first = vec![alice.envelope(at(1, 0), alice.welcome()), DeliveryFrame::CaughtUp { seq: 1 }];
        alice.leave_behind();
        let later = alice.say(1, "of a later epoch");
        (first, vec![alice.envelope(at(2, 1), later)])
    })
    .await;
}

#[tokio::test]
async fn who_waits_for_an_answer_is_told_when_another_attempt_shows_that_the_server_has_gone_back() {
    told_to_who_waits(|alice| {
        let welcome = alice.envelope(at(1, 0), alice.welcome());
        alice.leave_behind();
        let later = alice.say(1, "of a later epoch");
        (vec![welcome, alice.envelope(at(2, 1), later), DeliveryFrame::CaughtUp { seq: 2 }], Vec::new())
    })
    .await;
}

#[tokio::test]
async fn who_waits_for_an_answer_is_told_when_the_list_of_conversations_shows_that_the_server_has_gone_back() {
    // The inbox is long, so that the message goes out before it is through.
    told_to_who_waits(|alice| {
        let first = vec![alice.envelope(at(1, 0), alice.welcome())];
        (first, vec![DeliveryFrame::CaughtUp { seq: 1 }])
    })
    .await;
}

pub(super) async fn answer(mut send: quinn::SendStream, response: &Response) {
    let mut out = BytesMut::new();
    response.put(&mut out);
    send.write_all(&out).await.unwrap();
    send.finish().unwrap();
}

pub(super) fn bytes(frames: &[DeliveryFrame]) -> Bytes {
    let mut out = BytesMut::new();
    frames.iter().for_each(|frame| frame.put(&mut out));
    out.freeze()
}

#[tokio::test]
async fn one_conversations_trouble_does_not_end_the_session() {
    let home = tempfile::tempdir().unwrap();
    let (mut bob, bob_found) = registered(home.path(), "bob");
    let mut alice = Sender::begin("alice", &mut bob, &bob_found);
    let mut carol = Sender::begin("carol", &mut bob, &bob_found);
    alice.leave_behind();
    let lost = alice.say(1, "of an epoch that nothing leads to");
    let (hello, later) = (carol.say(1, "beside it"), carol.say(2, "and after it"));
    let first = vec![
        alice.envelope(at(1, 0), alice.welcome()),
        carol.envelope(at(2, 0), carol.welcome()),
        alice.envelope(at(3, 1), lost),
        carol.envelope(at(4, 2), hello),
        DeliveryFrame::CaughtUp { seq: 4 },
    ];
    let then = vec![carol.envelope(at(5, 3), later)];
    let (told, acked) = oneshot::channel();
    let proof = bob.identity().proof.verifying_key();
    // It serves one connection, the first.
    let url = server(move |peer| serve(peer, proof, (first, then), (4, told)));
    let mut identity = bob.identity().clone();
    identity.server = url;
    let client = Client::new(Ground::system(), home.path(), bob, identity).unwrap();

    let mut session = client.session(TAKE).unwrap();
    let heard = async {
        loop {
            match session.next().await.unwrap() {
                ClientEvent::News => {
                    let history = client.history(None, 9).await.unwrap();
                    if texts(&history) == ["<unreadable>", "beside it", "and after it"] {
                        return;
                    }
                }
                ClientEvent::Stopped(error) | ClientEvent::Disconnected { error, .. } => panic!("{error}"),
                _ => (),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), heard).await.expect("the other conversation is heard");
    acked.await.expect("what was passed over is acked with the rest");
    session.abort().await;
}

fn texts(history: &[HistoryItem]) -> Vec<&str> {
    history.iter().map(text).collect()
}

fn text(item: &HistoryItem) -> &str {
    match item {
        HistoryItem::Message(message) => &message.text,
        HistoryItem::Unreadable { .. } => "<unreadable>",
        _ => "<no message>",
    }
}
