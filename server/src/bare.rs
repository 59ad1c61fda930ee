//! The parts that the server stands on, each by itself and with the server's own settings: what it adds to their cost can be
//! measured against them.

use std::net::SocketAddr;
use std::path::Path;

use quinn::{Connection, Endpoint, VarInt};
use rocksdb::{DB, Options};

use crate::limits::CONNECTION_WINDOW_BYTES;
use crate::listen;
use crate::store::rocks;
use crate::store::{Expiry, StoreError};
use crate::tls::Tls;

/// Why there is no endpoint.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct EndpointError(String);

/// The server's endpoint: its transport, TLS and socket, with the self-signed certificate of a data directory, which is made
/// if it is not there. It must be called within a runtime.
///
/// # Errors
/// The certificate cannot be read or written, or the address cannot be had.
pub fn endpoint(data_dir: &Path, address: SocketAddr) -> Result<Endpoint, EndpointError> {
    let tls = Tls::load(data_dir, None, "localhost").map_err(|error| EndpointError(error.to_string()))?;
    listen::bind(address, &tls, None).map_err(|error| EndpointError(error.to_string()))
}

/// Gives a connection the room that a device has which has proven itself.
pub fn widen(connection: &Connection) {
    connection.set_receive_window(VarInt::from_u32(CONNECTION_WINDOW_BYTES));
}

/// A database with the families and settings of the store; and those settings, which hold its counters.
///
/// # Errors
/// What the disk says.
pub fn database(directory: &Path, expiry: &Expiry) -> Result<(DB, Options), StoreError> {
    rocks::bare(directory, expiry)
}
