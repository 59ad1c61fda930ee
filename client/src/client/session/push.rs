//! The server's target of this device is what is wanted here: what it has lost or never heard, a session tells it.

use super::Session;
use crate::client::error::ClientError;
use crate::client::event::ClientEvent;
use crate::client::sync::Left;

impl Session<'_> {
    /// Tells the server by what this device is woken, where Ready has said that it has something else.
    pub(super) async fn keep_push(&mut self) -> Result<(), ClientError> {
        let kept = self.try_push().await?;
        self.mend_unless_done(kept);
        Ok(())
    }

    /// The same, and what is left of it for the next attempt. What is refused for good is asked again by the next
    /// connection alone: whoever runs the server may have set the service up by then.
    pub(super) async fn try_push(&mut self) -> Result<Left, ClientError> {
        let mut left = Left::default();
        if !std::mem::take(&mut self.push_differs) {
            return Ok(left);
        }
        match self.sync.keep_push().await {
            Ok(true) => self.tell(ClientEvent::News).await,
            Ok(false) => {}
            Err(error) => {
                let error = error.confined()?;
                tracing::warn!(%error, "the server does not wake this device where it is to be woken");
                self.push_differs = error.is_refused_for_now();
                left.refused = self.push_differs.then(|| error.retry_after());
            }
        }
        Ok(left)
    }
}
