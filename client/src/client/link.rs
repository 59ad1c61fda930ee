//! A new device waits until a device of an account adds it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use gureum_proto::{Code, Handle, Link, LinkCode, ServerUrl};
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::Client;
use super::backoff::Backoff;
use super::error::ClientError;
use crate::ground::Ground;
use crate::limits::{BACKOFF_FIRST, BACKOFF_MAX, LINK_LOOK_EVERY};
use crate::link::{Dialer, Linking, Unproven};
use crate::vault::{DeviceError, Draft, Joining, KeySource, NewProfile, Vault, VaultError};

/// A device that no account has yet.
#[derive(Debug, Clone)]
pub struct NewDevice {
    /// The account's server.
    pub server: ServerUrl,
    /// A name by which a person knows the device.
    pub device_name: String,
    /// Whether to ask for what was said before. It comes by itself, over any sessions of the two devices.
    pub history: bool,
}

/// A device that waits to be linked.
#[derive(Debug)]
pub struct LinkSession {
    home: NewHome,
    dialer: Dialer,
    code: LinkCode,
    /// What the device says of itself: the same on each connection, so that the digits stay the same.
    link: Link,
    waiting: Option<Unproven>,
    backoff: Backoff<StdRng>,
    /// Whose digits were told.
    told: Option<Joining>,
    /// A device had answered before this connection: the server may have forgotten that, and tells of nothing.
    looks: bool,
}

/// What happens to a device that waits.
#[derive(Debug)]
pub enum LinkStep {
    /// A device of an account has answered. A person compares the digits with those that it shows, and says yes there.
    /// It comes again for whoever answers anew, with other digits.
    Answered {
        /// Six digits.
        digits: String,
        /// The account's handle, by that device's word.
        handle: Handle,
    },
    /// The account has the device. It is in none of the conversations yet: the first session that takes the inbox joins
    /// them, and is up to date afterwards.
    Linked {
        /// The device's client.
        client: Client,
        /// Whether the other device has handed over what it has seen. If not, this one believes the server's first word about
        /// other accounts, as a newly registered one does, until the account's other devices have told it theirs.
        handed_over: bool,
    },
}

/// A home that is about to become one of an account's.
pub(super) struct NewHome {
    ground: Ground,
    directory: PathBuf,
    draft: Arc<Mutex<Option<Draft>>>,
}

impl Client {
    /// Makes a home for a device that is to be linked, or goes on with one that was not yet; and waits with its code.
    ///
    /// # Errors
    /// The home holds an account already, the server cannot be reached, or it refuses.
    pub async fn link_device(home: &Path, key: KeySource, new: NewDevice) -> Result<LinkSession, ClientError> {
        Self::link_device_on(Ground::system(), home, key, new).await
    }

    /// As [`Self::link_device`], on any ground.
    ///
    /// # Errors
    /// As [`Self::link_device`].
    pub async fn link_device_on(
        ground: Ground,
        home: &Path,
        key: KeySource,
        new: NewDevice,
    ) -> Result<LinkSession, ClientError> {
        // Before anything is written: an address that answers nobody leaves nothing behind.
        let dialer = Dialer::over(Arc::clone(&ground.sockets), new.server.clone())?;
        let unproven = dialer.connect().await?;
        let home = NewHome::begin(ground, home, key, &new).await?;
        let history = new.history;
        let offer = move |draft: &mut Draft| {
            if history {
                draft.ask_for_history();
            }
            Ok::<_, VaultError>((draft.code().clone(), draft.link()?))
        };
        let (code, link) = home.with(offer).await?;
        let backoff = Backoff::new(BACKOFF_FIRST, BACKOFF_MAX, StdRng::from_os_rng());
        let mut session = LinkSession { home, dialer, code, link, waiting: None, backoff, told: None, looks: false };
        if session.home.joining().await?.is_none() {
            session.wait_on(unproven).await?;
        }
        Ok(session)
    }
}

impl LinkSession {
    /// The code to show. Whoever has it can offer this device another account; it serves once.
    #[must_use]
    pub const fn code(&self) -> &LinkCode {
        &self.code
    }

    /// Waits for what happens next, and connects again where a connection breaks. Nothing follows
    /// [`LinkStep::Linked`].
    ///
    /// Cancel safety: a call that is dropped may lose an answer with it; then the device has to be answered again.
    ///
    /// # Errors
    /// The server refuses for good, or what answers is no device of an account.
    pub async fn next(&mut self) -> Result<LinkStep, ClientError> {
        loop {
            match self.step().await {
                Ok(Some(step)) => return Ok(step),
                Ok(None) => (),
                Err(error) if error.is_temporary() => {
                    self.waiting = None;
                    let wait = self.backoff.wait(error.retry_after());
                    tracing::info!(%error, ?wait, "waiting to be linked on another connection");
                    tokio::time::sleep(wait).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn step(&mut self) -> Result<Option<LinkStep>, ClientError> {
        let Some(waiting) = &mut self.waiting else {
            if let Some(step) = self.look().await? {
                return Ok(Some(step));
            }
            let unproven = self.dialer.connect().await?;
            self.wait_on(unproven).await?;
            return Ok(None);
        };
        let next = if self.looks {
            match tokio::time::timeout(LINK_LOOK_EVERY, waiting.next()).await {
                Ok(next) => next?,
                Err(_) => return self.look().await,
            }
        } else {
            waiting.next().await?
        };
        match next {
            Linking::Answer(answer) => self.on_answer(answer).await,
            Linking::Linked(bundle) => {
                self.waiting = None;
                self.settle(Some(bundle)).await.map(Some)
            }
        }
    }

    /// Whether the yes came where this device did not hear it.
    async fn look(&mut self) -> Result<Option<LinkStep>, ClientError> {
        let Some(joining) = self.home.joining().await? else { return Ok(None) };
        if !self.home.is_in(&self.dialer, &joining).await? {
            return Ok(None);
        }
        self.waiting = None;
        self.settle(None).await.map(Some)
    }

    async fn settle(&self, bundle: Option<Bytes>) -> Result<LinkStep, ClientError> {
        let (client, handed_over) = self.home.settle(&self.dialer, bundle).await?;
        Ok(LinkStep::Linked { client, handed_over })
    }

    async fn wait_on(&mut self, mut unproven: Unproven) -> Result<(), ClientError> {
        unproven.offer(&self.link).await?;
        self.waiting = Some(unproven);
        self.looks = self.home.joining().await?.is_some();
        Ok(())
    }

    /// Consents; what a person is to compare is told once for all answers of one approval.
    async fn on_answer(&mut self, answer: Bytes) -> Result<Option<LinkStep>, ClientError> {
        let consent = self.home.with(move |draft| draft.consent(&answer)).await?;
        let joining = self.home.joining().await?.ok_or(VaultError::Damaged("draft"))?;
        if let Some(waiting) = &mut self.waiting {
            waiting.reply(&consent.sealed).await?;
        }
        if self.told.as_ref().is_some_and(|told| joining.continues(told)) {
            return Ok(None);
        }
        let (digits, handle) = (consent.digits(&self.code, &self.link.offer), joining.handle.clone());
        self.told = Some(joining);
        Ok(Some(LinkStep::Answered { digits, handle }))
    }
}

impl NewHome {
    pub(super) async fn begin(
        ground: Ground,
        home: &Path,
        key: KeySource,
        new: &NewDevice,
    ) -> Result<Self, ClientError> {
        let profile = NewProfile {
            server: ServerUrl { token: None, ..new.server.clone() },
            device_name: new.device_name.clone(),
        };
        let (clock, directory) = (Arc::clone(&ground.clock), home.to_owned());
        let begin = move || Draft::begin(clock, &directory, &key, &profile);
        let draft = ground.work.run(begin).await??;
        Ok(Self { ground, directory: home.to_owned(), draft: Arc::new(Mutex::new(Some(draft))) })
    }

    /// Runs an operation on the draft.
    pub(super) async fn with<T: Send + 'static, E: Send + 'static>(
        &self,
        operation: impl FnOnce(&mut Draft) -> Result<T, E> + Send + 'static,
    ) -> Result<T, ClientError>
    where
        ClientError: From<E>,
    {
        let draft = Arc::clone(&self.draft);
        let work = move || {
            let mut draft = draft.lock().unwrap_or_else(PoisonError::into_inner);
            draft.as_mut().map(operation)
        };
        Ok(self.ground.work.run(work).await?.ok_or(ClientError::Ended)??)
    }

    /// The account that is to have the device, once one has answered or is brought back.
    pub(super) async fn joining(&self) -> Result<Option<Joining>, ClientError> {
        self.with(|draft| Ok::<_, VaultError>(draft.joining().cloned())).await
    }

    /// Whether the account has the device, by the server's word.
    pub(super) async fn is_in(&self, dialer: &Dialer, joining: &Joining) -> Result<bool, ClientError> {
        let account = joining.account;
        let claim = self.with(move |draft| Ok::<_, VaultError>((draft.hello_claim(account), draft.proof().clone())));
        let (claim, proof) = claim.await?;
        match dialer.connect().await?.prove(claim, &proof).await {
            Ok((link, _events, _ready)) => {
                link.close().await;
                Ok(true)
            }
            Err(error) if error.code() == Some(Code::DeviceUnknown) => Ok(false),
            Err(error) if error.code() == Some(Code::DeviceRevoked) => Err(DeviceError::Revoked.into()),
            Err(error) => Err(error.into()),
        }
    }

    /// The home is the account's from here on, with what a device of the account has handed over; whether one has is said as
    /// well. Before anything else this device looks for itself in the account's log.
    pub(super) async fn settle(&self, dialer: &Dialer, bundle: Option<Bytes>) -> Result<(Client, bool), ClientError> {
        let (draft, kept) = (Arc::clone(&self.draft), self.ground.clone());
        let finish = move || -> Result<(Vault, bool), ClientError> {
            let taken = draft.lock().unwrap_or_else(PoisonError::into_inner).take();
            let draft = taken.ok_or(ClientError::Ended)?;
            let bundle = bundle.and_then(|bundle| draft.open_bundle(&bundle));
            Ok((draft.finish(bundle.as_ref())?, bundle.is_some()))
        };
        let (vault, handed_over) = self.ground.work.run(finish).await??;
        let identity = vault.identity().clone();
        let client = Client::new(kept, &self.directory, vault, identity)?;
        match Box::pin(client.settle_in(dialer)).await {
            // It does so on its next connection.
            Err(error) if !matches!(error, ClientError::Trust(_)) => tracing::info!(%error, "not settled in yet"),
            result => result?,
        }
        Ok((client, handed_over))
    }
}

impl fmt::Debug for NewHome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewHome").field("directory", &self.directory).finish_non_exhaustive()
    }
}
