//! Accounts, conversations and connections, before the clock starts.

use std::path::Path;
use std::sync::Arc;

use gureum_proto::{Code, Handle, ServerUrl};
use rand::Rng;
use tempfile::TempDir;
use tokio::task::JoinSet;

use super::{LoadError, LoadOptions, patience};
use crate::client::{Client, ClientError, NewAccount};
use crate::limits::{LOAD_CONNECTIONS_PER_SOCKET, LOAD_SET_UP_AT_ONCE};
use crate::link::Dialer;
use crate::vault::{Conversation, KeySource};

/// Two accounts with a conversation, and how to reach the server.
pub(super) struct Pair {
    pub(super) sender: Client,
    pub(super) receiver: Client,
    pub(super) receiver_handle: Handle,
    pub(super) conversation: Conversation,
    pub(super) dialer: Arc<Dialer>,
}

/// A directory for the keys and databases; in memory where there is one, since the disk is the server's.
pub(super) fn directory() -> std::io::Result<TempDir> {
    let builder = || {
        let mut builder = tempfile::Builder::new();
        builder.prefix("gureum-load-");
        builder
    };
    builder().tempdir_in("/dev/shm").or_else(|_| builder().tempdir())
}

/// A name that no other load tester has taken.
pub(super) fn run_name() -> String {
    let number: u32 = rand::rng().random();
    format!("load-{number:08x}")
}

/// Registers everybody, some at a time.
pub(super) async fn pairs(options: &LoadOptions, homes: &Path) -> Result<Vec<Pair>, LoadError> {
    let accounts = options.pairs * 2;
    let run = run_name();
    let dialers = dialers(&options.server, options.pairs)?;
    reach(&dialers).await?;
    let mut pending = JoinSet::new();
    let mut pairs = Vec::with_capacity(options.pairs);
    for index in 0..options.pairs {
        if pending.len() >= LOAD_SET_UP_AT_ONCE {
            collect(&mut pending, &mut pairs, accounts).await?;
        }
        let dialer = dialers.get(index % dialers.len()).expect("a remainder is below its divisor");
        let (server, dialer) = (options.server.clone(), Arc::clone(dialer));
        let (run, homes) = (format!("{run}-{index}"), homes.to_owned());
        pending.spawn(async move { Box::pin(pair(server, dialer, &run, &homes)).await });
    }
    while !pending.is_empty() {
        collect(&mut pending, &mut pairs, accounts).await?;
    }
    Ok(pairs)
}

/// One socket for some connections, as many clients behind one address have it.
pub(super) fn dialers(server: &ServerUrl, connections: usize) -> Result<Vec<Arc<Dialer>>, LoadError> {
    let server = ServerUrl { token: None, ..server.clone() };
    (0..connections.div_ceil(LOAD_CONNECTIONS_PER_SOCKET).max(1))
        .map(|_| Dialer::new(server.clone()).map(Arc::new).map_err(|error| LoadError::Client(error.into())))
        .collect()
}

/// Fails where there is no server.
pub(super) async fn reach(dialers: &[Arc<Dialer>]) -> Result<(), LoadError> {
    let first = dialers.first().expect("there is at least one");
    patience::reach(first).await.map_err(LoadError::Client)
}

async fn collect(
    pending: &mut JoinSet<Result<Pair, ClientError>>,
    pairs: &mut Vec<Pair>,
    accounts: usize,
) -> Result<(), LoadError> {
    match pending.join_next().await {
        Some(Ok(Ok(pair))) => pairs.push(pair),
        Some(Ok(Err(error))) => return Err(failed(error, accounts)),
        Some(Err(error)) => return Err(LoadError::Client(ClientError::Thread(error.to_string()))),
        None => (),
    }
    Ok(())
}

/// The error of a registration, in terms of the load.
pub(super) fn failed(error: ClientError, accounts: usize) -> LoadError {
    match error.code() {
        Some(Code::InviteUsed | Code::InviteInvalid) => LoadError::Invite { accounts },
        _ => LoadError::Client(error),
    }
}

async fn pair(server: ServerUrl, dialer: Arc<Dialer>, name: &str, homes: &Path) -> Result<Pair, ClientError> {
    let handle = |end: &str| format!("{name}{end}").parse::<Handle>();
    let (sender_handle, receiver_handle) = (handle("a")?, handle("b")?);
    let receiver = register(&server, &receiver_handle, homes).await?;
    let sender = register(&server, &sender_handle, homes).await?;
    let conversation = patience::in_time(|| sender.begin_conversation(&dialer, &receiver_handle)).await?;
    Ok(Pair { sender, receiver, receiver_handle, conversation, dialer })
}

async fn register(server: &ServerUrl, handle: &Handle, homes: &Path) -> Result<Client, ClientError> {
    let home = homes.join(handle.as_str());
    let account = NewAccount { invite: server.clone(), handle: handle.clone(), device_name: "load".to_owned() };
    let registration = patience::in_time(|| Client::register(&home, KeySource::File, account.clone())).await?;
    // What is measured are the messages that are asked for, and no others.
    registration.client.set_receipts(false).await?;
    Ok(registration.client)
}
