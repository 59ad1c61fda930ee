//! Where this account lives on disk, and what opens it.

use std::path::PathBuf;

use anyhow::Context;
use gureum_client::vault::{KeySource, Resolved, Target, With};
use gureum_client::{Client, ClientError};
use zeroize::Zeroizing;

/// The home that the command line names.
pub(crate) struct Home {
    pub(crate) directory: Option<PathBuf>,
    pub(crate) passphrase_file: Option<PathBuf>,
    pub(crate) passphrase: Option<String>,
}

/// A passphrase file is a line, not a disk.
const PASSPHRASE_BYTES_MAX: usize = 4096;

impl Home {
    /// The directory named, or the usual one.
    pub(crate) fn directory(&self) -> anyhow::Result<PathBuf> {
        if let Some(directory) = &self.directory {
            return Ok(directory.clone());
        }
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let data = variable("XDG_DATA_HOME").filter(|path| path.is_absolute());
        data.or_else(|| variable("HOME").map(|home| home.join(".local/share")))
            .map(|data| data.join("gureum"))
            .context("there is no home directory; name one with --home DIR")
    }

    /// The passphrase given, or else the key file.
    pub(crate) fn key(&self) -> anyhow::Result<KeySource> {
        let Some(path) = &self.passphrase_file else {
            let given = self.passphrase.clone().filter(|passphrase| !passphrase.is_empty());
            return Ok(given.map_or(KeySource::File, |passphrase| KeySource::Passphrase(Zeroizing::new(passphrase))));
        };
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let text = Zeroizing::new(text);
        let line = text.strip_suffix('\n').unwrap_or(&text);
        let line = line.strip_suffix('\r').unwrap_or(line);
        anyhow::ensure!(!line.is_empty(), "the passphrase file {} is empty", path.display());
        anyhow::ensure!(line.len() <= PASSPHRASE_BYTES_MAX, "the passphrase in {} is too long", path.display());
        Ok(KeySource::Passphrase(Zeroizing::new(line.to_owned())))
    }

    /// Opens the account.
    pub(crate) async fn open(&self) -> anyhow::Result<Client> {
        let opened: Result<Client, ClientError> = Client::open(&self.directory()?, self.key()?).await;
        Ok(opened?)
    }
}

/// What a device is called where nobody says otherwise: as its machine.
pub(crate) fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name: String = name.trim().chars().take(32).collect();
    if name.is_empty() { "device".to_owned() } else { name }
}

/// Whose conversations somebody means, as far as they are known here.
pub(crate) async fn find(client: &Client, target: &Target) -> Result<Option<With>, ClientError> {
    Ok(whose(&client.resolve(target).await?))
}

/// Whose conversations that is.
pub(crate) fn whose(resolved: &Resolved) -> Option<With> {
    match resolved {
        Resolved::Id(known) | Resolved::Group(known) => Some(known.with()),
        Resolved::Contact(contact) => Some(With::Account(contact.account)),
        Resolved::Unknown => None,
    }
}
