//! What a server says of itself on its admin listener.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::wait::SOON;

/// The admin listener of a server.
#[derive(Debug, Clone, Copy)]
pub struct Admin(pub SocketAddr);

impl Admin {
    /// Gets a page: its status and its body.
    ///
    /// # Panics
    /// If nothing answers.
    #[must_use]
    pub fn get(&self, path: &str) -> (u16, String) {
        self.try_get(path).unwrap()
    }

    /// Gets a page from a server that may be gone.
    ///
    /// # Errors
    /// Nothing answers.
    pub fn try_get(&self, path: &str) -> io::Result<(u16, String)> {
        let mut stream = TcpStream::connect(self.0)?;
        stream.set_read_timeout(Some(SOON))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: gureum\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        Ok((status, body.to_owned()))
    }

    /// The value of a metric, named with its labels as `/metrics` writes it; 0 when it was never moved.
    #[must_use]
    pub fn metric(&self, name: &str) -> f64 {
        let (status, text) = self.get("/metrics");
        assert_eq!(status, 200);
        let of_line = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok();
        text.lines().find_map(of_line).unwrap_or(0.0)
    }

    /// A counter's value.
    #[must_use]
    pub fn count(&self, name: &str) -> u64 {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a counter is a whole number")]
        let count = self.metric(name) as u64;
        count
    }

    /// Whether the server is ready, and what it says when it is not.
    #[must_use]
    pub fn ready(&self) -> (bool, String) {
        let (status, body) = self.get("/readyz");
        (status == 200, body)
    }
}
