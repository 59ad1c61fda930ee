//! How often somebody is looked up who is added to a group: the server counts look-ups.

use bytes::Bytes;
use gureum_proto::{
    AccountFound, DeliveryFrame, DeviceId, DeviceKeyPackage, FindBy, Handle, KeyPackages, Ready, Request, Response,
};
use tokio::sync::mpsc;

use super::confined::{answer, bytes, registered};
use super::*;
use crate::limits::KEY_PACKAGES_FULL;
use crate::link::tests::{Peer, request, server};

/// What a server knows of two people, and what it gives of one of them.
struct Known {
    own: AccountFound,
    carol: AccountFound,
    claimed: DeviceKeyPackage,
}

impl Known {
    /// Tells of somebody else whom it is asked for.
    async fn find(&self, by: FindBy, log_from: u64, told: &mpsc::Sender<FindBy>) -> Response {
        let found = if by == FindBy::Account(self.own.account) {
            &self.own
        } else {
            told.send(by).await.unwrap();
            &self.carol
        };
        let log_entries = found.log_entries.iter().skip(usize::try_from(log_from).unwrap()).cloned().collect();
        Response::Account(AccountFound { log_entries, ..found.clone() })
    }
}

async fn serve(mut peer: Peer, proof: ed25519_dalek::VerifyingKey, known: Known, told: mpsc::Sender<FindBy>) {
    peer.welcome_with(&proof, Ready { key_packages_left: KEY_PACKAGES_FULL, ..Ready::default() }).await;
    let mut delivery = peer.connection.open_uni().await.unwrap();
    delivery.write_all(&bytes(&[DeliveryFrame::CaughtUp { seq: 0 }])).await.unwrap();
    while let Ok((send, mut recv)) = peer.connection.accept_bi().await {
        let said = match request(&mut recv).await {
            Request::PutKeyPackages { .. } => Response::KeyPackagesStored { left: KEY_PACKAGES_FULL },
            Request::FindAccount { by, log_from } => known.find(by, log_from, &told).await,
            Request::CreateConversation(create) => {
                Response::ConversationCreated { conversation: create.conversation, existed: false, epoch: 1 }
            }
            Request::ClaimKeyPackages { accounts } => {
                assert_eq!(accounts, [known.carol.account]);
                Response::KeyPackages(KeyPackages { packages: vec![known.claimed.clone()], missing: Vec::new() })
            }
            Request::SubmitCommit(submit) => Response::CommitAccepted { epoch: submit.epoch + 1 },
            other => panic!("{other:?}"),
        };
        answer(send, &said).await;
    }
}

/// What comes of a group that Bob makes with Carol, and how she was looked up for it, where the server gives the
/// KeyPackage of this device for hers.
async fn group_with_carol(claimed_of: fn(&mut Vault, &mut Vault) -> (DeviceId, Bytes)) -> (GroupAnswer, Vec<FindBy>) {
    let homes = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let [home, hers, other] = &homes;
    let (bob, own) = registered(home.path(), "bob");
    let ((mut carols, carol), (mut mallorys, _)) =
        (registered(hers.path(), "carol"), registered(other.path(), "mallory"));
    let (device, key_package) = claimed_of(&mut carols, &mut mallorys);
    let claimed = DeviceKeyPackage { account: carol.account, device, key_package };
    let known = Known { own, carol, claimed };
    let (told, mut heard) = mpsc::channel(16);
    let proof = bob.identity().proof.verifying_key();
    let mut identity = bob.identity().clone();
    identity.server = server(move |peer| serve(peer, proof, known, told));
    let client = Client::new(Ground::system(), home.path(), bob, identity).unwrap();
    let mut session = client.session(TAKE).unwrap();
    let commands = session.commands();
    let create = GroupCommand::Create { name: "friends".to_owned(), who: vec![handle()] };
    let made = session.finish(commands.group(create));
    let answer = tokio::time::timeout(Duration::from_secs(20), made).await.expect("an answer").unwrap();
    drop(commands);
    session.abort().await;
    let mut asked = Vec::new();
    while let Ok(by) = heard.try_recv() {
        asked.push(by);
    }
    (answer, asked)
}

fn handle() -> Handle {
    "carol".parse().unwrap()
}

fn package_of(vault: &mut Vault) -> (DeviceId, Bytes) {
    (vault.identity().device, vault.make_key_packages(1).unwrap().remove(0))
}

#[tokio::test]
async fn who_was_looked_up_for_a_group_is_not_looked_up_again_to_be_added() {
    let (answer, asked) = group_with_carol(|carols, _| package_of(carols)).await;
    assert_eq!(answer.done, [handle()], "{:?}", answer.failed);
    assert_eq!(asked, [FindBy::Handle(handle())]);
}

#[tokio::test]
async fn whose_log_does_not_list_a_device_is_looked_up_again_and_a_ghost_is_refused() {
    let (answer, asked) = group_with_carol(|_, mallorys| package_of(mallorys)).await;
    assert!(answer.done.is_empty(), "{:?}", answer.done);
    let why: Vec<_> = answer.failed.iter().map(|(who, why)| (who.clone(), why.contains("another device"))).collect();
    assert_eq!(why, [(handle(), true)], "{:?}", answer.failed);
    let is_by_account: Vec<_> = asked.iter().map(|by| matches!(by, FindBy::Account(_))).collect();
    assert_eq!(is_by_account, [false, true], "{asked:?}");
}
