//! Sessions whose device has proven itself, with nothing left to do, and the frames that go into them.

use bytes::BytesMut;
use ed25519_dalek::SigningKey;
use gureum_benches::proven;
use gureum_proto::{AccountId, DeviceId};
use gureum_server::session::{Authenticated, Session};
use gureum_wire::{Decoder, Frame};

/// The time of what needs no clock.
pub(crate) const START_MS: u64 = 1_800_000_000_000;

/// A session of a device that has proven itself and, if it subscribes, waits for the first page of an empty inbox.
pub(crate) fn session(account: AccountId, device: DeviceId, subscribe: bool) -> Session {
    let mut session = proven::session(&SigningKey::from_bytes(&[5; 32]), (account, device), subscribe, START_MS);
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
