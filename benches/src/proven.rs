//! Devices that have proven themselves to the server's session machine: the one way to a value that says who somebody is.

use ed25519_dalek::SigningKey;
use gureum_proto::{AccountId, DeviceId, EXPORTER_BYTES, Hello, HelloClaim, PhoneNotice, Position};
use gureum_server::session::{DeviceFacts, Input, Session, SessionConfig};
use gureum_server::store::record::LifeRecord;
use gureum_wire::{Frame, FrameKind};

/// The server's default retentions, in milliseconds.
pub const RETENTION_MS: u64 = 3 * 24 * 60 * 60 * 1_000;
/// The same of commits.
pub const COMMIT_RETENTION_MS: u64 = 10 * RETENTION_MS;

/// What a proof covers; here both sides agree on it.
const EXPORTER: [u8; EXPORTER_BYTES] = [6; EXPORTER_BYTES];

/// A session of a new device that has shown its proof by that time; what is then to be done waits in it.
#[must_use]
pub fn session(key: &SigningKey, (account, device): (AccountId, DeviceId), subscribe: bool, now_ms: u64) -> Session {
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
        epochs_digest: [0; 32],
        push_digest: None,
        phone: PhoneNotice::default(),
    };
    let config = SessionConfig {
        tls_server_name: None,
        proof_timeout_ms: 3_000,
        retention_ms: RETENTION_MS,
        commit_retention_ms: COMMIT_RETENTION_MS,
    };
    let mut session = Session::new(config, now_ms);
    let payload = Hello::sign(&claim, key, &EXPORTER);
    session.handle(Input::Frame(Frame { kind: FrameKind::Hello, payload }), now_ms);
    session.handle(Input::Facts { facts: Some(Box::new(facts)), exporter: EXPORTER }, now_ms);
    session
}
