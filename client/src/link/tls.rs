//! Whom to believe to be the server: the holder of the pinned key, or of a certificate of a public authority.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ::aws_lc_rs::digest::{SHA256, digest};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

/// The TLS configuration of a client, and whether the pin has failed it.
pub(super) struct Tls {
    pub(super) config: ClientConfig,
    pub(super) pin_failed: Arc<AtomicBool>,
}

/// TLS 1.3 with hybrid post-quantum key exchange first; resumption but no early data, which would come before
/// there is an exporter to sign.
pub(super) fn tls(pin: Option<[u8; 32]>) -> Result<Tls, Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let pin_failed = Arc::new(AtomicBool::new(false));
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?;
    let mut config = match pin {
        Some(pin) => {
            let verifier = PinVerifier { pin, provider, failed: Arc::clone(&pin_failed) };
            builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth()
        }
        None => {
            let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
            builder.with_root_certificates(roots).with_no_client_auth()
        }
    };
    config.alpn_protocols = vec![gureum_proto::ALPN.as_bytes().to_vec()];
    Ok(Tls { config, pin_failed })
}

/// Accepts one key, whatever certificate it comes in: names and dates in it mean nothing, the handshake's
/// signature everything.
#[derive(Debug)]
struct PinVerifier {
    pin: [u8; 32],
    provider: Arc<CryptoProvider>,
    failed: Arc<AtomicBool>,
}

impl ServerCertVerifier for PinVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if key_pin(end_entity)? == self.pin {
            return Ok(ServerCertVerified::assertion());
        }
        self.failed.store(true, Ordering::Relaxed);
        Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// SHA-256 of a certificate's SubjectPublicKeyInfo.
fn key_pin(certificate: &CertificateDer<'_>) -> Result<[u8; 32], Error> {
    let key = ParsedCertificate::try_from(certificate)?.subject_public_key_info();
    let hash = digest(&SHA256, key.as_ref());
    Ok(<[u8; 32]>::try_from(hash.as_ref()).expect("SHA-256 has 32 bytes"))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, PKCS_ED25519};

    use super::*;

    fn certificate(key: &KeyPair, name: &str) -> CertificateDer<'static> {
        CertificateParams::new([name.to_owned()]).unwrap().self_signed(key).unwrap().der().clone()
    }

    fn verify(pin: [u8; 32], certificate: &CertificateDer<'_>) -> (Result<ServerCertVerified, Error>, bool) {
        let failed = Arc::new(AtomicBool::new(false));
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = PinVerifier { pin, provider, failed: Arc::clone(&failed) };
        let name = ServerName::try_from("elsewhere.example").unwrap();
        let result = verifier.verify_server_cert(certificate, &[], &name, &[], UnixTime::now());
        (result, failed.load(Ordering::Relaxed))
    }

    #[test]
    fn accepts_the_pinned_key_in_any_certificate_and_no_other() {
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let pin = key_pin(&certificate(&key, "one.example")).unwrap();
        assert!(verify(pin, &certificate(&key, "two.example")).0.is_ok());

        let other = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let (refused, failed) = verify(pin, &certificate(&other, "one.example"));
        assert_eq!(refused.unwrap_err(), Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure));
        assert!(failed);
    }

    #[test]
    fn refuses_what_is_no_certificate() {
        assert!(verify([0; 32], &CertificateDer::from(vec![1, 2, 3])).0.is_err());
    }

    #[test]
    fn offers_our_protocol_and_no_early_data() {
        for pin in [None, Some([1; 32])] {
            let config = tls(pin).unwrap().config;
            assert_eq!(config.alpn_protocols, [b"gureum/1"]);
            assert!(!config.enable_early_data);
        }
    }
}
