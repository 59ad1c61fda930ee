//! A device of a load without a home: what proves it to the server, and how far it has taken its inbox.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use gureum_proto::{AccountId, DeviceId, HelloClaim, Position, Ready, Register, sign_root};
use rand::Rng;

use super::patience;
use crate::client::{Client, ClientError};
use crate::link::{Dialer, Link, LinkError, LinkEvents};

/// Thousands of these must fit beside the server that they measure: no database, no thread, no MLS.
#[derive(Debug, Clone)]
pub(super) struct Device {
    account: AccountId,
    device: DeviceId,
    proof: SigningKey,
    dialer: Arc<Dialer>,
    /// How far it has taken its inbox.
    pub(super) taken: Position,
}

impl Device {
    /// The device of a home, which is not to be used beside it.
    pub(super) fn of(client: &Client, dialer: Arc<Dialer>) -> Self {
        let identity = client.identity();
        Self {
            account: identity.account,
            device: identity.device,
            proof: identity.proof.clone(),
            dialer,
            taken: Position::default(),
        }
    }

    /// Goes another way to the server from now on.
    pub(super) fn dials_by(&mut self, dialer: Arc<Dialer>) {
        self.dialer = dialer;
    }

    /// Registers an account that has a device and nothing else. A repeated attempt asks for the same again: the answer to the
    /// one before may have been lost.
    pub(super) async fn register(dialer: Arc<Dialer>, token: Bytes, handle: String) -> Result<Self, ClientError> {
        let [proof, mls, recovery] = [(); 3].map(|()| SigningKey::from_bytes(&rand::rng().random()));
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let time_ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let root_entry = sign_root(&proof, mls.verifying_key().as_bytes(), &recovery, time_ms)
            .map_err(|error| LinkError::Malformed(error.to_string()))?;
        let register = Register { token, handle, root_entry, phone: None };
        let registered = patience::in_time(|| async { Ok(dialer.connect().await?.register(&register).await?) }).await?;
        let (account, device) = (registered.account, registered.device);
        Ok(Self { account, device, proof, dialer, taken: Position::default() })
    }

    /// Connects and proves itself.
    pub(super) async fn connect(&self, subscribe: bool) -> Result<(Link, LinkEvents, Ready), LinkError> {
        let claim = HelloClaim {
            server_name: String::new(),
            account: self.account,
            device: self.device,
            subscribe,
            cursor: self.taken,
            epochs_digest: None,
            log_entries: 1,
            life: None,
            push_digest: None,
        };
        self.dialer.connect().await?.prove(claim, &self.proof).await
    }
}
