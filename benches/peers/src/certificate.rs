//! One self-signed certificate for all peers, so that TLS costs each of them the same.

use std::path::{Path, PathBuf};

use anyhow::Context;
use rustls::pki_types::CertificateDer;

/// The name in the certificate, and the host that ejabberd serves.
pub(crate) const HOST: &str = "localhost";

/// The certificate, and the files that servers read.
pub(crate) struct Certificate {
    der: CertificateDer<'static>,
    /// PEM.
    pub(crate) certificate: PathBuf,
    /// PEM.
    pub(crate) key: PathBuf,
    /// Both in one file.
    pub(crate) both: PathBuf,
}

impl Certificate {
    /// ECDSA P-256, which all of the peers can use.
    pub(crate) fn make(directory: &Path) -> anyhow::Result<Self> {
        let made = rcgen::generate_simple_self_signed([HOST.to_owned()])?;
        let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        let write = |name: &str, text: &str| {
            let path = directory.join(name);
            std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
            anyhow::Ok(path)
        };
        Ok(Self {
            der: made.cert.der().clone(),
            certificate: write("certificate.pem", &certificate)?,
            key: write("key.pem", &key)?,
            both: write("both.pem", &format!("{certificate}{key}"))?,
        })
    }

    pub(crate) fn der(&self) -> CertificateDer<'static> {
        self.der.clone()
    }
}
