//! Where this device is woken while it is away, what has become of that at the server, and the keys of a receiver here.

use gureum_proto::{PushDigest, PushTarget};
use rusqlite::{Connection, OptionalExtension, params};
use zeroize::Zeroizing;

use super::key::random;
use super::work::Work;
use super::{Event, Vault, VaultError};
use crate::web_push::{PushReceiver, RECEIVER_BYTES};

/// A target that the server has dropped so often is told of.
const DROPPED_TOLD: u32 = 2;
/// Random numbers of 256 bits that are tried as a secret key: of 2^32, one is none.
const KEYS_TRIED_MAX: usize = 4;

/// The target as it is kept.
pub(super) struct Held {
    pub(super) target: PushTarget,
    /// The server has said that it has it.
    taken: bool,
    /// How often it did not have it any more after that.
    dropped: u32,
}

impl Vault {
    /// Where this device is to be woken.
    ///
    /// # Errors
    /// The database failed.
    pub fn push_target(&mut self) -> Result<Option<PushTarget>, VaultError> {
        self.read(|connection, _| Ok(held(connection)?.map(|held| held.target)))
    }

    /// Has this device woken there from now on, or nowhere: the next Hello claims it. What is known of a target stays where
    /// it is given again, which apps do at each start. With the last target the keys of a receiver here go as well.
    ///
    /// # Errors
    /// The database failed.
    pub fn set_push_target(&mut self, target: Option<&PushTarget>) -> Result<(), VaultError> {
        self.write(|work| {
            let Some(target) = target else {
                work.connection.execute("DELETE FROM push_target", [])?;
                return Ok(());
            };
            if held(work.connection)?.is_some_and(|held| held.target == *target) {
                return Ok(());
            }
            let sql = "INSERT INTO push_target (one, target) VALUES (1, ?1)
                       ON CONFLICT (one) DO UPDATE SET target = excluded.target, taken = 0, dropped = 0";
            work.connection.execute(sql, params![target.encode()])?;
            Ok(())
        })
    }

    /// The server has refused a target for good: the one of before counts again, unless another was set meanwhile.
    ///
    /// # Errors
    /// The database failed.
    pub(crate) fn take_back_push_target(
        &mut self,
        refused: &PushTarget,
        before: Option<&PushTarget>,
    ) -> Result<(), VaultError> {
        if self.push_target()?.as_ref() == Some(refused) { self.set_push_target(before) } else { Ok(()) }
    }

    /// The server has this target.
    ///
    /// # Errors
    /// The database failed.
    pub(crate) fn push_target_taken(&mut self, digest: PushDigest) -> Result<(), VaultError> {
        self.write(|work| {
            if held(work.connection)?.is_some_and(|held| !held.taken && held.target.digest() == digest) {
                work.connection.execute("UPDATE push_target SET taken = 1", [])?;
            }
            Ok(())
        })
    }

    /// The server does not have this target. Where it had it, the push service has refused it, or the server went back to a
    /// backup; `true` where that has happened so often that it was told now.
    ///
    /// # Errors
    /// The database failed.
    pub(crate) fn push_target_missing(&mut self, digest: PushDigest) -> Result<bool, VaultError> {
        self.write(|work| {
            let held = held(work.connection)?.filter(|held| held.taken && held.target.digest() == digest);
            let Some(held) = held else { return Ok(false) };
            let dropped = held.dropped.saturating_add(1);
            work.connection.execute("UPDATE push_target SET taken = 0, dropped = ?1", params![dropped])?;
            if dropped != DROPPED_TOLD {
                return Ok(false);
            }
            work.event(Event::PushRefused { service: held.target.service().name().to_owned() })?;
            Ok(true)
        })
    }

    /// The keys of a receiver on this machine: the same until the target is cleared, so that what is sent to a receiver that
    /// was killed finds the next one.
    ///
    /// # Errors
    /// The database failed.
    pub fn push_receiver(&mut self) -> Result<PushReceiver, VaultError> {
        self.write(|work| {
            let sql = "SELECT key FROM push_target";
            let kept: Option<Option<[u8; RECEIVER_BYTES]>> =
                work.connection.query_row(sql, [], |row| row.get(0)).optional()?;
            match kept.flatten().map(Zeroizing::new) {
                Some(kept) => PushReceiver::from_bytes(&kept).ok_or(VaultError::Damaged("push receiver")),
                None => make_receiver(work),
            }
        })
    }
}

fn make_receiver(work: &Work<'_>) -> Result<PushReceiver, VaultError> {
    for _ in 0..KEYS_TRIED_MAX {
        let bytes = random::<RECEIVER_BYTES>()?;
        if let Some(receiver) = PushReceiver::from_bytes(&bytes) {
            let sql =
                "INSERT INTO push_target (one, key) VALUES (1, ?1) ON CONFLICT (one) DO UPDATE SET key = excluded.key";
            work.connection.execute(sql, params![bytes.as_slice()])?;
            return Ok(receiver);
        }
    }
    Err(VaultError::Random)
}

/// The target that is set.
pub(super) fn held(connection: &Connection) -> Result<Option<Held>, VaultError> {
    let sql = "SELECT target, taken, dropped FROM push_target WHERE target IS NOT NULL";
    let read = |row: &rusqlite::Row<'_>| Ok((row.get::<_, Vec<u8>>(0)?, row.get(1)?, row.get(2)?));
    let row = connection.prepare_cached(sql)?.query_row([], read).optional()?;
    let Some((target, taken, dropped)) = row else { return Ok(None) };
    let target = PushTarget::decode(&target).map_err(|_| VaultError::Damaged("push target"))?;
    Ok(Some(Held { target, taken, dropped }))
}
