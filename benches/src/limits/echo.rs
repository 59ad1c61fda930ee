//! The bare transport: the server's endpoint, and behind it nothing but what sends each byte back.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use anyhow::Result;
use bytes::Bytes;
use gureum_server::bare;
use quinn::{Connection, Endpoint, Incoming};
use serde_json::json;
use tokio::io::AsyncReadExt;

/// Pieces of a stream that are taken at once, each of one packet: with fewer, a wake-up brings less.
const CHUNKS_MAX: usize = 32;

/// Serves on a free port of this machine until standard input ends, with the certificate of a data directory and a runtime
/// as the server has it. Says on standard output where.
///
/// # Errors
/// There is no endpoint.
pub fn serve(data_dir: &Path) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let endpoint = bare::endpoint(data_dir, SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        println!("{}", json!({ "listen": endpoint.local_addr()?.to_string() }));
        let serving = tokio::spawn(accept(endpoint));
        tokio::io::stdin().read_to_end(&mut Vec::new()).await?;
        serving.abort();
        Ok(())
    })
}

/// Sends back what comes on any stream of any connection.
pub async fn accept(endpoint: Endpoint) {
    while let Some(incoming) = endpoint.accept().await {
        tokio::spawn(connected(incoming));
    }
}

async fn connected(incoming: Incoming) {
    // A peer that goes, at any time, ends its task and nothing else.
    let Ok(connecting) = incoming.accept() else { return };
    let Ok(connection) = connecting.await else { return };
    bare::widen(&connection);
    let _ = echo(connection).await;
}

async fn echo(connection: Connection) -> Result<()> {
    loop {
        let (mut output, mut input) = connection.accept_bi().await?;
        let mut chunks: Vec<Bytes> = vec![Bytes::new(); CHUNKS_MAX];
        while let Some(count) = input.read_chunks(&mut chunks).await? {
            let Some(read) = chunks.get_mut(..count) else { break };
            output.write_all_chunks(read).await?;
        }
    }
}
