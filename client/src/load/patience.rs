//! How long the load tester bears with a server that is slow to let it in.

use std::time::Duration;

use tokio::time::Instant;

use crate::client::{Client, ClientError, ClientEvent, ClientSession, SessionOptions};
use crate::limits::{LOAD_PATIENCE, LOAD_REACH, LOAD_TRIES_MAX};
use crate::link::Dialer;

/// Finds out whether there is a server at all, before many look for it.
pub(super) async fn reach(dialer: &Dialer) -> Result<(), ClientError> {
    patiently(LOAD_REACH, || async { dialer.connect().await.map_err(ClientError::from) }).await.map(drop)
}

/// Tries until it succeeds, fails for good, or has failed for too long: under full load a handshake may take its time.
pub(super) async fn in_time<T, F>(attempt: impl FnMut() -> F) -> Result<T, ClientError>
where
    F: Future<Output = Result<T, ClientError>>,
{
    patiently(LOAD_PATIENCE, attempt).await
}

async fn patiently<T, F>(patience: Duration, mut attempt: impl FnMut() -> F) -> Result<T, ClientError>
where
    F: Future<Output = Result<T, ClientError>>,
{
    let give_up = Instant::now() + patience;
    let mut tries = 0;
    loop {
        let error = match attempt().await {
            Err(error) if error.is_temporary() && tries < LOAD_TRIES_MAX => error,
            result => return result,
        };
        tries += 1;
        let next = Instant::now() + error.retry_after().max(Duration::from_millis(100 * tries));
        if next >= give_up {
            return Err(error);
        }
        tokio::time::sleep_until(next).await;
    }
}

/// A session whose connection stands.
pub(super) async fn session(client: &Client, options: SessionOptions) -> Result<ClientSession, ClientError> {
    in_time(|| async {
        let mut session = client.session(options)?;
        let error = loop {
            match session.next().await {
                Some(ClientEvent::Connected) => return Ok(session),
                Some(ClientEvent::Stopped(error)) => break error,
                Some(_) => (),
                None => break ClientError::Ended,
            }
        };
        // It holds the inbox until it is gone.
        session.close().await;
        Err(error)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::LinkError;

    #[tokio::test(start_paused = true)]
    async fn tries_again_what_may_pass_and_gives_up_in_time() {
        let started = Instant::now();
        let mut attempts = 0;
        let third = in_time(|| {
            attempts += 1;
            let result = if attempts < 3 { Err(LinkError::Timeout("its first answer").into()) } else { Ok(attempts) };
            std::future::ready(result)
        });
        assert_eq!(third.await.unwrap(), 3);
        let refused = in_time(|| std::future::ready(Err::<(), _>(ClientError::Mismatched))).await;
        assert!(matches!(refused, Err(ClientError::Mismatched)));
        assert!(started.elapsed() < Duration::from_secs(1));
        let never = in_time(|| std::future::ready(Err::<(), _>(LinkError::Timeout("anything").into()))).await;
        assert!(never.unwrap_err().is_temporary());
        assert!(started.elapsed() <= LOAD_PATIENCE + Duration::from_secs(1));
    }
}
