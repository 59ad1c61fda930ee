//! A server that says, while a session lasts, that few KeyPackages of the device are left.

use bytes::Bytes;
use gureum_proto::{DeliveryFrame, Notice, Ready, Request, Response, ServerFrame};
use tokio::sync::mpsc;

use super::confined::{answer, bytes, registered};
use super::*;
use crate::limits::KEY_PACKAGES_FULL;
use crate::link::tests::{Peer, request, server};

const LEFT: u32 = 3;

/// KeyPackages that were put: how many, whether a last resort, and whether in the place of all others.
type Put = (usize, bool, bool);

async fn serve(mut peer: Peer, proof: ed25519_dalek::VerifyingKey, notice: Notice, puts: mpsc::Sender<Put>) {
    peer.welcome_with(&proof, Ready { key_packages_left: KEY_PACKAGES_FULL, ..Ready::default() }).await;
    let mut delivery = peer.connection.open_uni().await.unwrap();
    delivery.write_all(&bytes(&[DeliveryFrame::CaughtUp { seq: 0 }])).await.unwrap();
    peer.say(&[ServerFrame::Notice(notice)]).await;
    while let Ok((send, mut recv)) = peer.connection.accept_bi().await {
        let Request::PutKeyPackages { key_packages, last_resort, replace } = request(&mut recv).await else {
            panic!("something else was asked for")
        };
        puts.send((key_packages.len(), last_resort.as_ref().is_some_and(is_filled), replace)).await.unwrap();
        answer(send, &Response::KeyPackagesStored { left: LEFT }).await;
    }
}

fn is_filled(bytes: &Bytes) -> bool {
    !bytes.is_empty()
}

/// What a device puts whose server says this.
async fn puts(notice: Notice, count: usize) -> Vec<Put> {
    let home = tempfile::tempdir().unwrap();
    let (mut vault, _) = registered(home.path(), "bob");
    vault.make_key_packages(1).unwrap();
    vault.make_last_resort().unwrap();
    let (told, mut heard) = mpsc::channel(16);
    let proof = vault.identity().proof.verifying_key();
    let url = server(move |peer| serve(peer, proof, notice, told));
    let mut identity = vault.identity().clone();
    identity.server = url;
    let client = Client::new(Ground::system(), home.path(), vault, identity).unwrap();
    let session = client.session(TAKE).unwrap();
    let mut puts = Vec::new();
    while puts.len() < count {
        let put = tokio::time::timeout(Duration::from_secs(20), heard.recv()).await.expect("it puts some");
        puts.push(put.unwrap());
    }
    session.abort().await;
    puts
}

#[tokio::test]
async fn a_device_that_hears_that_few_are_left_looks_and_fills_up() {
    let missing = usize::try_from(KEY_PACKAGES_FULL - LEFT).unwrap();
    let notice = Notice { key_packages_left: LEFT, last_resort_used: false };
    assert_eq!(puts(notice, 2).await, [(0, false, false), (missing, false, false)]);
    let notice = Notice { last_resort_used: true, ..notice };
    assert_eq!(puts(notice, 3).await, [(0, false, false), (missing, false, false), (0, true, false)]);
}
