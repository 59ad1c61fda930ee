//! Where this device is woken while it is away: kept here, told to the server, and told anew where it has lost it.

use gureum_proto::{PushOffer, PushTarget, Request, Response};

use super::Client;
use super::error::ClientError;
use super::sync::Sync;
use crate::vault::Vault;
use crate::web_push::PushReceiver;

impl Client {
    /// Has this device woken there while it is away, instead of anywhere else. To be called with the newest address that the
    /// push service has given, at each start of an app: one that is known already costs one connection.
    ///
    /// # Errors
    /// The target is none, or the server refuses it: then what was before counts. With [`ClientError::PushKept`] the server
    /// could not be told, which the next connection makes up for.
    pub async fn set_push_target(&self, target: PushTarget) -> Result<(), ClientError> {
        target.check()?;
        let kept = target.clone();
        let keep = move |vault: &mut Vault| {
            let before = vault.push_target()?;
            vault.set_push_target(Some(&kept)).map(|()| before)
        };
        let before = self.vault.call(keep).await?;
        match Box::pin(self.tell_push_target()).await {
            Err(error) if error.is_confined() && !error.is_temporary() => {
                self.vault.call(move |vault| vault.take_back_push_target(&target, before.as_ref())).await?;
                Err(error)
            }
            told => told.map_err(kept_if_temporary),
        }
    }

    /// Has this device woken no more, as whoever logs out wants it.
    ///
    /// # Errors
    /// With [`ClientError::PushKept`] the server could not be told, which the next connection makes up for.
    pub async fn clear_push_target(&self) -> Result<(), ClientError> {
        self.vault.call(|vault: &mut Vault| vault.set_push_target(None)).await?;
        Box::pin(self.tell_push_target()).await.map_err(kept_if_temporary)
    }

    /// Where this device is to be woken.
    ///
    /// # Errors
    /// The database failed.
    pub async fn push_target(&self) -> Result<Option<PushTarget>, ClientError> {
        self.vault.call(Vault::push_target).await
    }

    /// Which push services the server uses, by which key it proves itself to receivers, and which target it has of this
    /// device.
    ///
    /// # Errors
    /// The server cannot be reached.
    pub async fn push_offer(&self) -> Result<PushOffer, ClientError> {
        let (link, _events, _ready) = self.link(&self.dialer()?, false).await?;
        let sync = self.sync(link);
        let offer = sync.read_push().await;
        sync.link.close().await;
        offer
    }

    /// The keys of a receiver of Web Push on this machine. They are the same until the target is cleared.
    ///
    /// # Errors
    /// The database failed.
    pub async fn push_receiver(&self) -> Result<PushReceiver, ClientError> {
        self.vault.call(Vault::push_receiver).await
    }

    async fn tell_push_target(&self) -> Result<(), ClientError> {
        let (link, _events, ready) = self.link(&self.dialer()?, false).await?;
        let sync = self.sync(link);
        let told = if ready.push_differs { sync.keep_push().await.map(drop) } else { sync.push_is_known().await };
        sync.link.close().await;
        told
    }
}

/// What the next connection does anyway is no failure for good.
fn kept_if_temporary(error: ClientError) -> ClientError {
    if error.is_temporary() { ClientError::PushKept(Box::new(error)) } else { error }
}

impl Sync {
    /// Makes the server's target of this device what is wanted here. Returns whether there is news for a person.
    pub(crate) async fn keep_push(&self) -> Result<bool, ClientError> {
        let wanted = self.vault.call(Vault::push_target).await?;
        let digest = wanted.as_ref().map(PushTarget::digest);
        // Another process of this home may have told it meanwhile.
        let has_it = self.read_push().await?.target == digest;
        let mut is_news = false;
        if !has_it {
            if let Some(digest) = digest {
                is_news = self.vault.call(move |vault| vault.push_target_missing(digest)).await?;
            }
            let request = wanted.map_or(Request::RemovePushTarget, Request::SetPushTarget);
            match self.link.request(&request).await? {
                Response::Done => {}
                _ => return Err(ClientError::Mismatched),
            }
        }
        if let Some(digest) = digest {
            self.vault.call(move |vault| vault.push_target_taken(digest)).await?;
        }
        Ok(is_news)
    }

    /// The server has the target that this device has claimed.
    async fn push_is_known(&self) -> Result<(), ClientError> {
        match self.vault.call(Vault::push_target).await?.as_ref().map(PushTarget::digest) {
            Some(digest) => self.vault.call(move |vault| vault.push_target_taken(digest)).await,
            None => Ok(()),
        }
    }

    async fn read_push(&self) -> Result<PushOffer, ClientError> {
        match self.link.request(&Request::ReadPush).await? {
            Response::Push(offer) => Ok(offer),
            _ => Err(ClientError::Mismatched),
        }
    }
}
