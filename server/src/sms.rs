//! Brings one-time codes out: by an HTTP webhook that any SMS gateway can be put behind, or, in development, into the log.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use aws_lc_rs::hmac;
use bytes::Bytes;
use data_encoding::HEXLOWER;
use gureum_proto::{Code, Otp, Refusal};
use http::header::CONTENT_TYPE;
use http::{Request, Uri};
use http_body_util::Full;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{self, PhoneSettings};
use crate::files::read_small;
use crate::https::{Https, Reach, Roots};
use crate::limits::{CODE_MS, SMS_FULL_RETRY_MS, SMS_IN_FLIGHT_MAX, SMS_QUEUE_MAX, SMS_TRIES_MAX, SMS_TRY_MS_MAX};
use crate::metrics::PhoneMetrics;
use crate::numbers::E164;
use crate::time::WallClock;

/// The least key of the signature: as many bytes as it has itself (RFC 2104 §3).
const KEY_BYTES_MIN: usize = 32;

/// What a gateway is given.
const PATIENCE: Patience = Patience {
    answer: Duration::from_millis(SMS_TRY_MS_MAX),
    pauses: [Duration::from_secs(1), Duration::from_secs(4)],
    life: Duration::from_millis(CODE_MS),
};

const _: () = assert!(PATIENCE.pauses.len() + 1 == SMS_TRIES_MAX as usize, "a pause between any two tries");

/// How codes go out.
pub(crate) enum Sms {
    /// Not at all.
    Off,
    /// To the log.
    Log,
    /// To the webhook.
    Webhook(SmsQueue),
}

/// The way to the worker.
pub(crate) struct SmsQueue(mpsc::Sender<Job>);

/// Takes codes to the gateway.
pub(crate) struct SmsWorker {
    queue: mpsc::Receiver<Job>,
    hook: Arc<Webhook>,
}

/// What has become of a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// The gateway has taken it.
    Delivered,
    /// The gateway has refused it for good.
    Refused,
    /// The gateway could not take it while it was good for something.
    Failed,
}

struct Job {
    to: E164,
    code: Otp,
    queued: Instant,
}

struct Webhook {
    https: Https,
    uri: Uri,
    key: hmac::Key,
    patience: Patience,
    /// For requests: few at a time.
    places: Semaphore,
}

#[derive(Clone, Copy)]
struct Patience {
    /// How long one answer may take.
    answer: Duration,
    /// Before the second try, and before the third.
    pauses: [Duration; 2],
    /// After it a code is of no use any more.
    life: Duration,
}

/// Sets up what the operator has chosen; with a webhook there is a worker to be run.
///
/// # Errors
/// The key of the webhook cannot be read, or is too short.
pub(crate) fn open(settings: &PhoneSettings, roots: &Roots, tasks: &TaskTracker) -> Result<(Sms, Option<SmsWorker>)> {
    match &settings.sms {
        config::Sms::Off => Ok((Sms::Off, None)),
        config::Sms::Log => Ok((Sms::Log, None)),
        config::Sms::Webhook(url) => {
            let path = settings.sms_key.as_deref().context("sms: a webhook needs sms_key")?;
            let key = read_key(path).with_context(|| format!("sms_key: the file {}", path.display()))?;
            let https =
                Https::new(roots, Reach::Anywhere, false, tasks.clone()).context("sms: TLS cannot be set up")?;
            let uri = url.parse().context("sms: the webhook is no URL")?;
            let places = Semaphore::new(SMS_IN_FLIGHT_MAX);
            let (sms, worker) = webhook(Webhook { https, uri, key, patience: PATIENCE, places });
            Ok((sms, Some(worker)))
        }
    }
}

fn webhook(hook: Webhook) -> (Sms, SmsWorker) {
    let (sender, queue) = mpsc::channel(SMS_QUEUE_MAX);
    (Sms::Webhook(SmsQueue(sender)), SmsWorker { queue, hook: Arc::new(hook) })
}

/// Its content but for the end of its last line, which editors add and `openssl rand` writes.
fn read_key(path: &Path) -> Result<hmac::Key> {
    let file = read_small(path)?.context("is not there")?;
    let key = file.trim_ascii_end();
    ensure!(key.len() >= KEY_BYTES_MIN, "has {} bytes; a key has at least {KEY_BYTES_MIN}", key.len());
    Ok(hmac::Key::new(hmac::HMAC_SHA256, key))
}

impl Sms {
    /// Sends a code on its way, without waiting for it.
    ///
    /// # Errors
    /// No codes are sent here, or too many wait.
    pub(crate) fn queue(&self, to: E164, code: Otp) -> Result<(), Refusal> {
        match self {
            Self::Off => Err(Refusal::new(Code::PhoneUnavailable)),
            Self::Log => {
                let (number, code) = (to.as_str(), code.as_str());
                let end = number.get(number.len().saturating_sub(2)..).unwrap_or_default();
                tracing::warn!("code {code} for a number that ends in …{end}");
                Ok(())
            }
            Self::Webhook(SmsQueue(queue)) => {
                queue.try_send(Job { to, code, queued: Instant::now() }).map_err(|error| match error {
                    TrySendError::Full(_) => Refusal::new(Code::RateLimited).retry_after_ms(SMS_FULL_RETRY_MS),
                    TrySendError::Closed(_) => Refusal::new(Code::Unavailable),
                })
            }
        }
    }
}

impl SmsWorker {
    /// Takes codes to the gateway until it is told to stop, a few at a time: one that hangs holds up nobody but those
    /// who wait for codes. What waits at the end is dropped: whoever asked asks again.
    pub(crate) async fn run(self, wall: Arc<dyn WallClock>, metrics: PhoneMetrics, stop: CancellationToken) {
        self.serve(wall, move |delivery| metrics.delivered(delivery), stop).await;
    }

    async fn serve(mut self, wall: Arc<dyn WallClock>, ended: impl Fn(Delivery), stop: CancellationToken) {
        let mut sending = JoinSet::new();
        let mut is_open = true;
        while is_open || !sending.is_empty() {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                Some(delivery) = sending.join_next() => ended(delivery.unwrap_or(Delivery::Failed)),
                job = self.queue.recv(), if is_open && sending.len() < SMS_QUEUE_MAX => match job {
                    Some(job) => {
                        let (hook, wall) = (Arc::clone(&self.hook), Arc::clone(&wall));
                        sending.spawn(async move { hook.deliver(&job, wall.as_ref()).await });
                    }
                    None => is_open = false,
                },
            }
        }
    }
}

/// A try that may be repeated.
struct Busy {
    /// How long the gateway wants not to be asked again.
    wait: Duration,
    /// What came instead of an answer of success, for the log.
    why: String,
}

impl Webhook {
    /// Takes one code to the gateway, with a few tries while it is good for something.
    async fn deliver(&self, job: &Job, wall: &dyn WallClock) -> Delivery {
        let Some(body) = body(job) else { return Delivery::Failed };
        let mut why = String::new();
        for pause in self.patience.pauses.iter().map(Some).chain([None]) {
            // Given back while it waits: a number that the gateway leaves alone for minutes holds up no other.
            let place = self.places.acquire().await;
            if job.queued.elapsed() >= self.patience.life {
                tracing::warn!("a code has expired before the SMS gateway took it");
                return Delivery::Failed;
            }
            let wait = match self.attempt(body.clone(), wall.wall_ms()).await {
                Ok(delivery) => return delivery,
                Err(busy) => {
                    why = busy.why;
                    busy.wait
                }
            };
            drop(place);
            let Some(pause) = pause else { break };
            let pause = jittered(*pause).max(wait);
            if job.queued.elapsed().saturating_add(pause) >= self.patience.life {
                break;
            }
            tokio::time::sleep(pause).await;
        }
        tracing::warn!(%why, "the SMS gateway has not taken a code");
        Delivery::Failed
    }

    /// One try.
    async fn attempt(&self, body: Bytes, wall_ms: u64) -> Result<Delivery, Busy> {
        let Some(request) = self.request(body, wall_ms) else { return Ok(Delivery::Failed) };
        let answer = match timeout(self.patience.answer, self.https.send(request)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(failure)) => return Err(Busy { wait: Duration::ZERO, why: format!("no answer ({failure:?})") }),
            Err(_) => return Err(Busy { wait: Duration::ZERO, why: "no answer in time".to_owned() }),
        };
        let status = answer.status;
        match status {
            200..=299 => Ok(Delivery::Delivered),
            429 | 500..=599 => {
                let wait = Duration::from_millis(answer.retry_after_ms.unwrap_or_default());
                Err(Busy { wait, why: format!("it answers {status}") })
            }
            _ => {
                tracing::warn!(status, "the SMS gateway refuses a code");
                Ok(Delivery::Refused)
            }
        }
    }

    /// The request, signed with the time at which it is sent, so that nobody can send it once more later.
    fn request(&self, body: Bytes, wall_ms: u64) -> Option<Request<Full<Bytes>>> {
        let timestamp = (wall_ms / 1_000).to_string();
        let mut signing = hmac::Context::with_key(&self.key);
        signing.update(timestamp.as_bytes());
        signing.update(b".");
        signing.update(&body);
        let request = Request::post(self.uri.clone())
            .header(CONTENT_TYPE, "application/json")
            .header("gureum-signature", format!("v1={}", HEXLOWER.encode(signing.sign().as_ref())))
            .header("gureum-timestamp", timestamp)
            .body(Full::new(body));
        request.ok()
    }
}

/// What the gateway is told; the same at each try, so that it can drop a repetition by its id.
fn body(job: &Job) -> Option<Bytes> {
    #[derive(serde::Serialize)]
    struct Body<'a> {
        to: &'a str,
        code: &'a str,
        text: String,
        expires_in_s: u64,
        id: String,
    }
    let mut random = [0; 16];
    getrandom::fill(&mut random).ok()?;
    let code = job.code.as_str();
    let body = Body {
        to: job.to.as_str(),
        code,
        text: format!("Your Gureum code is {code}. It is good for 5 minutes. Do not tell it to anybody."),
        expires_in_s: CODE_MS / 1_000,
        id: uuid::Builder::from_random_bytes(random).into_uuid().to_string(),
    };
    serde_json::to_vec(&body).ok().map(Bytes::from)
}

/// A quarter more or less, so that what failed together does not come again together.
fn jittered(pause: Duration) -> Duration {
    let random = getrandom::u32().unwrap_or(u32::MAX / 2);
    pause.mul_f64(0.75 + f64::from(random) / f64::from(u32::MAX) / 2.0)
}

#[cfg(test)]
mod tests;
