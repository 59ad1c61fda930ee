//! This account's devices: listed, and one added that shows a code.

use gureum_proto::{DeviceId, LinkCode};
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::Client;
use super::backoff::Backoff;
use super::driver::{Inbox, SessionOptions};
use super::error::ClientError;
use super::event::ClientEvent;
use super::sync::{Answered, Sync};
use crate::limits::{APPROVE_CONNECTIONS_MAX, BACKOFF_FIRST, BACKOFF_MAX, LINK_FINISH_WAIT, LINK_INBOX_MAX};
use crate::link::Dialer;
use crate::vault::{DeviceError, HandOver, HandedOver, Vault, check_device_name};

/// A device of this account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Which.
    pub device: DeviceId,
    /// What it is called, where that is known here.
    pub name: Option<String>,
    /// When it was added, in milliseconds since 1970, by the clock of the device that added it.
    pub added_ms: u64,
    /// When it last connected, in milliseconds since 1970, by the server's clock and to the minute; `None`: not yet.
    pub last_seen_ms: Option<u64>,
    /// Whether it is this one.
    pub current: bool,
}

/// A device that was added to the account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddedDevice {
    /// Which.
    pub device: DeviceId,
    /// Whether the server has taken what this device hands over to it. If not, the new one believes the server's first word
    /// about other accounts, as a newly registered one does, until the account's other devices have told it theirs.
    pub handed_over: bool,
}

/// A device that waits for a person's yes. Dropping it is a no.
#[derive(Debug)]
pub struct Approval {
    client: Client,
    dialer: Dialer,
    sync: Sync,
    code: LinkCode,
    answered: Answered,
    name: String,
    digits: String,
    hands_over: bool,
}

impl Client {
    /// The active devices of this account, in the order in which they were added.
    ///
    /// # Errors
    /// The server cannot be reached, or shows a device log that does not hold.
    pub async fn devices(&self) -> Result<Vec<Device>, ClientError> {
        let sync = self.connected(&self.dialer()?).await?;
        let listed = async {
            let contact = sync.learn_own().await?;
            Ok::<_, ClientError>((contact.log, sync.list_devices().await?))
        };
        let listed = listed.await;
        sync.link.close().await;
        let (log, states) = listed?;
        let mut names = self.vault.call(Vault::device_names).await?;
        let seen_ms = |device: DeviceId| {
            let state = states.iter().find(|state| state.device == device);
            state.map(|state| state.last_seen_ms).filter(|seen| *seen > 0)
        };
        let mut devices: Vec<_> = log.active().map(|(device, logged)| (logged.added_at, device, *logged)).collect();
        devices.sort_unstable_by_key(|(added_at, ..)| *added_at);
        let devices = devices.into_iter().map(|(_, device, logged)| Device {
            device,
            name: names.remove(&device),
            added_ms: logged.added_ms,
            last_seen_ms: seen_ms(device),
            current: device == self.identity.device,
        });
        Ok(devices.collect())
    }

    /// The device of this account that is called so, has this id, or an id that begins so.
    ///
    /// # Errors
    /// None is, or more than one.
    pub async fn device_named(&self, name: &str) -> Result<Device, ClientError> {
        let devices = self.devices().await?;
        let called = |device: &&Device| device.name.as_deref() == Some(name) || device.device.to_string() == name;
        let begins = |device: &&Device| name.len() >= ID_DIGITS_MIN && device.device.to_string().starts_with(name);
        let mut found: Vec<_> = devices.iter().filter(called).collect();
        if found.is_empty() {
            found = devices.iter().filter(begins).collect();
        }
        match found.as_slice() {
            [device] => Ok((*device).clone()),
            [] => Err(DeviceError::Unknown(name.to_owned()).into()),
            several => {
                let ids = several.iter().map(|device| device.device.to_string()).collect();
                Err(DeviceError::Ambiguous { name: name.to_owned(), ids }.into())
            }
        }
    }

    /// Answers a device that shows a code, and checks that it has agreed. Nothing is added before [`Approval::finish`].
    ///
    /// # Errors
    /// No device waits with this code, what came is not the consent of the device that shows it, the account has as many as it may, or the server cannot be reached.
    pub async fn approve(&self, code: &LinkCode) -> Result<Approval, ClientError> {
        let dialer = self.dialer()?;
        let sync = self.connected(&dialer).await?;
        match sync.answer_link(code).await {
            Ok(answered) => {
                let digits = answered.digits(code);
                let (name, hands_over) = (answered.offer().device_name.clone(), answered.offer().wants_history);
                let (client, code) = (self.clone(), code.clone());
                Ok(Approval { client, dialer, sync, code, answered, name, digits, hands_over })
            }
            Err(error) => {
                sync.link.close().await;
                Err(error)
            }
        }
    }

    /// To which devices of the account this one hands over its history, or has, as far as they have taken it. One that was
    /// revoked is not among them.
    ///
    /// # Errors
    /// The database failed.
    pub async fn history_owed(&self) -> Result<Vec<HandOver>, ClientError> {
        self.vault.call(Vault::history_owed).await
    }

    /// What other devices of the account hand over to this one, or have.
    ///
    /// # Errors
    /// The database failed.
    pub async fn history_coming(&self) -> Result<Vec<HandedOver>, ClientError> {
        self.vault.call(Vault::history_coming).await
    }

    /// Has the inbox taken as far as it goes now: by this process, or by the one that takes it already.
    async fn take_inbox(&self, dialer: &Dialer) -> Result<(), ClientError> {
        let mut session = match self.session(SessionOptions { inbox: Inbox::Take, reconnect: false }) {
            Ok(session) => session,
            Err(ClientError::Receiving(_)) => return self.wait_for_inbox(dialer).await,
            Err(error) => return Err(error),
        };
        let taken = loop {
            match session.next().await {
                Some(ClientEvent::CaughtUp) => break Ok(()),
                Some(ClientEvent::Stopped(error)) => break Err(error),
                Some(_) => (),
                None => break Err(ClientError::Ended),
            }
        };
        session.close().await;
        taken
    }

    async fn wait_for_inbox(&self, dialer: &Dialer) -> Result<(), ClientError> {
        let (link, _events, ready) = self.link(dialer, false).await?;
        link.close().await;
        let head = ready.head.seq;
        while self.vault.call(Vault::taken_seq).await? < head {
            tokio::time::sleep(LINK_FINISH_WAIT).await;
        }
        Ok(())
    }

    /// A connection that has proven itself, with the database that it serves.
    async fn connected(&self, dialer: &Dialer) -> Result<Sync, ClientError> {
        let (link, _events, _ready) = self.link(dialer, false).await?;
        Ok(self.sync(link))
    }
}

/// Fewer digits of an id than this name no device: they may be a name mistyped.
const ID_DIGITS_MIN: usize = 4;

impl Approval {
    /// Six digits that the new device shows as well. Other ones, or none, mean that the code was another device's: somebody
    /// may stand in between.
    #[must_use]
    pub fn digits(&self) -> &str {
        &self.digits
    }

    /// What the new device is called, by its own word.
    #[must_use]
    pub fn device_name(&self) -> &str {
        &self.name
    }

    /// Calls the new device otherwise.
    ///
    /// # Errors
    /// It is no name of a device.
    pub fn rename(&mut self, name: String) -> Result<(), ClientError> {
        check_device_name(&name)?;
        self.name = name;
        Ok(())
    }

    /// Whether the new device is handed what was said before: it asks for that, or [`Self::hand_over_history`].
    #[must_use]
    pub const fn hands_over_history(&self) -> bool {
        self.hands_over
    }

    /// Hands over what was said before, though the new device has not asked for it. That goes on by itself over any
    /// sessions of the two devices, until the new one has all of it.
    pub fn hand_over_history(&mut self) {
        self.hands_over = true;
    }

    /// Adds the device to the account, and hands it what it needs; connects again where that is needed. The new device
    /// joins the conversations by itself.
    ///
    /// # Errors
    /// The new device is gone, the account has as many devices as it may, or the server stays out of reach.
    pub async fn finish(mut self) -> Result<AddedDevice, ClientError> {
        let (device, name) = (self.answered.device(), self.name.clone());
        self.client.vault.call(move |vault| vault.name_device(device, &name)).await?;
        if self.hands_over {
            self.client.vault.call(move |vault| vault.owe_history(device)).await?;
        }
        self.hear_of_groups().await;
        let mut backoff = Backoff::new(BACKOFF_FIRST, BACKOFF_MAX, StdRng::from_os_rng());
        for _ in 1..APPROVE_CONNECTIONS_MAX {
            match Box::pin(self.add()).await {
                Err(error) if error.is_temporary() => {
                    tracing::info!(%error, "adding the device on another connection");
                    tokio::time::sleep(backoff.wait(error.retry_after())).await;
                }
                result => {
                    self.sync.link.close().await;
                    return result;
                }
            }
            match self.answer_again().await {
                Err(error) if !error.is_temporary() => return Err(error),
                // What is still broken shows in the next attempt.
                Ok(()) | Err(_) => (),
            }
        }
        let result = Box::pin(self.add()).await;
        self.sync.link.close().await;
        result
    }

    async fn answer_again(&mut self) -> Result<(), ClientError> {
        self.sync = self.client.connected(&self.dialer).await?;
        self.sync.learn_own().await?;
        self.sync.answer_again(&self.code, &mut self.answered).await
    }

    async fn add(&mut self) -> Result<AddedDevice, ClientError> {
        let device = self.sync.add_device(&self.code, &mut self.answered).await?;
        let handed_over = self.sync.finish_link(&self.code, &self.answered, &self.name).await?;
        Ok(AddedDevice { device, handed_over })
    }

    /// What this device still has is foretold to the new one, which says where the server hides it. So that it says so of
    /// nothing that the account is out of, the inbox is taken first where the server lists a group no more; before the log
    /// has the device, which is not kept waiting from then on. A server that holds the inbox back keeps nobody from being
    /// linked, and hides nothing by that.
    async fn hear_of_groups(&self) {
        let hear = async {
            if self.sync.has_unlisted_groups().await? { self.client.take_inbox(&self.dialer).await } else { Ok(()) }
        };
        match tokio::time::timeout(LINK_INBOX_MAX, Box::pin(hear)).await {
            Ok(Ok(())) => (),
            Ok(Err(error)) => tracing::info!(%error, "the inbox is not taken before a device is linked"),
            Err(_) => tracing::info!("the inbox is not taken in time before a device is linked"),
        }
    }
}
