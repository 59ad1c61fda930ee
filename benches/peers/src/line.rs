//! One TLS connection with what was read and not understood yet, and what is to be written at once.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, ensure};
use bytes::BytesMut;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::certificate::{Certificate, HOST};
use crate::limits::READ_BYTES;

/// How connections are made: where to, and whom to trust.
#[derive(Clone)]
pub(crate) struct Dial {
    address: SocketAddr,
    connector: TlsConnector,
}

impl Dial {
    pub(crate) fn new(address: SocketAddr, certificate: &Certificate) -> anyhow::Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(certificate.der())?;
        let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        Ok(Self { address, connector: TlsConnector::from(Arc::new(config)) })
    }

    pub(crate) async fn connect(&self) -> anyhow::Result<Line> {
        let stream = TcpStream::connect(self.address).await.context("connect")?;
        stream.set_nodelay(true)?;
        let stream = self.connector.connect(ServerName::try_from(HOST)?, stream).await.context("TLS handshake")?;
        Ok(Line { stream, input: BytesMut::new(), output: BytesMut::new() })
    }
}

/// A connection.
pub(crate) struct Line {
    stream: TlsStream<TcpStream>,
    /// Read, and not taken yet.
    pub(crate) input: BytesMut,
    /// Not written yet.
    pub(crate) output: BytesMut,
}

impl Line {
    /// Writes all of the output: what was made ready together shares a record of TLS and a system call.
    pub(crate) async fn flush(&mut self) -> anyhow::Result<()> {
        if !self.output.is_empty() {
            self.stream.write_all_buf(&mut self.output).await.context("write")?;
            self.stream.flush().await.context("write")?;
        }
        Ok(())
    }

    /// Reads what there is, at least one byte.
    ///
    /// Cancel safety: nothing read is lost.
    pub(crate) async fn fill(&mut self) -> anyhow::Result<()> {
        self.input.reserve(READ_BYTES);
        let read = self.stream.read_buf(&mut self.input).await.context("read")?;
        ensure!(read > 0, "the server closed the connection");
        Ok(())
    }

    /// Says that nothing more comes, and waits for the server to close.
    pub(crate) async fn close(mut self) -> anyhow::Result<()> {
        self.flush().await?;
        self.stream.shutdown().await?;
        // Ends with the end or with an error: either way the server has closed.
        while self.fill().await.is_ok() {
            self.input.clear();
        }
        Ok(())
    }
}
