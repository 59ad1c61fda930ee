//! Whose certificates are trusted: Mozilla's roots, and those that the operator adds.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::files::read_small;

/// Roots of trust.
#[derive(Debug, Clone)]
pub(crate) struct Roots(Arc<RootCertStore>);

impl Roots {
    /// Mozilla's roots, and those of a PEM file.
    ///
    /// # Errors
    /// The file cannot be read, or is no list of certificates.
    pub(crate) fn load(extra: Option<&Path>) -> Result<Self> {
        let mut store = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        if let Some(path) = extra {
            add(&mut store, path).with_context(|| format!("push_roots: the file {}", path.display()))?;
        }
        Ok(Self(Arc::new(store)))
    }

    pub(super) fn store(&self) -> Arc<RootCertStore> {
        Arc::clone(&self.0)
    }
}

fn add(store: &mut RootCertStore, path: &Path) -> Result<()> {
    let pem = read_small(path)?.context("is not there")?;
    let known = store.len();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        store.add(certificate.context("is no PEM file")?).context("holds a certificate that cannot be a root")?;
    }
    ensure!(store.len() > known, "holds no certificate; it takes PEM, as `-----BEGIN CERTIFICATE-----`");
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

    use super::*;

    fn load(content: &str) -> Result<usize> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("roots.pem");
        std::fs::write(&path, content).unwrap();
        Roots::load(Some(&path)).map(|roots| roots.store().len())
    }

    #[test]
    fn the_operators_roots_stand_beside_the_public_ones() {
        let public = Roots::load(None).unwrap().store().len();
        assert!(public > 50, "{public}");
        let certificate = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap().cert.pem();
        assert_eq!(load(&certificate).unwrap(), public + 1);
    }

    #[test]
    fn a_file_without_a_certificate_is_refused_with_its_name() {
        for content in ["", "not PEM", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            let error = format!("{:#}", load(content).unwrap_err());
            assert!(error.contains("roots.pem"), "{error}");
        }
        let missing = format!("{:#}", Roots::load(Some(Path::new("/nowhere/roots.pem"))).unwrap_err());
        assert!(missing.contains("/nowhere/roots.pem") && missing.contains("not there"), "{missing}");
    }
}
