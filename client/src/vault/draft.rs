//! A device before its account has it: made with its keys, the same through every restart, and a home of the account as
//! soon as the account's log has the device.

use std::fmt;
use std::path::Path;

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use gureum_proto::limits::{LINK_APPROVALS_PER_OFFER_MAX, LOG_ENTRIES_MAX};
use gureum_proto::{
    AccountId, AddDraft, CheckChain, DeviceId, DeviceKeys, Handle, HelloClaim, Link, LinkBundle, LinkCode, LinkConsent,
    LinkOffer, LinkProposal, LogHead, Position, ServerUrl, countersign, sign_recover,
};
use openmls_rust_crypto::RustCrypto;
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};
use zeroize::Zeroizing;

use super::devices::LINKER;
use super::key::random;
use super::leaves::keep_left_by;
use super::profile::{Profile, check_device_name, server_text};
use super::{DATABASE, DeviceError, KeySource, NewProfile, OpenError, Vault, VaultError, key, schema};
use crate::e2ee::seal::{self, SealKey};
use crate::ground::Clock;
use crate::limits::EPOCH_MAX;

const CHECK_CONTEXT: &str = "gureum 2026-11 client link check v1";

/// A home whose device no account has yet.
pub(crate) struct Draft {
    connection: Connection,
    crypto: RustCrypto,
    clock: Clock,
    server: ServerUrl,
    device_name: String,
    proof: SigningKey,
    keys: DeviceKeys,
    seal: SealKey,
    code: LinkCode,
    check: CheckChain,
    joining: Option<Joining>,
    /// Answers taken so far, but for those that continue the one before.
    approvals: u32,
    /// How many there were when the device began to wait.
    approvals_before: u32,
    wants_history: bool,
}

/// The account that is to have the device.
#[derive(Clone)]
pub(crate) struct Joining {
    pub(crate) account: AccountId,
    pub(crate) handle: Handle,
    /// The entry of its log that adds the device.
    log_entry: u64,
    /// What the account's device hands over is sealed under it; nothing is handed over in a recovery.
    bundle_key: Option<Zeroizing<[u8; 32]>>,
}

/// What the device says to who has answered it.
pub(crate) struct Consent {
    proposal: LinkProposal,
    opening: [u8; 32],
    /// What travels.
    pub(crate) sealed: Bytes,
}

impl Consent {
    /// What a person compares.
    pub(crate) fn digits(&self, code: &LinkCode, sealed_offer: &[u8]) -> String {
        self.proposal.check_digits(code, sealed_offer, &self.opening)
    }
}

impl Joining {
    /// Whether it comes of the same answer, or of a later one by who gave that: the digits of the first hold.
    pub(crate) fn continues(&self, before: &Self) -> bool {
        self.account == before.account && self.bundle_key == before.bundle_key
    }
}

impl fmt::Debug for Joining {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Joining").field("account", &self.account).field("handle", &self.handle).finish_non_exhaustive()
    }
}

impl Draft {
    /// Makes a home with new keys, or goes on with one that no account has yet.
    pub(crate) fn begin(clock: Clock, home: &Path, key: &KeySource, new: &NewProfile) -> Result<Self, OpenError> {
        check_device_name(&new.device_name)?;
        let key = key::new_or_existing(home, key)?;
        let mut connection = schema::open(&home.join(DATABASE), &key, true)?;
        let transaction =
            connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(VaultError::from)?;
        match Profile::load(&transaction)? {
            Some(profile) if profile.is_registered() => return Err(OpenError::Exists(home.to_owned())),
            Some(_) => return Err(OpenError::Unfinished(home.to_owned())),
            None => make_or_redirect(&transaction, new)?,
        }
        transaction.commit().map_err(VaultError::from)?;
        Ok(Self::load(clock, connection)?)
    }

    fn load(clock: Clock, connection: Connection) -> Result<Self, VaultError> {
        const DAMAGED: VaultError = VaultError::Damaged("draft");
        let sql = "SELECT server, device_name, proof_seed, mls_seed, seal_seed, secret, account, handle, log_entry,
                   bundle_key, approvals FROM draft";
        let (server, device_name, seeds, joining, approvals) = connection.query_row(sql, [], |row| {
            let seed = |index: usize| row.get::<_, [u8; 32]>(index).map(Zeroizing::new);
            let joining = (
                row.get::<_, Option<[u8; 16]>>(6)?,
                row.get::<_, Option<String>>(7)?,
                row.get::<_, Option<u64>>(8)?,
                row.get::<_, Option<[u8; 32]>>(9)?,
            );
            let seeds = (seed(2)?, seed(3)?, seed(4)?, row.get::<_, [u8; 16]>(5).map(Zeroizing::new)?);
            Ok((row.get::<_, String>(0)?, row.get(1)?, seeds, joining, row.get(10)?))
        })?;
        let (proof_seed, mls_seed, seal_seed, secret) = seeds;
        let proof = SigningKey::from_bytes(&proof_seed);
        let mls_key = SigningKey::from_bytes(&mls_seed).verifying_key().to_bytes();
        let keys = DeviceKeys::new(proof.verifying_key().as_bytes(), &mls_key).map_err(|_| DAMAGED)?;
        let crypto = RustCrypto::default();
        let seal = SealKey::from_seed(&crypto, &seal_seed)?;
        let code = LinkCode::new(seal.public, *secret);
        let check = CheckChain::from_seed(blake3::derive_key(CHECK_CONTEXT, seal_seed.as_slice()));
        let joining = match joining {
            (Some(account), Some(handle), Some(log_entry), bundle_key) => Some(Joining {
                account: AccountId::from_bytes(account),
                handle: handle.parse().map_err(|_| DAMAGED)?,
                log_entry,
                bundle_key: bundle_key.map(Zeroizing::new),
            }),
            _ => None,
        };
        let server = server.parse().map_err(|_| DAMAGED)?;
        Ok(Self {
            connection,
            crypto,
            clock,
            server,
            device_name,
            proof,
            keys,
            seal,
            code,
            check,
            joining,
            approvals,
            approvals_before: approvals,
            wants_history: false,
        })
    }

    /// What the device shows.
    pub(crate) const fn code(&self) -> &LinkCode {
        &self.code
    }

    /// The account that is to have it, once one has answered or is brought back.
    pub(crate) const fn joining(&self) -> Option<&Joining> {
        self.joining.as_ref()
    }

    /// The key that proves the device.
    pub(crate) const fn proof(&self) -> &SigningKey {
        &self.proof
    }

    /// Asks whoever adds the device for what was said before.
    pub(crate) fn ask_for_history(&mut self) {
        self.wants_history = true;
    }

    /// What the device tells whoever has its code, by way of the server.
    pub(crate) fn link(&self) -> Result<Link, VaultError> {
        let (device_name, wants_history) = (self.device_name.clone(), self.wants_history);
        let commitment = self.check.commitment(self.approvals_before);
        let offer = LinkOffer { keys: self.keys, device_name, wants_history, commitment };
        let id = self.code.id();
        let offer = seal::seal(&self.code.offer_key(), id, &offer.encode())?.into();
        Ok(Link { link: id, device: self.device(), offer })
    }

    /// The claim of a Hello by which the device sees whether the account has it.
    pub(crate) fn hello_claim(&self, account: AccountId) -> HelloClaim {
        HelloClaim {
            server_name: self.server.host.clone(),
            account,
            device: self.device(),
            subscribe: false,
            cursor: Position::default(),
            epochs_digest: None,
            log_entries: 0,
            life: None,
            push_digest: None,
        }
    }

    /// Takes the answer of a device of an account, and gives the sealed consent. A second answer may come of the same
    /// account, whose log has grown meanwhile. Before anything is told it is written down for which approval: none after it
    /// is told the same.
    pub(crate) fn consent(&mut self, sealed: &[u8]) -> Result<Consent, DeviceError> {
        let refused = |why: &str| DeviceError::Answer(why.to_owned());
        let opened = self.seal.open(&self.crypto, &self.code.answer_info(), sealed);
        let opened = opened.ok_or_else(|| refused("it is not sealed for this device"))?;
        let proposal = LinkProposal::decode(&opened).map_err(|error| refused(&error.to_string()))?;
        let entry = AddDraft::read(&proposal.entry).map_err(|error| refused(&error.to_string()))?;
        if entry.keys != self.keys {
            return Err(refused("it adds another device"));
        }
        let joining = Joining {
            account: proposal.account,
            handle: proposal.handle.clone(),
            log_entry: entry.at.length,
            bundle_key: Some(proposal.bundle_key.clone()),
        };
        let approval = self.approval(&joining)?;
        if approval.saturating_sub(self.approvals_before) > LINK_APPROVALS_PER_OFFER_MAX {
            return Err(DeviceError::TooOften);
        }
        let opening = self.check.opening(approval).ok_or_else(|| refused("there were too many before"))?;
        self.join(joining, approval)?;
        let consent = LinkConsent { countersignature: countersign(&proposal.entry, &self.proof), opening };
        let sealed = seal::seal(&proposal.consent_key(&self.code), self.code.id(), &consent.encode());
        Ok(Consent { opening, sealed: sealed.map_err(VaultError::from)?.into(), proposal })
    }

    /// The entry by which the recovery key brings an account back with this device alone.
    pub(crate) fn recover(
        &mut self,
        account: AccountId,
        handle: Handle,
        at: LogHead,
        recovery: &SigningKey,
    ) -> Result<Bytes, DeviceError> {
        let joining = Joining { account, handle, log_entry: at.length, bundle_key: None };
        let approval = self.approval(&joining)?;
        self.join(joining, approval)?;
        Ok(sign_recover(at, recovery, &self.keys, &self.proof, (self.clock)()))
    }

    /// Which approval an answer belongs to, counted from 1.
    fn approval(&self, joining: &Joining) -> Result<u32, DeviceError> {
        match &self.joining {
            Some(before) if before.account != joining.account => Err(DeviceError::OtherAccount),
            Some(before) if joining.continues(before) => Ok(self.approvals.max(1)),
            _ => Ok(self.approvals.saturating_add(1)),
        }
    }

    fn join(&mut self, joining: Joining, approval: u32) -> Result<(), VaultError> {
        let sql = "UPDATE draft SET account = ?1, handle = ?2, log_entry = ?3, bundle_key = ?4, approvals = ?5";
        let key = joining.bundle_key.as_ref().map(|key| key.as_slice());
        let row = params![joining.account.as_bytes(), joining.handle.as_str(), joining.log_entry, key, approval];
        self.connection.execute(sql, row)?;
        (self.joining, self.approvals) = (Some(joining), approval);
        Ok(())
    }

    /// What the account's device has handed over; `None` for nothing, and for what is not its.
    pub(crate) fn open_bundle(&self, sealed: &[u8]) -> Option<LinkBundle> {
        let joining = self.joining.as_ref()?;
        let opened = seal::open(joining.bundle_key.as_ref()?, self.code.id(), sealed)?;
        LinkBundle::decode(&opened).ok().filter(|bundle| bundle.account == joining.account)
    }

    /// The account's log has the device: the home is the account's from here on.
    pub(crate) fn finish(mut self, bundle: Option<&LinkBundle>) -> Result<Vault, VaultError> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let joining = self.joining.as_ref().ok_or(VaultError::NotRegistered)?;
        let sql = "INSERT INTO profile (id, server, device_name, proof_seed, mls_seed, root_entry, account, device,
                   handle, log_entry, cursor_seq, cursor_count, send_counter)
                   SELECT 1, server, device_name, proof_seed, mls_seed, x'', account, ?1, handle, log_entry, 0, 0, 0
                   FROM draft";
        transaction.execute(sql, params![self.keys.device().as_bytes()])?;
        let sql = "INSERT OR IGNORE INTO contact (account, handle) VALUES (?1, ?2)";
        transaction.execute(sql, params![joining.account.as_bytes(), joining.handle.as_str()])?;
        if let Some(bundle) = bundle {
            keep_bundle(&transaction, bundle, self.keys.device())?;
        }
        transaction.execute("DELETE FROM draft", [])?;
        let profile = Profile::load(&transaction)?.ok_or(VaultError::Damaged("profile"))?;
        transaction.commit()?;
        Ok(Vault::new(self.clock, self.connection, profile))
    }

    fn device(&self) -> DeviceId {
        self.keys.device()
    }
}

/// Whether a home has a device that no account has yet.
pub(super) fn is_there(connection: &Connection) -> Result<bool, VaultError> {
    Ok(connection.query_row("SELECT EXISTS (SELECT 1 FROM draft)", [], |row| row.get(0))?)
}

fn make_or_redirect(connection: &Connection, new: &NewProfile) -> Result<(), VaultError> {
    let server = server_text(&new.server);
    let account = connection.query_row("SELECT account FROM draft", [], |row| row.get::<_, Option<[u8; 16]>>(0));
    match account.optional()? {
        // Whoever has answered has seen the name.
        Some(Some(_)) => Ok(connection.execute("UPDATE draft SET server = ?1", params![server]).map(drop)?),
        Some(None) => {
            let sql = "UPDATE draft SET server = ?1, device_name = ?2";
            Ok(connection.execute(sql, params![server, new.device_name]).map(drop)?)
        }
        None => {
            let (proof, mls, seal) = (random::<32>()?, random::<32>()?, random::<32>()?);
            let secret = random::<16>()?;
            let sql = "INSERT INTO draft (id, server, device_name, proof_seed, mls_seed, seal_seed, secret)
                       VALUES (1, ?1, ?2, ?3, ?4, ?5, ?6)";
            let seeds = (proof.as_slice(), mls.as_slice(), seal.as_slice(), secret.as_slice());
            let row = params![server, new.device_name, seeds.0, seeds.1, seeds.2, seeds.3];
            Ok(connection.execute(sql, row).map(drop)?)
        }
    }
}

/// From here on the server can show no other past than the account's other devices have seen.
fn keep_bundle(connection: &Connection, bundle: &LinkBundle, own: DeviceId) -> Result<(), VaultError> {
    let pin = |account: AccountId, log: LogHead| -> Result<(), VaultError> {
        if log.length <= LOG_ENTRIES_MAX {
            let sql = "INSERT OR IGNORE INTO log_pin (account, device, length, head) VALUES (?1, ?2, ?3, ?4)";
            let row = params![account.as_bytes(), LINKER.as_bytes(), log.length, log.hash.as_slice()];
            connection.prepare_cached(sql)?.execute(row)?;
        }
        Ok(())
    };
    pin(bundle.account, bundle.log)?;
    for contact in &bundle.contacts {
        let sql = "INSERT OR IGNORE INTO contact (account, handle) VALUES (?1, ?2)";
        connection.prepare_cached(sql)?.execute(params![contact.account.as_bytes(), contact.handle.as_str()])?;
        pin(contact.account, contact.log)?;
    }
    let possible = bundle.conversations.iter().filter(|(_, epoch)| *epoch <= EPOCH_MAX);
    for (place, (conversation, epoch)) in (0_u32..).zip(possible) {
        let sql = "INSERT OR IGNORE INTO foretold (conversation, epoch, place) VALUES (?1, ?2, ?3)";
        connection.prepare_cached(sql)?.execute(params![conversation.as_bytes(), epoch, place])?;
    }
    keep_left_by(connection, bundle.account, &bundle.leaves)?;
    for (device, name) in &bundle.devices {
        if *device == own {
            connection.execute("UPDATE profile SET device_name = ?1", params![name])?;
        } else {
            let sql = "INSERT OR IGNORE INTO device_name (device, name) VALUES (?1, ?2)";
            connection.execute(sql, params![device.as_bytes(), name])?;
        }
    }
    Ok(())
}
