//! How a device comes to its account and leaves it, and how its home is copied and put back.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use gureum_client::{Client, ClientError, LinkStep, NewDevice};
use gureum_proto::{Code, ServerUrl};

use super::{Installation, KEY, Leave, State};

/// How long a try to link a device, to revoke one or to bring an account back may take.
const TRY_MAX: Duration = Duration::from_secs(60);

impl Installation {
    /// Tries once to become one of its account's devices, with a yes on another one, whose client this is.
    pub async fn link(&mut self, server: ServerUrl, yes: Client) {
        let tried = tokio::time::timeout(TRY_MAX, Box::pin(self.try_link(server, yes))).await;
        match tried {
            Ok(Ok(client)) => self.is_linked_as(&client),
            // It was linked, and the word of it got lost.
            Ok(Err(ClientError::Open(_))) if self.home().exists() => {
                self.open_linked().await;
            }
            Ok(Err(error)) => {
                let may_fail = error.is_temporary() || error.code() == Some(Code::LinkGone);
                self.parts.journal.check(may_fail, "a device that waits is linked", || error.to_string());
                self.note(&format!("is not linked: {error}"));
            }
            Err(_) => self.note("is not linked yet"),
        }
        self.unplug();
    }

    async fn try_link(&self, server: ServerUrl, yes: Client) -> Result<Client, ClientError> {
        let new = NewDevice { server, device_name: format!("device {}", self.who.device), history: false };
        let mut session = Box::pin(Client::link_device_on(self.ground(), self.home(), KEY, new)).await?;
        let code = session.code().clone();
        let approve = async {
            let approval = Box::pin(yes.approve(&code)).await?;
            Box::pin(approval.finish()).await
        };
        let wait = async {
            loop {
                if let LinkStep::Linked { client, .. } = Box::pin(session.next()).await? {
                    return Ok::<_, ClientError>(client);
                }
            }
        };
        // What the other one is told says little: the answer may get lost after the account has the device.
        let (approved, linked) = tokio::join!(approve, wait);
        if let Err(error) = approved {
            self.note(&format!("was not told that it is linked: {error}"));
        }
        linked
    }

    /// Tries once to bring its account back, which has lost all others.
    pub async fn recover(&mut self, server: ServerUrl, words: &str) {
        let new = NewDevice { server, device_name: format!("device {}", self.who.device), history: false };
        let recovering = Client::recover_on(self.ground(), self.home(), KEY, new, words);
        match tokio::time::timeout(TRY_MAX, Box::pin(recovering)).await {
            Ok(Ok(client)) => self.is_linked_as(&client),
            Ok(Err(ClientError::Open(_))) if self.home().exists() => {
                self.open_linked().await;
            }
            Ok(Err(error)) => {
                let rule = "an account comes back by its words";
                self.parts.journal.check(error.is_temporary(), rule, || error.to_string());
                self.note(&format!("brings nothing back: {error}"));
            }
            Err(_) => self.note("brings nothing back yet"),
        }
        self.unplug();
    }

    /// Tries once to revoke another device of its account. Whether the account has revoked it.
    pub async fn revoke(&self, other: &Self) -> bool {
        let (Some(online), Some(device)) = (&self.online, other.device) else { return false };
        let commands = online.commands.clone();
        match tokio::time::timeout(TRY_MAX, commands.revoke(device)).await {
            Ok(Ok(revoked)) => {
                self.note(&format!("has revoked {}: {revoked:?}", other.who));
                true
            }
            Ok(Err(error)) => {
                self.note(&format!("has not revoked {}: {error}", other.who));
                false
            }
            Err(_) => false,
        }
    }

    /// Its account has revoked it.
    pub fn is_gone(&mut self) {
        self.state = State::Revoked;
        self.parts.model.revoked(self.who);
    }

    /// It is lost, and its client does not run again before the account is back.
    pub async fn is_lost(&mut self) {
        self.leave(Leave::Crashed).await;
        self.state = if self.state == State::Linked { State::Lost } else { State::GivenUp };
        self.parts.model.about_to_be_revoked(self.who);
        self.note("is lost");
    }

    /// Whether it is lost, and the account not back yet.
    #[must_use]
    pub fn was_lost(&self) -> bool {
        self.state == State::Lost
    }

    /// Decides whether typing is shown, as a command would between two sessions.
    pub async fn decide(&mut self, shows_typing: bool) {
        self.leave(Leave::Closed).await;
        let decided = match Client::open_on(self.ground(), self.home(), KEY).await {
            Ok(client) => client.set_typing(shows_typing).await,
            Err(error) => Err(error),
        };
        if let Err(error) = decided {
            self.parts.journal.violate("a setting can be kept", error.to_string());
        }
        self.note(&format!("shows typing: {shows_typing}"));
        self.come().await;
    }

    /// Copies its home, as a backup would, between two of its sessions.
    pub async fn copy(&mut self) {
        self.leave(Leave::Closed).await;
        copy_home(self.home(), &self.copied());
        self.parts.model.copied(self.who);
        self.note("is copied");
        self.come().await;
    }

    /// Puts the copy in the home's place. `is_sure`: nothing lets the server forget what it knows of this device.
    pub async fn put_back(&mut self, is_sure: bool) {
        if !self.is_in_use() || !self.copied().exists() {
            return;
        }
        self.leave(Leave::Closed).await;
        let history = self.history().await.unwrap_or_default();
        copy_home(&self.copied(), self.home());
        let _ = fs::remove_dir_all(self.copied());
        self.parts.model.put_back(self.who, &history, is_sure);
        self.note("is an older copy of itself");
        self.come().await;
    }

    /// Whether there is a copy of its home.
    #[must_use]
    pub fn has_copy(&self) -> bool {
        self.copied().exists()
    }

    fn copied(&self) -> PathBuf {
        self.home().with_extension("copy")
    }
}

/// Makes `to` what `from` is.
pub(crate) fn copy_home(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    fs::create_dir_all(to).expect("a folder can be made");
    for entry in fs::read_dir(from).expect("a home is a folder") {
        let path = entry.expect("a folder can be read").path();
        fs::copy(&path, to.join(path.file_name().expect("it has a name"))).expect("a home holds files alone");
    }
}
