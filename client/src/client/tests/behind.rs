//! A device that was away for more epochs than keys are kept of, and that is told to change something before it has taken its
//! inbox.

use bytes::Bytes;
use gureum_proto::{
    Accepted, AccountFound, ClientFrame, Code, Commits, ConversationId, DeliveryFrame, DeviceId, Envelope,
    EnvelopeBody, Gone, MessageId, Position, Ready, Refusal, Request, Response, Sent, ServerFrame, SharedEnvelope,
    SubmitCommit,
};
use tokio::sync::{mpsc, oneshot};

use super::confined::{answer, bytes, registered};
use super::*;
use crate::ground::system_clock;
use crate::limits::KEY_PACKAGES_FULL;
use crate::link::tests::{Peer, request, server};
use crate::vault::{Draft, HistoryItem, Intent, open_offer};

/// The epoch that the device has, and the one that the group comes to while it is away.
const BEFORE: u64 = 3;
const SINCE: u64 = 15;

/// A group with somebody who commits and talks in it.
struct Club {
    _home: tempfile::TempDir,
    admin: Vault,
    talk: ConversationId,
    held: Held,
}

/// What the server has of it.
#[derive(Default)]
struct Held {
    head: Position,
    inbox: Vec<DeliveryFrame>,
    commits: Vec<(u64, Bytes)>,
    /// How many sends are refused as too old.
    refuses: usize,
}

impl Club {
    /// Bob is an admin of it, with two devices.
    fn begin(bob: &mut Vault, tablet: &mut Vault, found: &AccountFound) -> Self {
        let home = tempfile::tempdir().unwrap();
        let (mut admin, own) = registered(home.path(), "alice");
        bob.learn_account(&own, 0).unwrap();
        admin.learn_account(found, 0).unwrap();
        let (create, _) = admin.begin_group("club", &[]).unwrap();
        let talk = create.conversation;
        admin.conversation_created(talk).unwrap();
        let mut club = Self { _home: home, admin, talk, held: Held::default() };
        let packages = [package_of(bob), package_of(tablet)];
        let joins = club.change(Intent::Add(found.account), &packages);
        club.deliver(EnvelopeBody::Welcome(joins.welcome));
        let promotes = club.change(Intent::Promote(found.account), &[]);
        club.commit(promotes);
        club
    }

    fn change(&mut self, intent: Intent, packages: &[(DeviceId, Bytes)]) -> SubmitCommit {
        self.admin.intend(self.talk, &[intent]).unwrap();
        for (intent, _) in self.admin.intents_without_packages(self.talk).unwrap() {
            self.admin.put_packages(&[(intent, packages.to_vec())]).unwrap();
        }
        let submit = self.admin.commit_intents(self.talk).unwrap().unwrap();
        self.admin.commit_accepted(self.talk).unwrap();
        submit
    }

    /// Goes on by one epoch, and says something in it.
    fn go_on(&mut self, number: u64, text: &str) {
        let submit = self.admin.commit_self_update(self.talk).unwrap().unwrap();
        self.admin.commit_accepted(self.talk).unwrap();
        self.commit(submit);
        self.admin.queue_text(self.talk, text).unwrap();
        let ciphertext = self.admin.next_sends(0, 64).unwrap().last().unwrap().ciphertext.clone();
        self.deliver(EnvelopeBody::Message { number, ciphertext });
    }

    fn commit(&mut self, submit: SubmitCommit) {
        self.held.commits.push((submit.epoch, submit.commit.clone()));
        self.deliver(EnvelopeBody::Commit { epoch: submit.epoch, commit: submit.commit });
    }

    fn deliver(&mut self, body: EnvelopeBody) {
        let counts = u64::from(matches!(body, EnvelopeBody::Message { .. }));
        let Position { seq, count } = self.held.head;
        let position = Position { seq: seq + 1, count: count + counts };
        let (sender_account, sender_device) = (self.admin.identity().account, self.admin.identity().device);
        let message_id = MessageId::new(1_700_000_000_000 + position.seq, 1);
        let shared = SharedEnvelope { message_id, conversation: self.talk, sender_account, sender_device, body };
        self.held.head = position;
        self.held.inbox.push(DeliveryFrame::Envelope(Envelope { position, shared }));
    }
}

fn package_of(vault: &mut Vault) -> (DeviceId, Bytes) {
    (vault.identity().device, vault.make_key_packages(1).unwrap().remove(0))
}

/// Another device of an account, which the first one adds; and what the server has of the account since then.
fn linked(home: &Path, first: &mut Vault, before: &AccountFound) -> (Vault, AccountFound) {
    let profile = NewProfile { server: "gureum://192.0.2.1:4433".parse().unwrap(), device_name: "tablet".to_owned() };
    let mut draft = Draft::begin(system_clock(), home, &KeySource::File, &profile).unwrap();
    let code = draft.code().clone();
    let offer = open_offer(&code, &draft.link().unwrap().offer).unwrap();
    let answered = first.answer(&code, &offer).unwrap();
    let consent = draft.consent(&answered.sealed).unwrap();
    let entry = first.agreed(&code, &answered, &consent.sealed).unwrap().entry;
    let log_entries: Vec<_> = before.log_entries.iter().cloned().chain([entry.clone()]).collect();
    let found = AccountFound { log_entries, log_length: 2, ..before.clone() };
    first.learn_account(&AccountFound { log_entries: vec![entry], ..found.clone() }, 1).unwrap();
    let mut vault = draft.finish(None).unwrap();
    vault.learn_account(&found, 0).unwrap();
    (vault, found)
}

/// Gives the inbox when it is told to, everything else at once, and tells for which epochs commits were made.
async fn serve(
    mut peer: Peer,
    proof: ed25519_dalek::VerifyingKey,
    (mut account, held): (AccountFound, Held),
    gives: oneshot::Receiver<()>,
    told: mpsc::Sender<u64>,
) {
    let (head, log_entries) = (held.head, account.log_length);
    peer.welcome_with(&proof, Ready { key_packages_left: KEY_PACKAGES_FULL, head, log_entries, ..Ready::default() })
        .await;
    let connection = peer.connection.clone();
    let mut delivery = connection.open_uni().await.unwrap();
    let delivering = async {
        if gives.await.is_ok() {
            delivery.write_all(&bytes(&held.inbox)).await.unwrap();
            delivery.write_all(&bytes(&[DeliveryFrame::CaughtUp { seq: head.seq }])).await.unwrap();
        }
        std::future::pending::<()>().await;
    };
    let answering = async {
        let mut epoch = SINCE;
        while let Ok((send, mut recv)) = connection.accept_bi().await {
            let said = match request(&mut recv).await {
                Request::FindAccount { log_from, .. } => {
                    let skipped = usize::try_from(log_from).unwrap();
                    let log_entries = account.log_entries.iter().skip(skipped).cloned().collect();
                    Response::Account(AccountFound { log_entries, ..account.clone() })
                }
                Request::AppendDeviceLog { entry } => {
                    account.log_entries.push(entry);
                    account.log_length += 1;
                    Response::DeviceLogAppended { log_length: account.log_length }
                }
                Request::ReadCommits { from_epoch, .. } => {
                    let commits = held.commits.iter().filter(|(epoch, _)| *epoch >= from_epoch).cloned().collect();
                    Response::Commits(Commits { commits, epoch, first_epoch: 1 })
                }
                Request::SubmitCommit(commit) => {
                    // Nobody may listen any more.
                    let _ = told.send(commit.epoch).await;
                    if commit.epoch == epoch {
                        epoch += 1;
                        Response::CommitAccepted { epoch }
                    } else {
                        Response::Refused(Refusal::new(Code::EpochConflict))
                    }
                }
                Request::LeaveConversation { .. } => Response::ConversationLeft,
                _ => Response::Refused(Refusal::new(Code::Unavailable)),
            };
            answer(send, &said).await;
        }
    };
    let sending = async {
        let mut refused = 0;
        while let Some(frame) = peer.next_unless_closed().await {
            let ClientFrame::Send(sent) = frame else { continue };
            let accepted = Accepted { message_id: None, number: SINCE, repeated: false, gone: Gone::default() };
            let result = if refused < held.refuses { Err(Refusal::new(Code::EpochStale)) } else { Ok(accepted) };
            refused += 1;
            peer.say(&[ServerFrame::Sent(Sent { counter: sent.counter, result })]).await;
        }
    };
    tokio::select! {
        () = delivering => (),
        () = answering => (),
        () = sending => (),
    }
}

/// Bob's first device, which has been away, with the other one.
struct Away {
    homes: [tempfile::TempDir; 2],
    bob: Vault,
    tablet: DeviceId,
    account: AccountFound,
    club: Club,
    /// What was said meanwhile.
    said: Vec<String>,
}

impl Away {
    fn since_then() -> Self {
        let homes = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let [home, other] = &homes;
        let (mut bob, before) = registered(home.path(), "bob");
        let (mut linked, account) = linked(other.path(), &mut bob, &before);
        let mut club = Club::begin(&mut bob, &mut linked, &account);
        assert_eq!(bob.take(&std::mem::take(&mut club.held.inbox)).unwrap().need, None);
        let said: Vec<_> = (BEFORE + 1..=SINCE).map(|epoch| format!("in epoch {epoch}")).collect();
        (1..).zip(&said).for_each(|(number, text)| club.go_on(number, text));
        let tablet = linked.identity().device;
        Self { homes, bob, tablet, account, club, said }
    }

    /// Comes back to a server that gives the inbox when it is told to, and tells for which epochs commits were made.
    fn come(self) -> (Client, oneshot::Sender<()>, mpsc::Receiver<u64>, [tempfile::TempDir; 2]) {
        let Self { homes, bob, account, club: Club { held, .. }, .. } = self;
        let ((give, gives), (told, commits)) = (oneshot::channel(), mpsc::channel(16));
        let (proof, mut identity) = (bob.identity().proof.verifying_key(), bob.identity().clone());
        identity.server = server(move |peer| serve(peer, proof, (account, held), gives, told));
        let [home, _] = &homes;
        let client = Client::new(Ground::system(), home.path(), bob, identity).unwrap();
        (client, give, commits, homes)
    }
}

/// What others have said, as it is read here.
async fn heard(client: &Client) -> Vec<String> {
    let text = |item: HistoryItem| match item {
        HistoryItem::Message(message) if message.own => None,
        HistoryItem::Message(message) => Some(message.text),
        other => Some(format!("{other:?}")),
    };
    client.history(None, 99).await.unwrap().into_iter().filter_map(text).collect()
}

async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), what).await.expect("in time")
}

#[tokio::test]
async fn changes_of_a_group_wait_for_the_inbox_and_a_revocation_does_not() {
    let away = Away::since_then();
    let (said, tablet) = (away.said.clone(), away.tablet);
    let (client, give, mut commits, _homes) = away.come();
    let mut session = client.session(TAKE).unwrap();
    let commands = session.commands();
    let changed = async {
        let rename = GroupCommand::Rename { group: "club".parse().unwrap(), name: "society".to_owned() };
        let revoke = async {
            let revoked = commands.revoke(tablet).await;
            give.send(()).unwrap();
            revoked
        };
        let (renamed, revoked) = tokio::join!(commands.group(rename), revoke);
        Ok::<_, ClientError>((renamed?, revoked?))
    };
    let (renamed, revoked) = within(session.finish(changed)).await.unwrap();
    assert_eq!(heard(&client).await, said);
    assert_eq!(revoked, Revoked { removed_from: 0, left_to_others: 1 }, "it has not waited");
    assert_eq!((renamed.name.as_str(), renamed.refused), ("society", None));
    assert_eq!(within(commits.recv()).await, Some(SINCE), "nothing is tried before");
    let removed = async {
        while !client.vault.call(Vault::removals_due).await.unwrap().is_empty() {
            session.next().await.unwrap();
        }
    };
    within(removed).await;
    drop(commands);
    session.abort().await;
}

#[tokio::test]
async fn a_message_that_is_refused_as_too_old_waits_for_the_inbox() {
    let mut away = Away::since_then();
    away.club.held.refuses = 1;
    let talk = away.club.talk;
    for text in ["refused at first", "taken at once"] {
        away.bob.queue_text(talk, text).unwrap();
    }
    let said = away.said.clone();
    let (client, give, _commits, _homes) = away.come();
    let mut session = client.session(TAKE).unwrap();
    let sent = async |session: &mut ClientSession| {
        while !matches!(session.next().await.unwrap(), ClientEvent::Sent(_)) {}
    };
    within(sent(&mut session)).await;
    // The other answer came before this one.
    give.send(()).unwrap();
    within(sent(&mut session)).await;
    assert_eq!(heard(&client).await, said);
    assert_eq!(client.vault.call(Vault::outbox_len).await.unwrap(), 0);
    session.abort().await;
}

#[tokio::test]
async fn who_leaves_a_group_waits_for_the_inbox_and_holds_up_nobody_else() {
    let away = Away::since_then();
    let said = away.said.clone();
    let (client, give, _commits, _homes) = away.come();
    let mut session = client.session(TAKE).unwrap();
    let commands = session.commands();
    let left = async {
        let leave = commands.group(GroupCommand::Leave { group: "club".parse().unwrap() });
        let search = async {
            let found = commands.find("carol".parse().unwrap()).await;
            give.send(()).unwrap();
            found
        };
        let (left, found) = tokio::join!(leave, search);
        assert!(found.is_err(), "the server answers with another account: {found:?}");
        left
    };
    let left = within(session.finish(left)).await.unwrap();
    assert_eq!((left.name.as_str(), left.refused), ("club", None));
    assert_eq!(heard(&client).await, said, "nothing of what was said before is lost");
    drop(commands);
    session.abort().await;
}

#[tokio::test]
async fn changes_wait_for_an_inbox_that_another_process_takes() {
    let mut away = Away::since_then();
    let said = away.said.clone();
    let (proof, mut identity) = (away.bob.identity().proof.verifying_key(), away.bob.identity().clone());
    let inbox = std::mem::take(&mut away.club.held.inbox);
    let ((_give, gives), (told, mut commits)) = (oneshot::channel(), mpsc::channel(16));
    let (account, held) = (away.account.clone(), std::mem::take(&mut away.club.held));
    identity.server = server(move |peer| serve(peer, proof, (account, held), gives, told));
    let home = away.homes[0].path().to_owned();
    let client = Client::new(Ground::system(), &home, away.bob, identity).unwrap();
    let mut session = client.session(SessionOptions { inbox: Inbox::Leave, reconnect: false }).unwrap();
    let commands = session.commands();
    let renamed = async {
        let rename = GroupCommand::Rename { group: "club".parse().unwrap(), name: "society".to_owned() };
        // What another process takes stands in the same database.
        let take = async {
            commands.find("carol".parse().unwrap()).await.unwrap_err();
            client.vault.run(move |vault| vault.take(&inbox).map(drop)).await.unwrap().unwrap();
        };
        tokio::join!(commands.group(rename), take).0
    };
    let renamed = within(session.finish(renamed)).await.unwrap();
    assert_eq!((renamed.name.as_str(), renamed.refused), ("society", None));
    assert_eq!(heard(&client).await, said);
    assert_eq!(within(commits.recv()).await, Some(SINCE), "nothing is tried before");
    drop(commands);
    session.abort().await;
}
