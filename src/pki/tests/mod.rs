//! Certificates as a whole: made by us, broken by rcgen, judged by openssl.

mod authority;
mod bundle;
mod csr;
mod jwt;
mod key;
mod openssl;
mod possession;
mod svid;

use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, DistinguishedName, Issuer, KeyPair, SanType};

use super::*;
use crate::id::{SpiffeId, TrustDomain};

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

/// A moment with a fraction, since clocks have one.
fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(1_900_000_000_700)
}

fn td() -> TrustDomain {
    "example.org".parse().unwrap()
}

fn id() -> SpiffeId {
    "spiffe://example.org/ns/shop/sa/web".parse().unwrap()
}

fn authority() -> Authority {
    Authority::create(&td(), KeyAlgorithm::EcdsaP256, 30 * DAY, now()).unwrap()
}

fn key() -> PrivateKey {
    PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap()
}

fn issue(authority: &Authority, key: &PrivateKey) -> X509Svid {
    let csr = Csr::create(key, &id()).unwrap();
    authority.issue(csr.public_key(), &id(), &[], HOUR, now()).unwrap()
}

/// What rcgen needs to sign with the CA's key.
fn issuer(authority: &Authority) -> Issuer<'static, KeyPair> {
    let key = KeyPair::from_pem(&authority.key_pem()).unwrap();
    Issuer::from_ca_cert_pem(&authority.certificate_pem(), key).unwrap()
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

/// A leaf that is right in all; tests break one thing each.
fn leaf_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.not_before = (now() - HOUR).into();
    params.not_after = (now() + HOUR).into();
    params.subject_alt_names = vec![uri(id().as_str())];
    params.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        rcgen::ExtendedKeyUsagePurpose::ServerAuth,
        rcgen::ExtendedKeyUsagePurpose::ClientAuth,
    ];
    params.use_authority_key_identifier_extension = true;
    params
}

/// An intermediate that is right in all.
fn ca_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params.not_before = (now() - DAY).into();
    params.not_after = (now() + DAY).into();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign, rcgen::KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    params
}

fn certificate(made: &rcgen::Certificate) -> Certificate {
    Certificate::from_der(made.der()).unwrap()
}
