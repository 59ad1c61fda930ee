//! The server's certificate and its TLS configuration.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use gureum_proto::{ALPN, ServerUrl};
use rcgen::{CertificateParams, KeyPair, PKCS_ED25519, SerialNumber};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::ParsedCertificate;

use crate::config::TlsFiles;
use crate::files::{make_private_dir, read_small, write_private};
use crate::invite::ServerFile;

/// TLS 1.3 tickets that a client gets after a handshake: it needs one for the next connection.
const TICKETS_SENT: usize = 1;

/// Derives the key for stateless resets from the certificate's, which is kept and secret already.
const RESET_KEY_CONTEXT: &str = "gureum 2026-11 stateless reset key v1";

/// A certificate in use.
#[derive(Clone)]
pub(crate) struct Tls {
    /// For the QUIC endpoint.
    pub(crate) config: Arc<ServerConfig>,
    /// What a client pins, when no public authority vouches for the certificate: SHA-256 of its
    /// SubjectPublicKeyInfo.
    pub(crate) pin: Option<[u8; 32]>,
    /// The key for stateless resets (RFC 9000 §10.3), the same after a restart: a client whose connection is no longer
    /// known learns it at its next packet, instead of waiting for its idle timeout.
    pub(crate) reset_key: [u8; 32],
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("pin", &self.pin).finish_non_exhaustive()
    }
}

/// Why there is no certificate to serve.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    /// A file of it cannot be read or written.
    #[error("the TLS file {path}: {error}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The key of the self-signed certificate is gone, and clients know it.
    #[error(
        "{0} is missing: clients trust that key alone, so put it back from a backup. Or, to go on with a new one, which locks out everybody who has registered, remove `tls/` and `server.json` from the data directory and start again"
    )]
    KeyMissing(PathBuf),
    /// A file is not what it should be.
    #[error("the TLS file {path} is not usable: {why}")]
    Content {
        /// Which.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// Certificate and key do not serve.
    #[error("the TLS certificate {cert} and its key {key} cannot be used together: {why}")]
    Unusable {
        /// The certificate.
        cert: PathBuf,
        /// Its key.
        key: PathBuf,
        /// Why.
        why: String,
    },
}

impl TlsError {
    /// The file that it is about, as it is called in a data directory.
    pub(crate) fn place(&self) -> String {
        match self {
            Self::File { path, .. } | Self::Content { path, .. } | Self::KeyMissing(path) => {
                format!("tls/{}", path.file_name().unwrap_or_default().to_string_lossy())
            }
            Self::Unusable { .. } => "tls".to_owned(),
        }
    }
}

impl Tls {
    /// Loads the certificate from the operator's files, or the self-signed one of the data directory, which is made
    /// at the first start; `host` is the address that clients are told.
    ///
    /// # Errors
    /// A file is missing, malformed or cannot be written.
    pub(crate) fn load(data_dir: &Path, files: Option<&TlsFiles>, host: &str) -> Result<Self, TlsError> {
        let own = TlsFiles::own(data_dir);
        if files.is_none() {
            keep_self_signed(&own, host, was_given_out(data_dir))?;
        }
        let files = files.unwrap_or(&own);
        Self::read(files, files.cert == own.cert)
    }

    /// Whether the self-signed certificate of a data directory serves, if it is there whole; nothing is made.
    ///
    /// # Errors
    /// As at a start.
    pub(crate) fn inspect(data_dir: &Path) -> Result<(), TlsError> {
        let own = TlsFiles::own(data_dir);
        if own.cert.exists() && own.key.exists() { Self::read(&own, true).map(drop) } else { Ok(()) }
    }

    fn read(files: &TlsFiles, is_pinned: bool) -> Result<Self, TlsError> {
        let chain = read_chain(&files.cert)?;
        let leaf = chain.first().ok_or_else(|| content(&files.cert, "it holds no certificate"))?;
        let pin = is_pinned.then(|| spki_pin(leaf)).transpose().map_err(|why| content(&files.cert, why))?;
        let key = PrivateKeyDer::from_pem_slice(&read(&files.key)?).map_err(|error| content(&files.key, error))?;
        let reset_key = blake3::derive_key(RESET_KEY_CONTEXT, key.secret_der());
        let config = server_config(chain, key).map_err(|error| files.unusable(error))?;
        Ok(Self { config: Arc::new(config), pin, reset_key })
    }

    /// The server's address as clients take it.
    #[must_use]
    pub(crate) fn url(&self, (host, port): (String, u16)) -> ServerUrl {
        ServerUrl { host, port, pin: self.pin, token: None }
    }
}

impl TlsFiles {
    /// Where a data directory has its self-signed certificate.
    fn own(data_dir: &Path) -> Self {
        Self { cert: data_dir.join("tls/cert.pem"), key: data_dir.join("tls/key.pem") }
    }

    fn unusable(&self, why: impl ToString) -> TlsError {
        TlsError::Unusable { cert: self.cert.clone(), key: self.key.clone(), why: why.to_string() }
    }
}

fn server_config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ServerConfig, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![ALPN.as_bytes().to_vec()];
    // Resumption by tickets costs the server no memory. 0-RTT stays off: a Hello's proof needs the exporter, which
    // does not exist before the handshake is complete.
    config.ticketer = aws_lc_rs::Ticketer::new()?;
    config.send_tls13_tickets = TICKETS_SENT;
    config.max_early_data_size = 0;
    Ok(config)
}

/// Whether clients were told of a self-signed certificate. A file that does not read may have said so.
fn was_given_out(data_dir: &Path) -> bool {
    let pin = |server: ServerFile| server.url.parse::<ServerUrl>().map(|url| url.pin);
    match ServerFile::read(data_dir) {
        Ok(Some(server)) => !matches!(pin(server), Ok(None)),
        Ok(None) => false,
        Err(_) => true,
    }
}

fn keep_self_signed(files: &TlsFiles, host: &str, was_given_out: bool) -> Result<(), TlsError> {
    let unusable = |error: rcgen::Error| files.unusable(error);
    let key = match (files.cert.exists(), files.key.exists()) {
        (true, true) => return Ok(()),
        // Clients trust the key: any certificate of it serves as well.
        (false, true) => {
            let pem = String::from_utf8(read(&files.key)?).map_err(|error| content(&files.key, error))?;
            KeyPair::from_pem(&pem).map_err(|error| content(&files.key, error))?
        }
        (false, false) if !was_given_out => KeyPair::generate_for(&PKCS_ED25519).map_err(unusable)?,
        (_, false) => return Err(TlsError::KeyMissing(files.key.clone())),
    };
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    if !names.iter().any(|name| name == host) {
        names.push(host.to_owned());
    }
    let cert = self_signed(&key, names).map_err(unusable)?;
    let dir = files.key.parent().unwrap_or(Path::new("."));
    make_private_dir(dir).map_err(|error| TlsError::File { path: dir.to_owned(), error })?;
    let write = |path: &PathBuf, pem: String| {
        write_private(path, pem.as_bytes()).map_err(|error| TlsError::File { path: path.clone(), error })
    };
    if !files.key.exists() {
        write(&files.key, key.serialize_pem())?;
    }
    write(&files.cert, cert.pem())
}

fn self_signed(key: &KeyPair, names: Vec<String>) -> Result<rcgen::Certificate, rcgen::Error> {
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, "Gureum server");
    // Clients pin the key, so that the dates protect nothing; they must only not be in the way.
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2120, 1, 1);
    params.serial_number = Some(serial_number(key));
    params.self_signed(key)
}

/// Of 20 bytes for every key, the most that RFC 5280 §4.1.2.2 allows. DER leaves out leading zeros, so that with any
/// digest the certificate of one key in 256 is a byte shorter, and each handshake of that server with it.
fn serial_number(key: &KeyPair) -> SerialNumber {
    let mut serial = [0; 20];
    serial.copy_from_slice(&blake3::hash(key.public_key_raw()).as_bytes()[..20]);
    // Positive, and without a leading zero.
    serial[0] = (serial[0] & 0x3f) | 0x40;
    SerialNumber::from_slice(&serial)
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let file = |error| TlsError::File { path: path.to_owned(), error };
    read_small(path).map_err(file)?.ok_or_else(|| file(std::io::ErrorKind::NotFound.into()))
}

fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(path)?).collect();
    chain.map_err(|error| content(path, error))
}

fn content(path: &Path, why: impl ToString) -> TlsError {
    TlsError::Content { path: path.to_owned(), why: why.to_string() }
}

/// SHA-256 of a certificate's SubjectPublicKeyInfo: stays the same for as long as the key does.
///
/// # Errors
/// The certificate is malformed.
pub(crate) fn spki_pin(certificate: &CertificateDer<'_>) -> Result<[u8; 32], rustls::Error> {
    let spki = ParsedCertificate::try_from(certificate)?.subject_public_key_info();
    let digest = ::aws_lc_rs::digest::digest(&::aws_lc_rs::digest::SHA256, &spki);
    let pin = <[u8; 32]>::try_from(digest.as_ref());
    pin.map_err(|_| rustls::Error::General("SHA-256 has 32 bytes".into()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_self_signed_certificate_is_kept_with_its_pin() {
        let dir = tempfile::tempdir().unwrap();
        let first = Tls::load(dir.path(), None, "chat.example.org").unwrap();
        let again = Tls::load(dir.path(), None, "other.example.org").unwrap();
        assert!(first.pin.is_some());
        assert_eq!(first.pin, again.pin);
        let mode = dir.path().join("tls/key.pem").metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_certificate_from_files_has_no_pin() {
        let dir = tempfile::tempdir().unwrap();
        Tls::load(dir.path(), None, "localhost").unwrap();
        let files = TlsFiles { cert: dir.path().join("c.pem"), key: dir.path().join("k.pem") };
        std::fs::rename(dir.path().join("tls/cert.pem"), &files.cert).unwrap();
        std::fs::rename(dir.path().join("tls/key.pem"), &files.key).unwrap();
        assert_eq!(Tls::load(dir.path(), Some(&files), "localhost").unwrap().pin, None);
        assert!(!dir.path().join("tls/cert.pem").exists());
    }

    #[test]
    fn a_flipped_bit_of_the_key_or_certificate_is_refused_by_name_or_says_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let pin = Tls::load(dir.path(), None, "localhost").unwrap().pin;
        let mut refused = 0;
        for name in ["key.pem", "cert.pem"] {
            let path = dir.path().join("tls").join(name);
            let written = std::fs::read(&path).unwrap();
            for bit in 0..written.len() * 8 {
                let mut flipped = written.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                std::fs::write(&path, &flipped).unwrap();
                match Tls::load(dir.path(), None, "localhost") {
                    // Names, dates and the certificate's own signature, which nobody who has a pin looks at.
                    Ok(tls) => assert_eq!(tls.pin, pin, "bit {bit} of {name}"),
                    Err(error) => {
                        assert!(error.to_string().contains(name), "bit {bit} of {name}: {error}");
                        refused += 1;
                    }
                }
                assert_eq!(Tls::inspect(dir.path()).is_err(), Tls::load(dir.path(), None, "localhost").is_err());
            }
            std::fs::write(&path, written).unwrap();
        }
        assert!(refused > 0);
    }

    #[test]
    fn the_self_signed_certificate_is_of_one_length_for_every_key() {
        let lengths: std::collections::BTreeSet<usize> = (0..2000)
            .map(|_| {
                let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
                self_signed(&key, vec!["localhost".to_owned()]).unwrap().der().len()
            })
            .collect();
        assert_eq!(lengths.len(), 1, "{lengths:?}");
    }

    #[test]
    fn a_lost_key_is_not_replaced_in_silence() {
        let dir = tempfile::tempdir().unwrap();
        Tls::load(dir.path(), None, "localhost").unwrap();
        std::fs::remove_file(dir.path().join("tls/key.pem")).unwrap();
        let error = Tls::load(dir.path(), None, "localhost").unwrap_err().to_string();
        assert!(error.contains("key.pem is missing"), "{error}");
    }

    #[test]
    fn a_lost_certificate_is_made_anew_for_the_key_that_clients_trust() {
        let dir = tempfile::tempdir().unwrap();
        let first = Tls::load(dir.path(), None, "localhost").unwrap();
        let key = std::fs::read(dir.path().join("tls/key.pem")).unwrap();
        std::fs::remove_file(dir.path().join("tls/cert.pem")).unwrap();
        assert_eq!(Tls::load(dir.path(), None, "localhost").unwrap().pin, first.pin);
        assert_eq!(std::fs::read(dir.path().join("tls/key.pem")).unwrap(), key);
    }

    #[test]
    fn a_new_certificate_is_made_only_where_clients_know_of_none() {
        let said = |url: &str| {
            let dir = tempfile::tempdir().unwrap();
            let listen = "127.0.0.1:4433".parse().unwrap();
            let server =
                ServerFile { listen, url: url.into(), retention_ms: None, commit_retention_ms: None, invites: None };
            server.write(dir.path()).unwrap();
            Tls::load(dir.path(), None, "localhost").map(|tls| tls.pin.is_some()).map_err(|error| error.to_string())
        };
        let pinned = ServerUrl { host: "h".into(), port: 1, pin: Some([7; 32]), token: None }.to_string();
        for url in [pinned.as_str(), "what does not read"] {
            let error = said(url).unwrap_err();
            assert!(error.contains("key.pem is missing") && error.contains("`server.json`"), "{error}");
        }
        assert_eq!(said("gureum://h:1"), Ok(true), "the certificate of an authority was in use");
    }

    #[test]
    fn a_file_that_is_no_certificate_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let files = TlsFiles { cert: dir.path().join("c.pem"), key: dir.path().join("k.pem") };
        std::fs::write(&files.cert, "nothing").unwrap();
        let error = Tls::load(dir.path(), Some(&files), "localhost").unwrap_err().to_string();
        assert!(error.contains("c.pem is not usable: it holds no certificate"), "{error}");
    }

    #[test]
    fn only_our_protocol_and_no_early_data() {
        let dir = tempfile::tempdir().unwrap();
        let config = Tls::load(dir.path(), None, "localhost").unwrap().config;
        assert_eq!(config.alpn_protocols, [ALPN.as_bytes()]);
        assert_eq!(config.max_early_data_size, 0);
        assert!(config.ticketer.enabled());
        let groups = &config.crypto_provider().kx_groups;
        assert_eq!(groups.first().map(|group| group.name()), Some(rustls::NamedGroup::X25519MLKEM768));
    }
}
