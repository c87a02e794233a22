//! A trust bundle: the authorities of one trust domain (Trust_Domain_and_Bundle.md).

use std::sync::Arc;
use std::time::Duration;

use super::{Certificate, PkiError, certificates_from_pem, certificates_to_pem, jwks};
use crate::class::Class;
use crate::id::TrustDomain;
use crate::jose::{self, JwkError, JwtAuthority};

/// The authorities of one trust domain, in order, none twice: at least one X.509 authority, and any
/// number of JWT authorities. Cheap to clone. Equal if trust domain, authorities, their order and
/// the sequence number are.
#[derive(Clone, Debug)]
pub struct TrustBundle {
    trust_domain: TrustDomain,
    x509_authorities: Arc<[Certificate]>,
    jwt_authorities: Arc<[JwtAuthority]>,
    sequence: Option<u64>,
    refresh_hint: Option<Duration>,
}

/// Why a bundle is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// DESIGN.md §2, invariant 6.
    #[error(
        "the bundle of {trust_domain} has no X.509 authority; an empty bundle would revoke everything and is never taken"
    )]
    Empty {
        /// Whose bundle it is.
        trust_domain: TrustDomain,
    },
    /// PEM or DER is damaged.
    #[error("the bundle cannot be read: {0}")]
    Pki(#[from] PkiError),
    /// A certificate that may not sign.
    #[error(
        "certificate {index} of the bundle ({subject:?}) is not a CA that may sign certificates; remove it"
    )]
    NotCa {
        /// Counted from 1.
        index: usize,
        /// Its subject.
        subject: String,
    },
    /// A key that a JWK cannot hold.
    #[error(
        "certificate {index} of the bundle has a {algorithm} key; use RSA, ECDSA P-256, P-384 or P-521, or Ed25519"
    )]
    Key {
        /// Counted from 1.
        index: usize,
        /// What it has.
        algorithm: String,
    },
    /// Not JSON, or of another shape.
    #[error("the bundle is not a JWK Set: {reason}")]
    Json {
        /// The parser's word for it.
        reason: String,
    },
    /// Bundle §4.1.3.
    #[error("the bundle has no \"keys\" member")]
    NoKeys,
    /// JWT-SVID §6.1, RFC 7518 §6.
    #[error("key {index} of the bundle is no JWT authority: {source}")]
    Jwk {
        /// Counted from 1.
        index: usize,
        /// What is wrong with it.
        source: JwkError,
    },
    /// X509-SVID §6.1.
    #[error("key {index} of the bundle must have exactly one certificate in \"x5c\"")]
    X5c {
        /// Counted from 1.
        index: usize,
    },
}

// === impl TrustBundle ===

impl TrustBundle {
    /// A bundle without sequence number and refresh hint. Refuses to be empty (DESIGN.md §2,
    /// invariant 6) and certificates that may not sign; drops repeated ones.
    pub fn new(
        trust_domain: TrustDomain,
        authorities: Vec<Certificate>,
    ) -> Result<Self, BundleError> {
        for (index, authority) in authorities.iter().enumerate() {
            let index = index + 1;
            if !authority.may_sign() {
                return Err(BundleError::NotCa { index, subject: authority.subject() });
            }
            if !jwks::can_hold(authority) {
                return Err(BundleError::Key {
                    index,
                    algorithm: authority.public_key_algorithm(),
                });
            }
        }
        if authorities.is_empty() {
            return Err(BundleError::Empty { trust_domain });
        }
        Ok(Self {
            trust_domain,
            x509_authorities: distinct(authorities),
            jwt_authorities: Arc::default(),
            sequence: None,
            refresh_hint: None,
        })
    }

    /// Reads the certificates of a PEM file; other blocks are ignored.
    pub fn from_pem(trust_domain: TrustDomain, text: &str) -> Result<Self, BundleError> {
        match certificates_from_pem(text) {
            Ok(authorities) => Self::new(trust_domain, authorities),
            Err(PkiError::NoCertificate) => Err(BundleError::Empty { trust_domain }),
            Err(error) => Err(error.into()),
        }
    }

    /// The authorities as PEM, in order.
    pub fn to_pem(&self) -> String {
        certificates_to_pem(&self.x509_authorities)
    }

    /// Reads a SPIFFE bundle (Bundle §4). Keys of unknown type or use are ignored, WIT keys among
    /// them; a JWT authority without `kid` makes it bad as a whole, as damage does (JWT-SVID §6.1).
    pub fn from_jwks(trust_domain: TrustDomain, json: &[u8]) -> Result<Self, BundleError> {
        let read = jwks::read(json)?;
        Ok(Self {
            sequence: read.sequence,
            refresh_hint: read.refresh_hint,
            ..Self::new(trust_domain, read.x509_authorities)?
                .with_jwt_authorities(read.jwt_authorities)
        })
    }

    /// The SPIFFE bundle, indented JSON that ends in a newline.
    pub fn to_jwks(&self) -> String {
        jwks::write(self)
    }

    /// The JWT authorities alone, as a JWK Set (Workload API §6.2.2). The keys have no `use`, as the
    /// agent of SPIRE writes them: `jwt-svid` is no value of RFC 7517.
    pub fn jwt_jwks(&self) -> String {
        jwks::write_jwt(&self.jwt_authorities)
    }

    /// Whose bundle it is.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The authorities, at least one.
    pub fn x509_authorities(&self) -> &[Certificate] {
        &self.x509_authorities
    }

    /// The JWT authorities, possibly none.
    pub fn jwt_authorities(&self) -> &Arc<[JwtAuthority]> {
        &self.jwt_authorities
    }

    /// Whether the authorities of both kinds, and their order, are the same.
    pub fn same_authorities(&self, other: &Self) -> bool {
        self.x509_authorities == other.x509_authorities
            && self.jwt_authorities == other.jwt_authorities
    }

    /// The same with these JWT authorities instead of its own, repeated ones dropped.
    #[must_use]
    pub fn with_jwt_authorities(mut self, authorities: Vec<JwtAuthority>) -> Self {
        self.jwt_authorities = jose::distinct(authorities);
        self
    }

    /// `spiffe_sequence`: grows with each change of content (Bundle §4.1.1).
    pub fn sequence(&self) -> Option<u64> {
        self.sequence
    }

    /// `spiffe_refresh_hint`: how often to look for a newer one (Bundle §4.1.2).
    pub fn refresh_hint(&self) -> Option<Duration> {
        self.refresh_hint
    }

    /// The same with this sequence number.
    #[must_use]
    pub fn with_sequence(mut self, sequence: Option<u64>) -> Self {
        self.sequence = sequence;
        self
    }

    /// The same with this refresh hint; whole seconds count.
    #[must_use]
    pub fn with_refresh_hint(mut self, refresh_hint: Option<Duration>) -> Self {
        self.refresh_hint = refresh_hint;
        self
    }

    /// Whether this very certificate is an authority.
    pub fn contains(&self, certificate: &Certificate) -> bool {
        self.x509_authorities.contains(certificate)
    }

    /// This bundle and the authorities of `other` that it lacks, after its own. The sequence number
    /// is the greater. A bundle of another trust domain adds nothing: they must never mix
    /// (Federation §4.2).
    #[must_use]
    pub fn merged(&self, other: &Self) -> Self {
        if self.trust_domain != other.trust_domain {
            return self.clone();
        }
        let both = self.x509_authorities.iter().chain(&*other.x509_authorities);
        let jwt = self.jwt_authorities.iter().chain(&*other.jwt_authorities);
        Self {
            trust_domain: self.trust_domain.clone(),
            x509_authorities: distinct(both.cloned().collect()),
            jwt_authorities: jose::distinct(jwt.cloned()),
            sequence: self.sequence.max(other.sequence),
            refresh_hint: self.refresh_hint.or(other.refresh_hint),
        }
    }
}

/// Without repetitions, in order.
fn distinct(certificates: Vec<Certificate>) -> Arc<[Certificate]> {
    let mut kept: Vec<Certificate> = Vec::with_capacity(certificates.len());
    for certificate in certificates {
        if !kept.contains(&certificate) {
            kept.push(certificate);
        }
    }
    kept.into()
}

impl PartialEq for TrustBundle {
    fn eq(&self, other: &Self) -> bool {
        self.trust_domain == other.trust_domain
            && self.sequence == other.sequence
            && self.same_authorities(other)
    }
}

impl Eq for TrustBundle {}

// === impl BundleError ===

impl BundleError {
    /// Always [`Class::Invalid`].
    pub fn class(&self) -> Class {
        Class::Invalid
    }
}
