//! What can go wrong with a connection, and what the client does about each.

use gureum_proto::{Code, Fault, Refusal};
use gureum_wire::FrameError;
use quinn::{ConnectionError, ReadError, TransportErrorCode, WriteError};

use crate::limits::RETRY_AFTER_MAX_MS;

/// The codes in which QUIC carries the alerts of TLS (RFC 9001 §4.8).
const TLS_ALERTS: std::ops::Range<u64> = 0x100..0x200;

/// Why a connection, or a request on it, failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// Nothing answers there.
    #[error("cannot reach {address}: {reason}; check the address, that the server runs, and that UDP passes")]
    Unreachable {
        /// Host and port.
        address: String,
        /// What was tried.
        reason: String,
    },
    /// The server has another key than its address says.
    #[error(
        "the server at {address} does not have the key that its address names: somebody may be in between, or the \
         server was set up anew; ask its operator for a new address"
    )]
    WrongPin {
        /// Host and port.
        address: String,
    },
    /// TLS failed otherwise.
    #[error(
        "no secure connection to {address}: {reason}; an address without the pin after its # needs a certificate of a public authority"
    )]
    Tls {
        /// Host and port.
        address: String,
        /// What the TLS library says.
        reason: String,
    },
    /// The server closed the connection, or reset a stream, and said why.
    #[error("the server closed the connection: {}", said(code.text(), reason))]
    Closed {
        /// Its code.
        code: Code,
        /// Its sentence, or nothing.
        reason: String,
    },
    /// A request is refused.
    #[error(transparent)]
    Refused(Refusal),
    /// The connection ended by itself.
    #[error("the connection to the server was lost: {0}")]
    Lost(String),
    /// No answer in time.
    #[error("the server took too long with {0}; try again")]
    Timeout(&'static str),
    /// The server broke the protocol.
    #[error("the server sent what this client does not understand ({0}); update the client")]
    Malformed(String),
    /// This device has more in flight than the server allows.
    #[error("too many messages wait for the server's answer")]
    Full,
    /// The device's own network does not work.
    #[error("cannot use the network: {0}")]
    Socket(String),
}

/// What a code means, and what the server says beyond that.
fn said(text: &str, reason: &str) -> String {
    if reason.is_empty() || reason == text { text.to_owned() } else { format!("{text}: {reason}") }
}

impl LinkError {
    /// The code that the server gave, if it gave one.
    #[must_use]
    pub const fn code(&self) -> Option<Code> {
        match self {
            Self::Closed { code, .. } => Some(*code),
            Self::Refused(refusal) => Some(refusal.code),
            _ => None,
        }
    }

    /// Whether connecting again can help.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Closed { code, .. } => match code {
                Code::Displaced => false,
                // Both follow from a connection that stalled, which the next one need not do.
                Code::Done | Code::ProofTimeout | Code::TooSlow => true,
                _ => matches!(code.fault(), Fault::World | Fault::Server),
            },
            Self::Refused(refusal) => {
                refusal.retry_after_ms > 0 || matches!(refusal.code.fault(), Fault::World | Fault::Server)
            }
            Self::Unreachable { .. } | Self::Lost(_) | Self::Timeout(_) | Self::Socket(_) => true,
            Self::WrongPin { .. } | Self::Tls { .. } | Self::Malformed(_) | Self::Full => false,
        }
    }

    /// Whether the server said no, and would again. A connection that ended has said nothing about a request on it.
    #[must_use]
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Refused(_)) && !self.is_temporary()
    }

    /// How long the server wants to be left alone, in milliseconds, within reason; 0: it did not say.
    #[must_use]
    pub const fn retry_after_ms(&self) -> u64 {
        match self {
            Self::Refused(refusal) if refusal.retry_after_ms > RETRY_AFTER_MAX_MS => RETRY_AFTER_MAX_MS,
            Self::Refused(refusal) => refusal.retry_after_ms,
            _ => 0,
        }
    }

    /// Why a handshake with an address failed.
    pub(super) fn of_handshake(error: ConnectionError, address: String) -> Self {
        let (code, reason) = match &error {
            ConnectionError::TransportError(error) => (error.code, error.to_string()),
            ConnectionError::ConnectionClosed(close) => (close.error_code, close.to_string()),
            ConnectionError::ApplicationClosed(_) => return error.into(),
            other => return Self::Unreachable { address, reason: other.to_string() },
        };
        match code {
            TransportErrorCode::CONNECTION_REFUSED => {
                let reason = "it takes no more connections now".to_owned();
                Self::Unreachable { address, reason }
            }
            code if TLS_ALERTS.contains(&u64::from(code)) => Self::Tls { address, reason },
            _ => Self::Unreachable { address, reason },
        }
    }

    fn of_code(number: u64, reason: &[u8]) -> Self {
        let reason = String::from_utf8_lossy(reason).chars().filter(|c| !c.is_control()).collect();
        match Code::from_number(number) {
            Some(code) => Self::Closed { code, reason },
            None => Self::Lost(format!("the server closed it with the unknown code {number}")),
        }
    }
}

impl From<ConnectionError> for LinkError {
    fn from(error: ConnectionError) -> Self {
        match error {
            ConnectionError::ApplicationClosed(close) => Self::of_code(close.error_code.into_inner(), &close.reason),
            ConnectionError::TimedOut => Self::Lost("nothing was heard from the server for a while".to_owned()),
            ConnectionError::LocallyClosed => Self::Lost("this side closed it".to_owned()),
            other => Self::Lost(other.to_string()),
        }
    }
}

impl From<ReadError> for LinkError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::ConnectionLost(error) => error.into(),
            ReadError::Reset(code) => Self::of_code(code.into_inner(), b""),
            other => Self::Lost(other.to_string()),
        }
    }
}

impl From<WriteError> for LinkError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::ConnectionLost(error) => error.into(),
            WriteError::Stopped(code) => Self::of_code(code.into_inner(), b""),
            other => Self::Lost(other.to_string()),
        }
    }
}

impl From<FrameError> for LinkError {
    fn from(error: FrameError) -> Self {
        Self::Malformed(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(code: Code, temporary: bool) {
        assert_eq!(LinkError::of_code(u64::from(code.number()), b"").is_temporary(), temporary, "{code:?}");
    }

    #[test]
    fn comes_back_only_where_that_can_help() {
        check(Code::Stopping, true);
        check(Code::RateLimited, true);
        check(Code::Unavailable, true);
        check(Code::Internal, true);
        check(Code::TooSlow, true);
        check(Code::Displaced, false);
        check(Code::DeviceRevoked, false);
        check(Code::DeviceCopied, false);
        check(Code::DeviceUnknown, false);
        check(Code::AccountGone, false);
        check(Code::VersionUnsupported, false);
        check(Code::ProofInvalid, false);
    }

    #[test]
    fn a_server_without_room_is_tried_again_and_one_without_trust_is_not() {
        let closed = |error_code| {
            ConnectionError::ConnectionClosed(quinn::ConnectionClose {
                error_code,
                frame_type: None,
                reason: bytes::Bytes::new(),
            })
        };
        let handshake = |error| LinkError::of_handshake(error, "here".to_owned());
        assert!(handshake(closed(TransportErrorCode::CONNECTION_REFUSED)).is_temporary());
        assert!(handshake(closed(TransportErrorCode::INTERNAL_ERROR)).is_temporary());
        assert!(handshake(ConnectionError::TimedOut).is_temporary());
        let unknown_issuer = closed(TransportErrorCode::crypto(48));
        assert!(matches!(handshake(unknown_issuer), LinkError::Tls { .. }));
    }

    #[test]
    fn a_refusal_with_a_time_may_be_tried_again() {
        let refusal = Refusal::new(Code::LimitReached).retry_after_ms(50);
        assert!(LinkError::Refused(refusal.clone()).is_temporary());
        assert_eq!(LinkError::Refused(refusal).retry_after_ms(), 50);
        assert!(!LinkError::Refused(Refusal::new(Code::LimitReached)).is_temporary());
    }

    #[test]
    fn only_a_refusal_is_final() {
        assert!(LinkError::Refused(Refusal::new(Code::CommitInvalid)).is_final());
        assert!(!LinkError::Refused(Refusal::new(Code::Unavailable)).is_final());
        for code in [Code::Displaced, Code::DeviceRevoked, Code::PayloadMalformed] {
            assert!(!LinkError::of_code(u64::from(code.number()), b"").is_final(), "{code:?}");
        }
        assert!(!LinkError::Malformed(String::new()).is_final());
    }

    #[test]
    fn no_server_sends_its_clients_away_for_ever() {
        let refusal = Refusal::new(Code::RateLimited).retry_after_ms(u64::MAX);
        assert_eq!(LinkError::Refused(refusal).retry_after_ms(), 3_600_000);
    }

    #[test]
    fn a_close_without_a_known_code_is_a_lost_connection() {
        assert!(matches!(LinkError::of_code(9_999, b""), LinkError::Lost(_)));
    }

    #[test]
    fn a_close_shows_no_control_characters_of_the_server() {
        let shown = LinkError::of_code(2, b"back \x1b[31msoon").to_string();
        assert_eq!(shown, "the server closed the connection: the server is stopping; come back later: back [31msoon");
    }

    #[test]
    fn a_close_says_once_what_its_code_says() {
        let revoked = Code::DeviceRevoked;
        for reason in ["", revoked.text()] {
            let shown = LinkError::of_code(u64::from(revoked.number()), reason.as_bytes()).to_string();
            assert_eq!(shown, "the server closed the connection: this device was revoked");
        }
    }
}
