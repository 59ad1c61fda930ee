//! Sessions whose device has proven itself: the one way to a value that says who it is.

use bytes::BytesMut;
use ed25519_dalek::SigningKey;
use gureum_proto::{AccountId, DeviceId, EXPORTER_BYTES, Hello, HelloClaim, PhoneNotice, Position, put_hello};
use gureum_server::session::{Authenticated, DeviceFacts, Input, Session, SessionConfig};
use gureum_server::store::record::LifeRecord;
use gureum_wire::{Decoder, Frame};

use crate::world::RETENTION_MS;

/// The time of what needs no clock.
pub(crate) const START_MS: u64 = 1_800_000_000_000;

const EXPORTER: [u8; EXPORTER_BYTES] = [6; EXPORTER_BYTES];

/// A session of a device that has proven itself and, if it subscribes, waits for the first page of an empty inbox.
pub(crate) fn session(account: AccountId, device: DeviceId, subscribe: bool) -> Session {
    let key = SigningKey::from_bytes(&[5; 32]);
    let claim = HelloClaim {
        server_name: "127.0.0.1".to_owned(),
        account,
        device,
        subscribe,
        cursor: Position::default(),
        epochs_digest: None,
        log_entries: 1,
        life: None,
        push_digest: None,
    };
    let facts = DeviceFacts {
        proof_key: key.verifying_key(),
        is_revoked: false,
        is_gone: false,
        log_entries: 1,
        head: Position::default(),
        cursor: Position::default(),
        accepted_counter: 0,
        life: LifeRecord::default(),
        key_packages_left: 1,
        last_resort_used: false,
        epochs_digest: [3; 32],
        push_digest: None,
        phone: PhoneNotice::default(),
    };
    let config = SessionConfig {
        tls_server_name: None,
        proof_timeout_ms: 10_000,
        retention_ms: RETENTION_MS,
        commit_retention_ms: 10 * RETENTION_MS,
    };
    let mut session = Session::new(config, START_MS);
    let signed = Hello::sign(&claim, &key, &EXPORTER);
    session.handle(Input::Frame(frame(|out| put_hello(&signed, out))), START_MS);
    session.handle(Input::Facts { facts: Some(Box::new(facts)), exporter: EXPORTER }, START_MS);
    while session.poll_action().is_some() {}
    session
}

/// A device that has proven itself.
pub(crate) fn authority(account: AccountId, device: DeviceId) -> Authenticated {
    session(account, device, false).authority().expect("its proof holds")
}

/// The frame that a client's function writes.
pub(crate) fn frame(put: impl FnOnce(&mut BytesMut)) -> Frame {
    let mut out = BytesMut::new();
    put(&mut out);
    let mut decoder = Decoder::new();
    decoder.push(out.freeze());
    decoder.next().expect("it is well formed").expect("it is whole")
}
