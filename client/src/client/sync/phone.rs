//! Accounts found by their phone numbers. A number has another owner one day, so that it is asked for each time.

use gureum_proto::{Code, FindBy, Handle, Phone};

use super::{ClientError, Sync};
use crate::vault::{Contact, TrustError};

impl Sync {
    /// The account that has a number now, if its owner allows it to be found by that. Where the server does not say, who was
    /// found by it before is meant. Whoever asks for one that has moved is told so by the error, and whoever asks again goes
    /// on with its new owner.
    pub(super) async fn find_by_phone(&self, phone: &Phone) -> Result<Contact, ClientError> {
        let typed = phone.clone();
        let known = self.vault.call(move |vault| vault.contact_by_phone(&typed)).await?;
        let found = match (self.learn(FindBy::Phone(phone.clone()), 0).await, known) {
            (Ok(found), _) => found,
            (Err(error), Some(known)) if error.code() == Some(Code::NotFound) || error.is_refused_for_now() => {
                return Ok(known);
            }
            (Err(error), _) if error.code() == Some(Code::NotFound) => {
                return Err(ClientError::NobodyByNumber(phone.to_string()));
            }
            (Err(ClientError::Trust(moved @ TrustError::HandleMoved { .. })), _) => {
                return self.note_moved(moved).await;
            }
            (Err(error), _) => return Err(error),
        };
        let (typed, account) = (phone.clone(), found.account);
        self.vault.call(move |vault| vault.learn_number(&typed, account)).await?;
        Ok(found)
    }

    /// The handle of whom the number is stands for another account here: a person is told that now.
    async fn note_moved(&self, moved: TrustError) -> Result<Contact, ClientError> {
        if let TrustError::HandleMoved { handle, .. } = &moved {
            let handle: Handle = handle.parse()?;
            self.vault.call(move |vault| vault.go_on_with_moved(&handle)).await?;
        }
        Err(moved.into())
    }
}
