//! One self-signed certificate for all peers, so that TLS costs each of them the same.

use std::path::{Path, PathBuf};

use anyhow::Context;
use rcgen::{CertificateParams, KeyPair, date_time_ymd};
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
        let mut parameters = CertificateParams::new([HOST.to_owned()])?;
        // ejabberd sets a timer for its end, and cannot for that of year 4096.
        parameters.not_after = date_time_ymd(2050, 1, 1);
        let pair = KeyPair::generate()?;
        let made = parameters.self_signed(&pair)?;
        let (certificate, key) = (made.pem(), pair.serialize_pem());
        let write = |name: &str, text: &str| {
            let path = directory.join(name);
            std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
            anyhow::Ok(path)
        };
        Ok(Self {
            der: made.der().clone(),
            certificate: write("certificate.pem", &certificate)?,
            key: write("key.pem", &key)?,
            both: write("both.pem", &format!("{certificate}{key}"))?,
        })
    }

    pub(crate) fn der(&self) -> CertificateDer<'static> {
        self.der.clone()
    }
}
