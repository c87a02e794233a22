//! What a file is, told by its content.

use zeroize::Zeroizing;

use crate::{
    id::{SpiffeId, TrustDomain},
    jose::JwtAuthority,
    pki::{BundleError, Certificate, PkiError, PrivateKey, TrustBundle, certificates_from_pem},
};

/// A file that was understood.
pub(super) enum Content {
    /// Leaf first.
    Chain(Vec<Certificate>),
    Bundle(Authorities),
    Key(PrivateKey),
    Combined(PrivateKey, Vec<Certificate>),
    /// What looks like a JWT; a bearer's secret.
    Token(Zeroizing<String>),
}

/// The content of a trust bundle, whose trust domain a file may not say.
#[derive(Clone)]
pub(super) struct Authorities {
    pub(super) certificates: Vec<Certificate>,
    pub(super) jwt_authorities: Vec<JwtAuthority>,
    pub(super) sequence: Option<u64>,
    pub(super) refresh_hint_seconds: Option<u64>,
}

/// A file that was not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It is of a kind that we know, but broken.
    Damaged(String),
    /// It may be anything.
    Unrecognised(String),
}

/// A trust domain for bundles whose own is not known. Nobody sees it.
const NOBODY: &str = "unknown.invalid";

// === impl Content ===

impl Content {
    /// Reads PEM, DER or a SPIFFE bundle.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Fault> {
        let text = bytes.trim_ascii();
        if text.is_empty() {
            return Err(Fault::Unrecognised("the file is empty".to_owned()));
        }
        if text.starts_with(b"{") {
            return Authorities::from_jwks(text).map(Self::Bundle);
        }
        if let Some(token) = token(text) {
            return Ok(Self::Token(token));
        }
        if has(bytes, b"-----BEGIN ") {
            return Self::from_pem(bytes);
        }
        if let Ok(certificate) = Certificate::from_der(bytes) {
            return Ok(Self::from_certificates(vec![certificate]));
        }
        PrivateKey::from_pkcs8_der(bytes).map(Self::Key).map_err(|_neither| {
            Fault::Unrecognised(
                "the file is neither PEM, nor a certificate or key in DER, nor a SPIFFE bundle, \
                 nor a JWT-SVID"
                    .to_owned(),
            )
        })
    }

    fn from_pem(bytes: &[u8]) -> Result<Self, Fault> {
        let text = std::str::from_utf8(bytes).map_err(|_cause| {
            Fault::Damaged("the file has PEM blocks but is no text".to_owned())
        })?;
        let damaged = |error: PkiError| Fault::Damaged(error.to_string());
        let certificates = match certificates_from_pem(text) {
            Err(PkiError::NoCertificate) => Vec::new(),
            other => other.map_err(damaged)?,
        };
        let key = match PrivateKey::from_pem(text) {
            Err(PkiError::NoKey) => None,
            other => Some(other.map_err(damaged)?),
        };
        match (certificates.is_empty(), key) {
            (true, None) => Err(Fault::Unrecognised(
                "the file's PEM blocks are neither certificates nor private keys".to_owned(),
            )),
            (true, Some(key)) => Ok(Self::Key(key)),
            (false, Some(key)) => Ok(Self::Combined(key, certificates)),
            (false, None) => Ok(Self::from_certificates(certificates)),
        }
    }

    fn from_certificates(certificates: Vec<Certificate>) -> Self {
        match certificates.first().is_some_and(Certificate::is_ca) {
            true => Self::Bundle(Authorities::of_certificates(certificates)),
            false => Self::Chain(certificates),
        }
    }

    /// The certificates of an SVID, leaf first.
    pub(super) fn chain(&self) -> Option<&[Certificate]> {
        match self {
            Self::Chain(chain) | Self::Combined(_, chain) => Some(chain),
            Self::Bundle(_) | Self::Key(_) | Self::Token(_) => None,
        }
    }

    pub(super) fn key(&self) -> Option<&PrivateKey> {
        match self {
            Self::Key(key) | Self::Combined(key, _) => Some(key),
            Self::Chain(_) | Self::Bundle(_) | Self::Token(_) => None,
        }
    }

    pub(super) fn authorities(&self) -> Option<&Authorities> {
        match self {
            Self::Bundle(authorities) => Some(authorities),
            Self::Chain(_) | Self::Key(_) | Self::Combined(..) | Self::Token(_) => None,
        }
    }
}

// === impl Authorities ===

impl Authorities {
    /// Those of a file that has certificates alone.
    pub(super) fn of_certificates(certificates: Vec<Certificate>) -> Self {
        let (jwt_authorities, sequence, refresh_hint_seconds) = (Vec::new(), None, None);
        Self { certificates, jwt_authorities, sequence, refresh_hint_seconds }
    }

    fn from_jwks(json: &[u8]) -> Result<Self, Fault> {
        let nobody = NOBODY.parse().map_err(|error| Fault::Damaged(format!("{error}")))?;
        match TrustBundle::from_jwks(nobody, json) {
            Ok(bundle) => Ok(Self {
                certificates: bundle.x509_authorities().to_vec(),
                jwt_authorities: bundle.jwt_authorities().to_vec(),
                sequence: bundle.sequence(),
                refresh_hint_seconds: bundle.refresh_hint().map(|hint| hint.as_secs()),
            }),
            Err(BundleError::NoKeys) => Err(Fault::Unrecognised(
                "the file is JSON, but no SPIFFE bundle: it has no \"keys\"".to_owned(),
            )),
            Err(BundleError::Empty { .. }) => {
                Err(Fault::Damaged("the bundle has no X.509 authority".to_owned()))
            }
            // Any other JSON, such as a log.
            Err(error @ BundleError::Json { .. }) if !has(json, b"\"keys\"") => {
                Err(Fault::Unrecognised(error.to_string()))
            }
            Err(error) => Err(Fault::Damaged(error.to_string())),
        }
    }

    /// As the bundle of this trust domain.
    pub(super) fn bundle_of(&self, trust_domain: &TrustDomain) -> Result<TrustBundle, BundleError> {
        TrustBundle::new(trust_domain.clone(), self.certificates.clone())
    }

    /// Whether these may be authorities at all.
    pub(super) fn check(&self) -> Result<(), BundleError> {
        match NOBODY.parse() {
            Ok(nobody) => self.bundle_of(&nobody).map(|_| ()),
            Err(_never) => Ok(()),
        }
    }

    /// The trust domain that every authority with a SPIFFE ID names.
    pub(super) fn trust_domain(&self) -> Option<TrustDomain> {
        let uris = self.certificates.iter().flat_map(|c| c.uri_sans());
        let mut domains =
            uris.filter_map(|uri| uri.parse::<SpiffeId>().ok()).map(|id| id.trust_domain().clone());
        let first = domains.next()?;
        domains.all(|domain| domain == first).then_some(first)
    }
}

/// A JWS in compact serialization: three parts, the first a JSON object.
fn token(text: &[u8]) -> Option<Zeroizing<String>> {
    let part = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
    let dots = text.iter().filter(|byte| **byte == b'.').count();
    let is_token = text.starts_with(b"eyJ") && dots == 2 && text.iter().all(part);
    let text = std::str::from_utf8(text).ok().filter(|_| is_token)?;
    Some(Zeroizing::new(text.to_owned()))
}

fn has(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

// === impl Fault ===

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Damaged(reason) | Self::Unrecognised(reason) => f.write_str(reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fault(bytes: &[u8]) -> Fault {
        match Content::parse(bytes) {
            Err(fault) => fault,
            Ok(_) => panic!("understood"),
        }
    }

    #[test]
    fn what_is_broken_differs_from_what_is_unknown() {
        for damaged in [
            &b"-----BEGIN CERTIFICATE-----\nAQID\n-----END CERTIFICATE-----\n"[..],
            b"-----BEGIN PRIVATE KEY-----\nAQID\n-----END PRIVATE KEY-----\n",
            b"-----BEGIN PRIVATE KEY-----\nAQ",
            b"\xff\n-----BEGIN PRIVATE KEY-----\nAQ",
            b"{\"keys\":[]}",
            b"{\"keys\":",
            b"{\"keys\":7}",
        ] {
            let fault = fault(damaged);
            assert!(matches!(fault, Fault::Damaged(_)), "{fault:?}");
        }
        for unknown in [
            &b""[..],
            b" \n",
            b"{}",
            b"{\"level\":\"INFO\"}\n{}",
            b"hello",
            b"\x30\x03\x02\x01\x01",
            b"-----BEGIN PUBLIC KEY-----\nAQID\n-----END PUBLIC KEY-----\n",
        ] {
            let fault = fault(unknown);
            assert!(matches!(fault, Fault::Unrecognised(_)), "{fault:?}");
        }
    }

    #[test]
    fn a_damaged_key_is_not_quoted() {
        // Invariant 1.
        let text = b"-----BEGIN PRIVATE KEY-----\nSECRET?\n-----END PRIVATE KEY-----\n";
        assert!(!fault(text).to_string().contains("SECRET"));
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            drop(Content::parse(&bytes));
        }

        #[test]
        fn hostile_text_never_panics(text in "(\\{|\"keys\":|\\[|\\]|\\}|-----(BEGIN|END) (CERTIFICATE|PRIVATE KEY)-----\n|AQID|\n){0,20}") {
            drop(Content::parse(text.as_bytes()));
        }
    }
}
