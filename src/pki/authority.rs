//! A certificate authority in memory.

use std::fmt;
use std::time::{Duration, SystemTime};

use zeroize::Zeroizing;

use super::profile::{Issuer, Validity, key_id};
use super::{
    BundleError, Certificate, DnsName, KeyAlgorithm, PkiError, PrivateKey, Profile, PublicKey,
    SvidError, TrustBundle, X509Svid, certificates_from_pem, certificates_to_pem,
};
use crate::class::Class;
use crate::id::{IdError, SpiffeId, TrustDomain};

/// A certificate authority in memory: the key, its certificate, the intermediates above it and the
/// roots. Not cloned: share it by `Arc`.
pub struct Authority {
    key: PrivateKey,
    certificate: Certificate,
    /// From the signing CA up, without roots: what follows the leaf in an SVID.
    chain: Vec<Certificate>,
    bundle: TrustBundle,
    /// Of all certificates above the leaf.
    validity: Validity,
    authority_key_id: Vec<u8>,
    key_id: String,
}

/// Why a CA cannot be made or taken into use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthorityError {
    /// `tls.crt` is damaged or has no certificate.
    #[error("tls.crt: {0}")]
    Certificate(#[source] PkiError),
    /// `tls.key` is damaged or of the wrong kind.
    #[error("tls.key: {0}")]
    Key(#[source] PkiError),
    /// `ca.crt` is damaged or has no certificate.
    #[error("ca.crt: {0}")]
    Root(#[source] PkiError),
    /// Two halves of different pairs.
    #[error(
        "tls.key does not belong to the first certificate of tls.crt; put the matching pair in place, signing CA first"
    )]
    KeyMismatch,
    /// A leaf, or a CA without keyCertSign.
    #[error(
        "{subject:?} is not a CA that may sign certificates (basicConstraints cA and keyUsage keyCertSign); use a CA certificate"
    )]
    NotCa {
        /// The certificate's subject.
        subject: String,
    },
    /// Its time is over.
    #[error("the CA certificate {subject:?} has expired; replace it")]
    Expired {
        /// The certificate's subject.
        subject: String,
    },
    /// Its time is yet to come.
    #[error("the CA certificate {subject:?} is not valid yet; check the node's clock")]
    NotYetValid {
        /// The certificate's subject.
        subject: String,
    },
    /// An intermediate alone.
    #[error(
        "the CA certificate {subject:?} is an intermediate; put its root into ca.crt beside tls.crt"
    )]
    NoRoot {
        /// The certificate's subject.
        subject: String,
    },
    /// `tls.crt` and `ca.crt` don't fit together.
    #[error(
        "the CA certificate {subject:?} does not chain to ca.crt; tls.crt must hold the signing CA first and every intermediate up to a root in ca.crt"
    )]
    NotChained {
        /// The first certificate whose issuer is missing.
        subject: String,
    },
    /// Another trust domain's CA, or an ID no CA may have (X509-SVID §3.2).
    #[error(
        "the CA certificate {subject:?} has the URI SAN {uri:?}; for this trust domain it must be {expected}, or absent"
    )]
    ForeignId {
        /// The certificate's subject.
        subject: String,
        /// What it says.
        uri: String,
        /// What it may say.
        expected: SpiffeId,
    },
    /// The bundle that it makes is refused.
    #[error("ca.crt: {0}")]
    Bundle(#[from] BundleError),
    /// A trial certificate did not verify, as with name constraints or a path length.
    #[error("certificates signed by this CA would not verify: {0}; use another CA")]
    Useless(#[source] SvidError),
    /// The lifetime does not fit.
    #[error("a CA lifetime of {lifetime:?} is out of range; choose a minute to a century")]
    Lifetime {
        /// As asked for.
        lifetime: Duration,
    },
    /// The crypto library or the machine failed.
    #[error(transparent)]
    Crypto(PkiError),
}

/// Why a certificate is not issued.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IssueError {
    /// Another trust domain's ID.
    #[error("this CA signs for trust domain {own}, not for {id}")]
    TrustDomain {
        /// Ours.
        own: TrustDomain,
        /// What was asked for.
        id: SpiffeId,
    },
    /// X509-SVID §3.1.
    #[error("{id} has no path; a workload's ID has one")]
    NoPath {
        /// What was asked for.
        id: SpiffeId,
    },
    /// Certificates know whole seconds.
    #[error("a lifetime of {ttl:?} is out of range; one second is the shortest")]
    Ttl {
        /// As asked for.
        ttl: Duration,
    },
    /// The CA, an intermediate or the root is past its end.
    #[error("the CA has expired; replace it")]
    Expired,
    /// The CA is yet to begin.
    #[error("the CA is not valid yet; check the clock")]
    NotYetValid,
    /// The crypto library or the machine failed.
    #[error(transparent)]
    Crypto(#[from] PkiError),
    /// What was made breaks a rule: a bug.
    #[error("the certificate made is not an SVID: {0}")]
    Svid(#[from] SvidError),
}

const MIN_LIFETIME: Duration = Duration::from_secs(60);
const MAX_LIFETIME: Duration = Duration::from_secs(100 * 366 * 86_400);

// === impl Authority ===

impl Authority {
    /// Makes a key and a self-signed CA certificate that is itself an SVID without a path.
    pub fn create(
        trust_domain: &TrustDomain,
        algorithm: KeyAlgorithm,
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<Self, AuthorityError> {
        let key = PrivateKey::generate(algorithm).map_err(AuthorityError::Crypto)?;
        Self::self_signed(trust_domain, key, lifetime, now)
    }

    /// The same for a key that is there already.
    pub fn self_signed(
        trust_domain: &TrustDomain,
        key: PrivateKey,
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<Self, AuthorityError> {
        let out_of_range = AuthorityError::Lifetime { lifetime };
        if !(MIN_LIFETIME..=MAX_LIFETIME).contains(&lifetime) {
            return Err(out_of_range);
        }
        let validity = Profile::validity(now, lifetime, None).ok_or(out_of_range)?;
        let certificate = Profile::authority(&key, trust_domain, validity)
            .and_then(|der| Certificate::from_der(&der))
            .map_err(AuthorityError::Crypto)?;
        let bundle = TrustBundle::new(trust_domain.clone(), vec![certificate.clone()])?;
        Self::assemble(key, certificate, Vec::new(), bundle, validity)
    }

    /// Takes an existing CA into use. `tls_crt` is the signing CA, then its intermediates; `tls_key`
    /// its key; `ca_crt` the roots, needed unless the signing CA is its own root. A trial
    /// certificate is signed and verified, so what loads also works.
    pub fn from_pem(
        trust_domain: &TrustDomain,
        tls_crt: &str,
        tls_key: &str,
        ca_crt: Option<&str>,
        now: SystemTime,
    ) -> Result<Self, AuthorityError> {
        let given = certificates_from_pem(tls_crt).map_err(AuthorityError::Certificate)?;
        let certificate =
            given.first().ok_or(AuthorityError::Certificate(PkiError::NoCertificate))?.clone();
        let key = PrivateKey::from_pem(tls_key).map_err(AuthorityError::Key)?;
        if key.spki_der() != certificate.spki_der() {
            return Err(AuthorityError::KeyMismatch);
        }
        let mut roots = match ca_crt {
            Some(text) => certificates_from_pem(text).map_err(AuthorityError::Root)?,
            None => Vec::new(),
        };
        let (chain, anchor) = if certificate.is_self_signed() {
            if ca_crt.is_none() {
                roots.push(certificate.clone());
            }
            (Vec::new(), certificate.clone())
        } else {
            let chain: Vec<_> =
                given.into_iter().filter(|certificate| !certificate.is_self_signed()).collect();
            let anchor = anchor(&chain, &roots, now)?;
            (chain, anchor)
        };
        if !roots.contains(&anchor) {
            return Err(AuthorityError::NotChained { subject: anchor.subject() });
        }
        for certificate in chain.iter().chain(&roots) {
            check_authority(certificate, trust_domain)?;
        }
        let mut validity =
            Validity { not_before: anchor.not_before(), not_after: anchor.not_after() };
        check_valid(&anchor, now)?;
        for certificate in &chain {
            check_valid(certificate, now)?;
            validity.not_before = validity.not_before.max(certificate.not_before());
            validity.not_after = validity.not_after.min(certificate.not_after());
        }
        let bundle = TrustBundle::new(trust_domain.clone(), roots)?;
        let authority = Self::assemble(key, certificate, chain, bundle, validity)?;
        authority.prove(now)?;
        Ok(authority)
    }

    fn assemble(
        key: PrivateKey,
        certificate: Certificate,
        chain: Vec<Certificate>,
        bundle: TrustBundle,
        validity: Validity,
    ) -> Result<Self, AuthorityError> {
        let authority_key_id = match certificate.subject_key_id() {
            Some(id) => id.to_vec(),
            None => key_id(certificate.spki_der()).map_err(AuthorityError::Crypto)?,
        };
        Ok(Self {
            key_id: certificate.sha256(),
            key,
            certificate,
            chain,
            bundle,
            validity,
            authority_key_id,
        })
    }

    /// Signs a certificate that nobody gets and verifies it as every workload will.
    fn prove(&self, now: SystemTime) -> Result<(), AuthorityError> {
        let crypto = |error: IssueError| match error {
            IssueError::Crypto(error) => AuthorityError::Crypto(error),
            IssueError::Svid(error) => AuthorityError::Useless(error),
            _ => AuthorityError::Crypto(PkiError::Sign),
        };
        let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).map_err(AuthorityError::Crypto)?;
        let id = SpiffeId::new(self.trust_domain(), "/svid.dev/trial")
            .map_err(|error: IdError| AuthorityError::Useless(error.into()))?;
        let svid = self.sign(key.spki_der(), &id, &[], self.validity).map_err(crypto)?;
        svid.verify(&id, key.spki_der(), &self.bundle, now).map_err(AuthorityError::Useless)
    }

    /// Signs a certificate for `id`, and for `dns_names` beside it, that begins a little before `now`
    /// and ends after `ttl`, or with the first end of the chain above it.
    pub fn issue(
        &self,
        key: &PublicKey,
        id: &SpiffeId,
        dns_names: &[DnsName],
        ttl: Duration,
        now: SystemTime,
    ) -> Result<X509Svid, IssueError> {
        if id.trust_domain() != self.trust_domain() {
            return Err(IssueError::TrustDomain {
                own: self.trust_domain().clone(),
                id: id.clone(),
            });
        }
        if !id.is_workload() {
            return Err(IssueError::NoPath { id: id.clone() });
        }
        if now < self.validity.not_before {
            return Err(IssueError::NotYetValid);
        }
        if now >= self.validity.not_after {
            return Err(IssueError::Expired);
        }
        if ttl < Duration::from_secs(1) {
            return Err(IssueError::Ttl { ttl });
        }
        let validity =
            Profile::validity(now, ttl, Some(self.validity)).ok_or(IssueError::Ttl { ttl })?;
        self.sign(key.spki_der(), id, dns_names, validity)
    }

    fn sign(
        &self,
        spki: &[u8],
        id: &SpiffeId,
        dns_names: &[DnsName],
        validity: Validity,
    ) -> Result<X509Svid, IssueError> {
        let issuer = Issuer {
            name: self.certificate.subject_der(),
            key_id: &self.authority_key_id,
            key: &self.key,
        };
        let der = Profile::workload(&issuer, spki, id, dns_names, validity)?;
        let leaf = Certificate::from_der(&der)?;
        let mut chain = Vec::with_capacity(1 + self.chain.len());
        chain.push(leaf);
        chain.extend(self.chain.iter().cloned());
        Ok(X509Svid::from_chain(chain)?)
    }

    /// The trust domain that it signs for.
    pub fn trust_domain(&self) -> &TrustDomain {
        self.bundle.trust_domain()
    }

    /// The signing CA's certificate.
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// What follows the leaf in an SVID: the signing CA and the intermediates above it; empty if the
    /// signing CA is its own root.
    pub fn chain(&self) -> &[Certificate] {
        &self.chain
    }

    /// The roots; at least one.
    pub fn roots(&self) -> &[Certificate] {
        self.bundle.x509_authorities()
    }

    /// The roots as a bundle, without sequence number.
    pub fn bundle(&self) -> TrustBundle {
        self.bundle.clone()
    }

    /// The content of `tls.crt`: the signing CA, then intermediates.
    pub fn certificate_pem(&self) -> String {
        match self.chain.is_empty() {
            true => certificates_to_pem(std::slice::from_ref(&self.certificate)),
            false => certificates_to_pem(&self.chain),
        }
    }

    /// The content of `tls.key`. Secret, wiped when dropped.
    pub fn key_pem(&self) -> Zeroizing<String> {
        self.key.to_pem()
    }

    /// The earliest end of the signing CA, the intermediates and their root; no leaf ends later.
    pub fn not_after(&self) -> SystemTime {
        self.validity.not_after
    }

    /// SHA-256 of the signing CA's certificate: 64 lowercase hexadecimal digits.
    pub fn key_id(&self) -> &str {
        &self.key_id
    }
}

/// Follows the chain upwards; the root that it ends at, one that is valid now if there is one.
fn anchor(
    chain: &[Certificate],
    roots: &[Certificate],
    now: SystemTime,
) -> Result<Certificate, AuthorityError> {
    for (certificate, issuer) in chain.iter().zip(chain.iter().skip(1)) {
        if !certificate.is_signed_by(issuer) {
            return Err(AuthorityError::NotChained { subject: certificate.subject() });
        }
    }
    let subject = |certificate: Option<&Certificate>| {
        certificate.map(Certificate::subject).unwrap_or_default()
    };
    if roots.is_empty() {
        return Err(AuthorityError::NoRoot { subject: subject(chain.first()) });
    }
    let candidates =
        || roots.iter().filter(|root| chain.last().is_some_and(|last| last.is_signed_by(root)));
    candidates()
        .find(|root| root.is_valid_at(now))
        .or_else(|| candidates().next())
        .cloned()
        .ok_or_else(|| AuthorityError::NotChained { subject: subject(chain.last()) })
}

fn check_authority(
    certificate: &Certificate,
    trust_domain: &TrustDomain,
) -> Result<(), AuthorityError> {
    if !certificate.may_sign() {
        return Err(AuthorityError::NotCa { subject: certificate.subject() });
    }
    let expected = trust_domain.id();
    match certificate
        .uri_sans()
        .iter()
        .find(|uri| uri.starts_with("spiffe:") && *uri != expected.as_str())
    {
        Some(uri) => Err(AuthorityError::ForeignId {
            subject: certificate.subject(),
            uri: uri.clone(),
            expected,
        }),
        None => Ok(()),
    }
}

fn check_valid(certificate: &Certificate, now: SystemTime) -> Result<(), AuthorityError> {
    let subject = certificate.subject();
    if now < certificate.not_before() {
        return Err(AuthorityError::NotYetValid { subject });
    }
    if now >= certificate.not_after() {
        return Err(AuthorityError::Expired { subject });
    }
    Ok(())
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
            .field("trust_domain", self.trust_domain())
            .field("certificate", &self.certificate)
            .finish_non_exhaustive()
    }
}

// === impl AuthorityError ===

impl AuthorityError {
    /// [`Class::Internal`] where the crypto library or the machine failed, else
    /// [`Class::NotReady`]: somebody has to put the files right.
    pub fn class(&self) -> Class {
        match self {
            Self::Crypto(error) => error.class(),
            _ => Class::NotReady,
        }
    }
}

// === impl IssueError ===

impl IssueError {
    /// What the caller can do about it.
    pub fn class(&self) -> Class {
        match self {
            Self::TrustDomain { .. } | Self::NoPath { .. } | Self::Ttl { .. } => Class::Invalid,
            Self::Expired => Class::NotReady,
            Self::NotYetValid => Class::Unavailable,
            Self::Crypto(error) => error.class(),
            Self::Svid(_) => Class::Internal,
        }
    }
}
