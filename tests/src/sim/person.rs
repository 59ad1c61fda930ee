//! A simulated person: an account with the devices that it has had, and what the person knows by heart.

use std::path::{Path, PathBuf};

use gureum_client::{Client, ClientError, NewAccount};
use gureum_proto::{Handle, ServerUrl};

use super::installation::{Installation, KEY, Parts, Who};

/// Devices that one person has had, those that are gone included: each has an address of its own.
pub const DEVICES_MAX: usize = 12;

/// A person.
#[derive(Debug)]
pub struct Person {
    index: usize,
    handle: Handle,
    homes: PathBuf,
    parts: Parts,
    /// In the order in which they were installed.
    devices: Vec<Installation>,
    is_registered: bool,
    recovery_words: Option<String>,
    texts: u64,
}

impl Person {
    /// A person with a device and without an account.
    #[must_use]
    pub fn new(index: usize, homes: &Path, parts: Parts) -> Self {
        let handle: Handle = format!("person{index}").parse().expect("a handle");
        let mut person = Self {
            index,
            handle,
            homes: homes.to_owned(),
            parts,
            devices: Vec::new(),
            is_registered: false,
            recovery_words: None,
            texts: 0,
        };
        person.install();
        person
    }

    /// Under which name the others reach this one.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Whether there is an account.
    #[must_use]
    pub const fn is_registered(&self) -> bool {
        self.is_registered
    }

    /// What brings the account back when all devices are lost.
    #[must_use]
    pub fn recovery_words(&self) -> Option<String> {
        self.recovery_words.clone()
    }

    /// All devices that there have been.
    #[must_use]
    pub fn devices(&self) -> &[Installation] {
        &self.devices
    }

    /// One of them.
    #[must_use]
    pub fn device(&self, device: usize) -> &Installation {
        &self.devices[device]
    }

    /// One of them.
    #[must_use]
    pub fn device_mut(&mut self, device: usize) -> &mut Installation {
        &mut self.devices[device]
    }

    /// How many devices the account has, by the person's own word.
    #[must_use]
    pub fn count(&self) -> usize {
        self.devices.iter().filter(|device| device.is_in_use()).count()
    }

    /// Whether one more can be installed.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.devices.len() < DEVICES_MAX
    }

    /// Installs one more, which belongs to no account yet.
    pub fn install(&mut self) -> Who {
        let who = Who { person: self.index, device: self.devices.len() };
        self.parts.model.installed(who);
        self.devices.push(Installation::new(who, &self.homes, self.parts.clone()));
        who
    }

    /// A text that nobody has written yet.
    pub fn next_text(&mut self, bytes: usize) -> String {
        self.texts += 1;
        format!("{}-{} {}", self.index, self.texts, "x".repeat(bytes))
    }

    /// Tries once to make an account, on the first device.
    pub async fn register(&mut self, invite: ServerUrl) {
        let account = NewAccount { invite, handle: self.handle(), device_name: self.devices[0].who().device_name() };
        let device = &mut self.devices[0];
        match Client::register_on(device.ground(), device.home(), KEY, account).await {
            Ok(registration) => {
                self.recovery_words = Some(registration.recovery_words.to_string());
                device.is_linked_as(&registration.client);
                self.is_registered = true;
            }
            // It was registered, and the answer got lost with the process.
            Err(ClientError::Open(_)) if device.home().exists() => {
                self.is_registered = device.open_linked().await;
            }
            Err(error) => device.note(&format!("is not registered: {error}")),
        }
        device.unplug();
    }
}
