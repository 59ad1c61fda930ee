//! The arguments of `gureum push`.

use std::net::SocketAddr;
use std::path::PathBuf;

use bytes::Bytes;
use clap::{Args as ClapArgs, Subcommand};
use data_encoding::{BASE64URL_NOPAD, HEXLOWER_PERMISSIVE};
use gureum_client::is_p256dh;
use gureum_proto::{PushAddress, PushTarget};

#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  gureum push listen
  gureum push set web https://push.example.org/a1b2 --p256dh BLn9… --auth _ord…
  gureum push show
  gureum push clear

What wakes a device says nothing but that there is something: no sender, no text, no number. The server keeps the target \
sealed, forgets it when the device is revoked or the push service does not know it any more, and says so.")]
pub(crate) struct PushArgs {
    #[command(subcommand)]
    pub(crate) command: PushCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PushCommand {
    /// Be woken at a push service; one target a device, the newest counts
    Set(SetArgs),
    /// Be woken no more
    Clear,
    /// Print where this device is woken, and what the server offers
    Show,
    /// Be woken here: a receiver of Web Push that prints each wake-up
    Listen(ListenArgs),
}

#[derive(Debug, ClapArgs)]
pub(crate) struct SetArgs {
    #[command(subcommand)]
    pub(crate) service: PushSet,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PushSet {
    /// At Apple's push service
    Apns {
        /// The device token, in hexadecimal
        #[arg(value_parser = apns_token)]
        token: Bytes,
        /// The token is of a development build
        #[arg(long)]
        sandbox: bool,
        #[command(flatten)]
        how: How,
    },
    /// At Google's push service
    Fcm {
        /// The registration token
        #[arg(value_parser = fcm_token)]
        token: String,
        #[command(flatten)]
        how: How,
    },
    /// At any service of Web Push: a browser's, or a UnifiedPush distributor
    Web {
        /// The push resource: https://…
        #[arg(value_parser = endpoint)]
        endpoint: String,
        /// The receiver's public key: P-256, uncompressed, base64url
        #[arg(long, value_name = "KEY", value_parser = p256dh, allow_hyphen_values = true)]
        p256dh: P256dh,
        /// The secret shared with the receiver: 16 bytes, base64url
        #[arg(long, value_name = "SECRET", value_parser = auth, allow_hyphen_values = true)]
        auth: AuthSecret,
        #[command(flatten)]
        how: How,
    },
}

#[derive(Debug, Clone, Copy, ClapArgs)]
pub(crate) struct How {
    /// Only let the app run, and show nothing: more seldom
    #[arg(long)]
    pub(crate) silent: bool,
}

#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  gureum push listen
  gureum push listen --listen 0.0.0.0:8443 --cert cert.pem --key key.pem --url https://me.example.org:8443
  gureum --json push listen --once

Runs beside `gureum receive`, and takes nothing from the inbox. Ends with Ctrl-C, and then nothing wakes this device any \
more. On a loopback address it speaks plain HTTP, which a server takes that is allowed to reach private addresses \
(push_private_endpoints = \"allow\"); elsewhere it needs a certificate, or a proxy that has one, and --url.")]
pub(crate) struct ListenArgs {
    /// Where to listen; port 0: any that is free
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    pub(crate) listen: SocketAddr,

    /// PEM file with the certificate and those that vouch for it
    #[arg(long, value_name = "FILE", requires = "key")]
    pub(crate) cert: Option<PathBuf>,

    /// PEM file with the certificate's key
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub(crate) key: Option<PathBuf>,

    /// Where the server reaches this receiver, if not at the address that it listens on
    #[arg(long, value_name = "URL", value_parser = base)]
    pub(crate) url: Option<String>,

    /// End after the first wake-up
    #[arg(long)]
    pub(crate) once: bool,

    /// Ask for silent wake-ups, which come more seldom
    #[arg(long)]
    pub(crate) silent: bool,
}

/// A receiver's public key, as a point.
#[derive(Debug, Clone, Copy)]
pub(crate) struct P256dh(pub(crate) [u8; 65]);

/// The secret that a receiver shares with who sends to it.
#[derive(Clone, Copy)]
pub(crate) struct AuthSecret(pub(crate) [u8; 16]);

impl std::fmt::Debug for AuthSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AuthSecret(..)")
    }
}

impl PushSet {
    /// The target that it names.
    pub(crate) fn target(self) -> PushTarget {
        let (address, how) = match self {
            Self::Apns { token, sandbox, how } => (PushAddress::Apns { token, sandbox }, how),
            Self::Fcm { token, how } => (PushAddress::Fcm { token }, how),
            Self::Web { endpoint, p256dh: P256dh(p256dh), auth: AuthSecret(auth), how } => {
                (PushAddress::WebPush { endpoint, p256dh, auth }, how)
            }
        };
        PushTarget { address, visible: !how.silent }
    }
}

/// Whether a service can have given an address.
fn check(address: PushAddress) -> Result<(), String> {
    PushTarget { address, visible: true }.check().map_err(|error| error.to_string())
}

fn apns_token(text: &str) -> Result<Bytes, String> {
    let token = HEXLOWER_PERMISSIVE.decode(text.as_bytes()).map_err(|_| "it has digits that are not hexadecimal")?;
    let token = Bytes::from(token);
    check(PushAddress::Apns { token: token.clone(), sandbox: false })?;
    Ok(token)
}

fn fcm_token(text: &str) -> Result<String, String> {
    check(PushAddress::Fcm { token: text.to_owned() })?;
    Ok(text.to_owned())
}

fn endpoint(text: &str) -> Result<String, String> {
    check(PushAddress::WebPush { endpoint: text.to_owned(), p256dh: [0; 65], auth: [0; 16] })?;
    Ok(text.to_owned())
}

/// The part of an endpoint before the path that is this receiver's secret.
fn base(text: &str) -> Result<String, String> {
    if text.contains('?') {
        return Err("it has a query".to_owned());
    }
    endpoint(text).map(|url| url.trim_end_matches('/').to_owned())
}

fn p256dh(text: &str) -> Result<P256dh, String> {
    let key = fixed(text)?;
    if is_p256dh(&key) { Ok(P256dh(key)) } else { Err("it is no point of the curve P-256".to_owned()) }
}

fn auth(text: &str) -> Result<AuthSecret, String> {
    fixed(text).map(AuthSecret)
}

/// So many bytes in base64url, with or without its padding.
fn fixed<const N: usize>(text: &str) -> Result<[u8; N], String> {
    let bytes = BASE64URL_NOPAD.decode(text.trim_end_matches('=').as_bytes()).map_err(|_| "it is not base64url")?;
    let len = bytes.len();
    bytes.try_into().map_err(|_| format!("it has {len} bytes instead of {N}"))
}
