//! From the claim of a Hello to the server's Ready, one connection of a home at a time; and what follows where the server
//! says that this home is an older copy of what the device has become.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;

use gureum_proto::{Life, Ready, Request, Response};
use tokio::time::Instant;

use super::error::ClientError;
use super::sync::Seen;
use super::vault_handle::VaultHandle;
use crate::limits::{LIFE_PATIENCE, LIFE_POLL};
use crate::link::{Link, LinkEvents, Unproven};
use crate::vault::Identity;

const FILE_NAME: &str = "life.lock";

/// A connection that has proven itself.
#[derive(Debug)]
pub(crate) struct Proven {
    pub(crate) link: Link,
    pub(crate) events: LinkEvents,
    pub(crate) ready: Ready,
    /// What this device had seen when it connected.
    pub(crate) seen: Seen,
}

/// Proves to be the device of a home, and makes sure that of all copies of it this one goes on.
pub(crate) async fn prove(
    unproven: Unproven,
    vault: &VaultHandle,
    identity: &Identity,
    home: &Path,
    subscribe: bool,
) -> Result<Proven, ClientError> {
    let _lock = lock(home).await?;
    let claim = vault.call(move |vault| vault.hello_claim(subscribe)).await?;
    let (seen, life) = (Seen::from(&claim), claim.life);
    let (link, events, ready) = unproven.prove(claim, &identity.proof).await?;
    if let Some(life) = life {
        confirm(&link, vault, life, &ready).await?;
    }
    Ok(Proven { link, events, ready, seen })
}

async fn confirm(link: &Link, vault: &VaultHandle, life: Life, ready: &Ready) -> Result<(), ClientError> {
    // An answer that takes over may have been lost; the server knows the claim since, and this home does not yet.
    if !ready.stale && vault.call(move |vault| vault.life_confirmed(&life)).await? {
        return Ok(());
    }
    if !vault.call(move |vault| vault.begin_restore(&life)).await? {
        return Err(ClientError::Overtaken);
    }
    let answer = link.request(&Request::TakeOver { next: life.next }).await?;
    let Response::TakenOver { generation, accepted_counter } = answer else { return Err(ClientError::Mismatched) };
    let head_seq = ready.head.seq;
    vault.call(move |vault| vault.taken_over(&life, generation, accepted_counter, head_seq)).await.map(drop)
}

/// Waits until no other connection of this home is about to prove itself: two that claim the same are told apart, but one
/// of them would have to connect again. `None` where another holds it for too long.
async fn lock(home: &Path) -> Result<Option<File>, ClientError> {
    let path = home.join(FILE_NAME);
    let opened = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    let file = opened.map_err(|source| ClientError::Io { path: path.clone(), source })?;
    let until = Instant::now() + LIFE_PATIENCE;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(Some(file)),
            Err(TryLockError::WouldBlock) if Instant::now() < until => tokio::time::sleep(LIFE_POLL).await,
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(source)) => return Err(ClientError::Io { path, source }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_connection_claims_at_a_time_and_none_waits_for_ever() {
        let home = tempfile::tempdir().unwrap();
        let first = lock(home.path()).await.unwrap();
        assert!(first.is_some());
        let started = Instant::now();
        assert!(lock(home.path()).await.unwrap().is_none());
        assert!(started.elapsed() >= LIFE_PATIENCE);
        drop(first);
        assert!(lock(home.path()).await.unwrap().is_some());
    }
}
