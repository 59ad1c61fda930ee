//! Many connections that are subscribed and silent: what one costs the server in memory.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use gureum_proto::{HelloClaim, Position, Register, ServerUrl, sign_root};
use rand::Rng;
use serde::Serialize;
use tokio::task::JoinSet;

use super::{LoadError, patience, setup};
use crate::client::ClientError;
use crate::limits::{LOAD_IDLE_MAX, LOAD_SET_UP_AT_ONCE};
use crate::link::{Dialer, Link, LinkError, LinkEvent, LinkEvents};

/// How many connections, and for how long.
#[derive(Debug, Clone)]
pub struct IdleOptions {
    /// The server, with an invite of one use a connection where registration is not open.
    pub server: ServerUrl,
    /// Connections.
    pub connections: usize,
    /// How long they stay.
    pub duration: Duration,
}

/// What became of them.
#[derive(Debug, Clone, Serialize)]
pub struct IdleReport {
    /// Connections made.
    pub connections: usize,
    /// Connections that were still there at the end.
    pub held: usize,
    /// Until all were made, in seconds.
    pub set_up_s: f64,
    /// How long they stayed then, in seconds.
    pub held_s: f64,
}

/// Makes the connections and holds them. `progress` gets the number made, about once a second.
///
/// # Errors
/// The set-up failed.
pub async fn run_idle(options: IdleOptions, mut progress: impl FnMut(usize)) -> Result<IdleReport, LoadError> {
    if options.connections == 0 || options.connections > LOAD_IDLE_MAX {
        return Err(LoadError::Pairs);
    }
    let start = tokio::time::Instant::now();
    let dialers = setup::dialers(&options.server, options.connections)?;
    setup::reach(&dialers).await?;
    let run = setup::run_name();
    let mut pending = JoinSet::new();
    let mut held = Vec::with_capacity(options.connections);
    let mut told = start;
    for index in 0..options.connections {
        if pending.len() >= LOAD_SET_UP_AT_ONCE {
            held.extend(connected(&mut pending, options.connections).await?);
        }
        if told.elapsed() >= Duration::from_secs(1) {
            told = tokio::time::Instant::now();
            progress(held.len());
        }
        let dialer = Arc::clone(dialers.get(index % dialers.len()).expect("a remainder is below its divisor"));
        let (token, name) = (options.server.token.clone(), format!("{run}-{index}"));
        pending.spawn(async move { Box::pin(connect(&dialer, token, &name)).await });
    }
    while !pending.is_empty() {
        held.extend(connected(&mut pending, options.connections).await?);
    }
    progress(held.len());
    let set_up_s = start.elapsed().as_secs_f64();
    tokio::time::sleep(options.duration).await;
    let connections = held.len();
    let alive = held.iter_mut().filter_map(|(_, events)| is_alive(events).then_some(())).count();
    Ok(IdleReport { connections, held: alive, set_up_s, held_s: options.duration.as_secs_f64() })
}

type Connected = (Link, LinkEvents);

async fn connected(
    pending: &mut JoinSet<Result<Connected, ClientError>>,
    accounts: usize,
) -> Result<Option<Connected>, LoadError> {
    match pending.join_next().await {
        Some(Ok(result)) => result.map(Some).map_err(|error| setup::failed(error, accounts)),
        Some(Err(error)) => Err(LoadError::Client(ClientError::Thread(error.to_string()))),
        None => Ok(None),
    }
}

/// Only keys, no database: thousands of these must fit beside the server that they measure.
async fn connect(dialer: &Dialer, token: Option<Vec<u8>>, name: &str) -> Result<Connected, ClientError> {
    let [proof, mls, recovery] = [(); 3].map(|()| SigningKey::from_bytes(&rand::rng().random()));
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let time_ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let root_entry = sign_root(&proof, mls.verifying_key().as_bytes(), &recovery, time_ms)
        .map_err(|error| LinkError::Malformed(error.to_string()))?;
    let token = token.map_or_else(Bytes::new, Bytes::from);
    let register = Register { token, handle: name.to_owned(), root_entry, phone: None };
    patience::in_time(|| async { Ok(subscribe(dialer, &register, &proof).await?) }).await
}

async fn subscribe(dialer: &Dialer, register: &Register, proof: &SigningKey) -> Result<Connected, LinkError> {
    let mut unproven = dialer.connect().await?;
    let registered = unproven.register(register).await?;
    let claim = HelloClaim {
        server_name: String::new(),
        account: registered.account,
        device: registered.device,
        subscribe: true,
        cursor: Position::default(),
        epochs_digest: None,
        log_entries: 1,
        life: None,
        push_digest: None,
    };
    let (link, events, _) = unproven.prove(claim, proof).await?;
    Ok((link, events))
}

fn is_alive(events: &mut LinkEvents) -> bool {
    while let Some(event) = events.ready() {
        if matches!(event, LinkEvent::Closed(_)) {
            return false;
        }
    }
    true
}
