//! The address of a server as people pass it on: `gureum://HOST:PORT[/invite/TOKEN][#PIN]`.

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE64URL_NOPAD;

use crate::limits::{SERVER_NAME_BYTES_MAX, TOKEN_BYTES_MAX};

const SCHEME: &str = "gureum://";
const INVITE: &str = "/invite/";
/// The port that is meant when an address names none.
const DEFAULT_PORT: u16 = 4433;

/// A server's address, the pin of its key and, in an invite, the token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerUrl {
    /// A DNS name or an IP address (IPv6 without brackets).
    pub host: String,
    /// The UDP port.
    pub port: u16,
    /// SHA-256 of the server certificate's SubjectPublicKeyInfo; without it the certificate must chain to a
    /// public authority.
    pub pin: Option<[u8; 32]>,
    /// The invite's token.
    pub token: Option<Vec<u8>>,
}

/// Text that is no address of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Nothing before the port, or something too long.
    #[error("a server's address looks like gureum://HOST:PORT#PIN; the host is missing")]
    Host,
    /// The port is no number from 1 to 65535.
    #[error("the port of a server's address is a number from 1 to 65535")]
    Port,
    /// The part after `#`.
    #[error("the pin after # has 43 characters of base64url; copy the whole address")]
    Pin,
    /// A path that is no invite.
    #[error("the invite in the address is not whole; copy the whole address")]
    Invite,
}

impl FromStr for ServerUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let text = text.trim();
        let text = text.strip_prefix(SCHEME).unwrap_or(text);
        let (rest, pin) = match text.split_once('#') {
            Some((rest, pin)) => (rest, Some(decode_pin(pin)?)),
            None => (text, None),
        };
        let (address, token) = match rest.split_once('/') {
            Some((address, "")) => (address, None),
            Some((address, _)) => {
                let token = rest.strip_prefix(address).and_then(|path| path.strip_prefix(INVITE));
                (address, Some(decode_token(token.ok_or(UrlError::Invite)?)?))
            }
            None => (rest, None),
        };
        let (host, port) = split_address(address)?;
        Ok(Self { host: host.to_owned(), port, pin, token })
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (open, close) = if self.host.contains(':') { ("[", "]") } else { ("", "") };
        write!(f, "{SCHEME}{open}{}{close}:{}", self.host, self.port)?;
        if let Some(token) = &self.token {
            write!(f, "{INVITE}{}", BASE64URL_NOPAD.encode(token))?;
        }
        if let Some(pin) = &self.pin {
            write!(f, "#{}", BASE64URL_NOPAD.encode(pin))?;
        }
        Ok(())
    }
}

fn split_address(address: &str) -> Result<(&str, u16), UrlError> {
    let (host, port) = match address.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']').ok_or(UrlError::Host)?;
            let port = if rest.is_empty() { None } else { Some(rest.strip_prefix(':').ok_or(UrlError::Port)?) };
            (host, port)
        }
        None => match address.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (address, None),
        },
    };
    let port = port.map_or(Ok(DEFAULT_PORT), |port| port.parse().map_err(|_| UrlError::Port))?;
    let is_host = |c: char| !c.is_whitespace() && !c.is_control() && !matches!(c, '[' | ']');
    if host.is_empty() || host.len() > SERVER_NAME_BYTES_MAX || !host.chars().all(is_host) {
        return Err(UrlError::Host);
    }
    if port == 0 { Err(UrlError::Port) } else { Ok((host, port)) }
}

fn decode_pin(text: &str) -> Result<[u8; 32], UrlError> {
    let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).map_err(|_| UrlError::Pin)?;
    <[u8; 32]>::try_from(bytes).map_err(|_| UrlError::Pin)
}

fn decode_token(text: &str) -> Result<Vec<u8>, UrlError> {
    let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).map_err(|_| UrlError::Invite)?;
    if bytes.is_empty() || bytes.len() > TOKEN_BYTES_MAX { Err(UrlError::Invite) } else { Ok(bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(host: &str, port: u16) -> ServerUrl {
        ServerUrl { host: host.into(), port, pin: Some([7; 32]), token: Some(vec![1, 2, 3]) }
    }

    #[test]
    fn round_trips() {
        for url in [url("127.0.0.1", 1), url("chat.example.org", 4433), url("::1", 65535)] {
            assert_eq!(url.to_string().parse(), Ok(url.clone()));
            let plain = ServerUrl { pin: None, token: None, ..url };
            assert_eq!(plain.to_string().parse(), Ok(plain));
        }
    }

    #[test]
    fn takes_an_address_without_scheme_or_port() {
        let parsed: ServerUrl = "chat.example.org".parse().unwrap();
        assert_eq!((parsed.host.as_str(), parsed.port), ("chat.example.org", 4433));
    }

    #[test]
    fn says_which_part_is_wrong() {
        for (text, error) in [
            ("gureum://:1", UrlError::Host),
            ("gureum://a:b", UrlError::Port),
            ("gureum://a:0", UrlError::Port),
            ("gureum://[::1]5", UrlError::Port),
            ("gureum://::1", UrlError::Port),
            ("gureum://[::1", UrlError::Host),
            ("gureum://[a]b]:5", UrlError::Port),
            ("gureum://a]", UrlError::Host),
            ("gureum://a:1#short", UrlError::Pin),
            ("gureum://a:1/invite/", UrlError::Invite),
            ("gureum://a:1/other", UrlError::Invite),
        ] {
            assert_eq!(text.parse::<ServerUrl>(), Err(error), "{text}");
        }
    }
}
