//! This account's phone number: proven by a code, found by others or not, locked by a PIN, or given up.

mod pin;

use gureum_proto::{CodeSent, Otp, Phone, PhoneChange, PhoneProof, Ready, Request, Response};

use super::Client;
use super::error::ClientError;
use crate::ground::Work;
use crate::vault::{OwnPhone, Vault, is_e164};
pub use pin::{Pin, PinError};

/// A phone number that an account is to have.
#[derive(Debug, Clone)]
pub struct NewPhone {
    /// The number, as the code was asked for it.
    pub phone: Phone,
    /// What came to it.
    pub code: Otp,
    /// Opens the registration lock of the account that has the number now, if it has one, and locks it for the one that is
    /// to have it.
    pub pin: Option<Pin>,
    /// Whether others may find the account by the number.
    pub findable: bool,
}

impl NewPhone {
    /// What shows the server that the number may move; `number` is the number in E.164.
    pub(super) async fn proof(self, work: Work, number: Phone) -> Result<PhoneProof, ClientError> {
        let Self { phone, code, pin, findable } = self;
        let lock = match pin {
            Some(pin) => Some(work.run(move || pin.secret(&number)).await?),
            None => None,
        };
        Ok(PhoneProof { phone, code, lock, findable })
    }
}

impl Client {
    /// The account's phone number, as far as this device knows.
    ///
    /// # Errors
    /// The database failed.
    pub async fn phone(&self) -> Result<Option<OwnPhone>, ClientError> {
        self.vault.call(Vault::own_phone).await
    }

    /// Asks the server to send a code to a number that the account is to have: for [`Self::set_phone`].
    ///
    /// # Errors
    /// The server cannot be reached, or sends no codes, none to this number, or has sent too many.
    pub async fn request_phone_code(&self, phone: &Phone) -> Result<CodeSent, ClientError> {
        let Response::CodeSent(sent) = self.ask(&Request::RequestCode(phone.clone())).await?.0 else {
            return Err(ClientError::Mismatched);
        };
        if !is_e164(&sent.phone) {
            return Err(ClientError::Mismatched);
        }
        let (typed, number) = (phone.clone(), sent.phone.clone());
        self.vault.call(move |vault| vault.note_code_asked(&typed, &number)).await?;
        Ok(sent)
    }

    /// Gives the account a phone number, in the place of the one that it has.
    ///
    /// # Errors
    /// The server cannot be reached, the code is wrong, or another account has locked the number.
    pub async fn set_phone(&self, phone: NewPhone) -> Result<(), ClientError> {
        let typed = phone.phone.clone();
        let number = self.vault.call(move |vault| vault.number_of(&typed)).await?;
        let (findable, locks) = (phone.findable, phone.pin.is_some());
        let proof = phone.proof(self.ground.work, number.clone()).await?;
        let ready = self.ask_done(&Request::SetPhone(PhoneChange::Set(proof))).await?;
        self.decide(move |vault| vault.set_own_phone(&number, ready.phone, findable, locks)).await
    }

    /// Takes the account's phone number away.
    ///
    /// # Errors
    /// The server cannot be reached.
    pub async fn remove_phone(&self) -> Result<(), ClientError> {
        self.ask_done(&Request::SetPhone(PhoneChange::Remove)).await?;
        self.decide(Vault::forget_own_phone).await
    }

    /// Lets others find the account by its number, or no longer.
    ///
    /// # Errors
    /// The server cannot be reached, or the account has no number.
    pub async fn set_findable(&self, on: bool) -> Result<(), ClientError> {
        self.ask_done(&Request::SetPhone(PhoneChange::Findable(on))).await?;
        self.decide(move |vault| vault.set_own_findable(on)).await
    }

    /// Locks the account's number with a PIN: as long as the account is in use, and for some days after, whoever gets the
    /// number's messages can take it only with the PIN.
    ///
    /// # Errors
    /// The server cannot be reached, or the account has no number that this device knows.
    pub async fn lock_phone(&self, pin: Pin) -> Result<(), ClientError> {
        let own = self.phone().await?.ok_or(ClientError::NoPhone)?;
        let secret = self.ground.work.run(move || pin.secret(&own.phone)).await?;
        self.ask_done(&Request::SetLock(Some(secret))).await?;
        self.decide(|vault| vault.set_own_lock(true)).await
    }

    /// Takes the lock away.
    ///
    /// # Errors
    /// The server cannot be reached.
    pub async fn unlock_phone(&self) -> Result<(), ClientError> {
        self.ask_done(&Request::SetLock(None)).await?;
        self.decide(|vault| vault.set_own_lock(false)).await
    }

    /// One request on a connection of its own, and what the server has said when that began.
    async fn ask(&self, request: &Request) -> Result<(Response, Ready), ClientError> {
        let (link, _events, ready) = self.link(&self.dialer()?, false).await?;
        let answer = link.request(request).await;
        link.close().await;
        Ok((answer?, ready))
    }

    /// The same where there is nothing to be answered but that it is done.
    pub(super) async fn ask_done(&self, request: &Request) -> Result<Ready, ClientError> {
        match self.ask(request).await? {
            (Response::Done, ready) => Ok(ready),
            _ => Err(ClientError::Mismatched),
        }
    }
}
