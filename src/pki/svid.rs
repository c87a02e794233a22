//! An X.509-SVID: a workload's certificate and its chain (X509-SVID.md).

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls_pki_types::{CertificateDer, UnixTime};
use webpki::{
    EndEntityCert, ExtendedKeyUsageValidator, KeyPurposeId, KeyPurposeIdIter,
    KeyUsage as RequiredUsage, RequiredEkuNotFoundContext, anchor_from_trusted_cert,
};

use super::spki::SIGNATURES;
use super::{
    Certificate, DnsName, PkiError, TrustBundle, certificates_from_pem, certificates_to_pem,
};
use crate::class::Class;
use crate::id::{IdError, SpiffeId, TrustDomain};

/// A workload's certificate and the intermediates up to, not including, the root. No key. What
/// exists has the structure that the standard demands; whether it is to be trusted is for
/// [`X509Svid::verify`]. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct X509Svid {
    id: SpiffeId,
    leaf: Certificate,
    chain: Arc<[Certificate]>,
}

/// Which rule an SVID breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SvidError {
    /// The chain is empty.
    #[error("the SVID has no certificate")]
    Empty,
    /// PEM or DER is damaged.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// X509-SVID §2.
    #[error("the certificate has {count} URI SANs; an SVID has exactly one")]
    UriSans {
        /// How many there are.
        count: usize,
    },
    /// X509-SVID §2.
    #[error("the certificate's URI SAN is not a SPIFFE ID: {0}")]
    Id(#[from] IdError),
    /// X509-SVID §3.1.
    #[error("the certificate's SPIFFE ID {id} has no path; a workload's has one")]
    NoPath {
        /// The ID.
        id: SpiffeId,
    },
    /// X509-SVID §3.1, RFC 5280 §4.1.2.6.
    #[error("the certificate has no subject, so its SAN must be marked critical")]
    SanNotCritical,
    /// X509-SVID §4.1.
    #[error("the certificate is a CA; a workload's must not be")]
    LeafIsCa,
    /// X509-SVID §4.3.
    #[error("the certificate has no keyUsage extension")]
    NoKeyUsage,
    /// X509-SVID §4.3.
    #[error("the certificate's keyUsage extension must be marked critical")]
    KeyUsageNotCritical,
    /// X509-SVID §4.3.
    #[error("the certificate's keyUsage lacks digitalSignature")]
    NoDigitalSignature,
    /// X509-SVID §4.3.
    #[error("the certificate's keyUsage has keyCertSign or cRLSign; a workload's must not")]
    SigningUsage,
    /// X509-SVID §4.4.
    #[error(
        "the certificate's extKeyUsage must have both serverAuth and clientAuth, or be absent (the kubernetes.io signers cannot do that)"
    )]
    ExtendedKeyUsage,
    /// RFC 5280 §4.2.1.9.
    #[error("certificate {index} of the chain is not a CA that may sign certificates")]
    IntermediateNotCa {
        /// The leaf is 0.
        index: usize,
    },
    /// X509-SVID §3.2.
    #[error("certificate {index} of the chain is a CA whose SPIFFE ID has a path")]
    IntermediateHasPath {
        /// The leaf is 0.
        index: usize,
    },
    /// Somebody else's certificate.
    #[error("the certificate is for another key than the one it was asked for")]
    WrongKey,
    /// Another identity.
    #[error("the certificate is for {found}, not for {expected}")]
    WrongId {
        /// What was asked for.
        expected: SpiffeId,
        /// What the certificate says.
        found: SpiffeId,
    },
    /// A name that nobody asked for.
    #[error("the certificate is also for the DNS name {found:?}, which was not asked for")]
    DnsName {
        /// What the certificate says.
        found: String,
    },
    /// Another trust domain.
    #[error("{id} cannot be verified with the bundle of trust domain {bundle}")]
    WrongBundle {
        /// The SVID's ID.
        id: SpiffeId,
        /// Whose bundle it is.
        bundle: TrustDomain,
    },
    /// The leaf's time is over.
    #[error("the certificate has expired; check the clocks of node and signer")]
    Expired,
    /// The leaf's time is yet to come.
    #[error("the certificate is not valid yet; check the clocks of node and signer")]
    NotYetValid,
    /// No authority of the bundle signed the chain.
    #[error(
        "the certificate's chain does not lead to an authority of the trust bundle; the signer's root must be in the bundle"
    )]
    Untrusted,
    /// Only an authority that is expired or not yet valid would fit.
    #[error("the authority that the certificate's chain leads to is expired or not yet valid")]
    AuthorityNotValid,
    /// A signature in the chain is wrong.
    #[error("a signature in the certificate's chain is wrong")]
    Signature,
    /// An intermediate's time is over or yet to come.
    #[error("an intermediate of the certificate's chain is expired or not yet valid")]
    IntermediateNotValid,
    /// Any other rule of RFC 5280 §6.
    #[error("the certificate's chain is not valid: {reason}")]
    Chain {
        /// The verifier's word for it.
        reason: String,
    },
}

/// Each certificate of the path allows both uses of an SVID, or says nothing.
struct BothPurposes;

// === impl X509Svid ===

impl X509Svid {
    /// Takes a chain, leaf first, and checks its structure (X509-SVID §2 to §4). Self-signed
    /// certificates at its end are dropped: the root's place is the bundle.
    pub fn from_chain(mut chain: Vec<Certificate>) -> Result<Self, SvidError> {
        while chain.len() > 1 && chain.last().is_some_and(Certificate::is_self_signed) {
            chain.pop();
        }
        let leaf = chain.first().ok_or(SvidError::Empty)?.clone();
        let id = check_leaf(&leaf)?;
        for (index, certificate) in chain.iter().enumerate().skip(1) {
            check_intermediate(index, certificate)?;
        }
        Ok(Self { id, leaf, chain: chain.into() })
    }

    /// Reads a PEM chain, leaf first.
    pub fn from_pem(text: &str) -> Result<Self, SvidError> {
        Self::from_chain(certificates_from_pem(text)?)
    }

    /// The identity.
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// The workload's certificate.
    pub fn leaf(&self) -> &Certificate {
        &self.leaf
    }

    /// The whole chain, leaf first, without the root.
    pub fn chain(&self) -> &[Certificate] {
        &self.chain
    }

    /// The leaf's start.
    pub fn not_before(&self) -> SystemTime {
        self.leaf.not_before()
    }

    /// The leaf's end.
    pub fn not_after(&self) -> SystemTime {
        self.leaf.not_after()
    }

    /// The leaf's serial number, lowercase hexadecimal.
    pub fn serial_hex(&self) -> &str {
        self.leaf.serial_hex()
    }

    /// The chain as PEM, leaf first.
    pub fn chain_pem(&self) -> String {
        certificates_to_pem(&self.chain)
    }

    /// Checks all that its user relies on: it is for this key and this ID, it is valid now, and it
    /// chains to an authority of the bundle that is valid now. `spki_der` is the
    /// SubjectPublicKeyInfo of our private key. Verifies one signature for each certificate of the
    /// chain.
    pub fn verify(
        &self,
        expected_id: &SpiffeId,
        spki_der: &[u8],
        bundle: &TrustBundle,
        now: SystemTime,
    ) -> Result<(), SvidError> {
        if self.leaf.spki_der() != spki_der {
            return Err(SvidError::WrongKey);
        }
        if self.id != *expected_id {
            return Err(SvidError::WrongId {
                expected: expected_id.clone(),
                found: self.id.clone(),
            });
        }
        self.verify_chain(bundle, now)
    }

    /// Checks that it has no DNS name but these.
    pub fn check_dns_names(&self, allowed: &[DnsName]) -> Result<(), SvidError> {
        let asked = |name: &&String| allowed.iter().any(|one| one.as_str() == name.as_str());
        match self.leaf.dns_sans().iter().find(|name| !asked(name)) {
            Some(found) => Err(SvidError::DnsName { found: found.chars().take(253).collect() }),
            None => Ok(()),
        }
    }

    /// The part of [`Self::verify`] that needs no key: validity, and a chain to the bundle.
    pub fn verify_chain(&self, bundle: &TrustBundle, now: SystemTime) -> Result<(), SvidError> {
        if self.id.trust_domain() != bundle.trust_domain() {
            return Err(SvidError::WrongBundle {
                id: self.id.clone(),
                bundle: bundle.trust_domain().clone(),
            });
        }
        if !self.leaf.is_valid_at(now) {
            return Err(match now < self.leaf.not_before() {
                true => SvidError::NotYetValid,
                false => SvidError::Expired,
            });
        }
        let intermediates: Vec<CertificateDer<'_>> = self
            .chain
            .iter()
            .skip(1)
            .map(|certificate| CertificateDer::from(certificate.der()))
            .collect();
        // webpki takes anchors as they are, so whether one is valid now is ours to ask.
        let (valid, invalid): (Vec<_>, Vec<_>) =
            bundle.x509_authorities().iter().partition(|authority| authority.is_valid_at(now));
        let anchors: Vec<_> = valid
            .iter()
            .filter_map(|authority| anchor_from_trusted_cert(authority.as_der()).ok())
            .collect();
        let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
        EndEntityCert::try_from(self.leaf.as_der())
            .and_then(|leaf| {
                leaf.verify_for_usage(
                    SIGNATURES,
                    &anchors,
                    &intermediates,
                    UnixTime::since_unix_epoch(since),
                    BothPurposes,
                    None,
                    None,
                )
                .map(|_path| ())
            })
            .map_err(|error| match SvidError::from(error) {
                SvidError::Untrusted if self.ends_at(&invalid) => SvidError::AuthorityNotValid,
                other => other,
            })
    }

    /// Whether the last of the chain names one of these as its issuer.
    fn ends_at(&self, authorities: &[&Certificate]) -> bool {
        self.chain.last().is_some_and(|last| {
            authorities.iter().any(|authority| authority.subject_der() == last.issuer_der())
        })
    }
}

fn check_leaf(leaf: &Certificate) -> Result<SpiffeId, SvidError> {
    let [uri] = leaf.uri_sans() else {
        return Err(SvidError::UriSans { count: leaf.uri_sans().len() });
    };
    let id: SpiffeId = uri.parse()?;
    if !id.is_workload() {
        return Err(SvidError::NoPath { id });
    }
    if leaf.subject_is_empty() && !leaf.san_is_critical() {
        return Err(SvidError::SanNotCritical);
    }
    if leaf.is_ca() {
        return Err(SvidError::LeafIsCa);
    }
    let usage = leaf.key_usage().ok_or(SvidError::NoKeyUsage)?;
    if !usage.critical {
        return Err(SvidError::KeyUsageNotCritical);
    }
    if usage.key_cert_sign || usage.crl_sign {
        return Err(SvidError::SigningUsage);
    }
    if !usage.digital_signature {
        return Err(SvidError::NoDigitalSignature);
    }
    match leaf.extended_key_usage() {
        Some(usage) if !(usage.server_auth && usage.client_auth) => {
            Err(SvidError::ExtendedKeyUsage)
        }
        _ => Ok(id),
    }
}

fn check_intermediate(index: usize, certificate: &Certificate) -> Result<(), SvidError> {
    if !certificate.may_sign() {
        return Err(SvidError::IntermediateNotCa { index });
    }
    let has_path = certificate
        .uri_sans()
        .iter()
        .filter_map(|uri| uri.parse::<SpiffeId>().ok())
        .any(|id| id.is_workload());
    match has_path {
        true => Err(SvidError::IntermediateHasPath { index }),
        false => Ok(()),
    }
}

// === impl BothPurposes ===

impl ExtendedKeyUsageValidator for BothPurposes {
    fn validate(&self, purposes: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        const ANY: &[u8] = &[0x55, 0x1d, 37, 0];
        const SERVER: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 1];
        const CLIENT: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 2];
        let (mut empty, mut server, mut client) = (true, false, false);
        for purpose in purposes {
            let purpose = purpose?;
            empty = false;
            let any = purpose == KeyPurposeId::new(ANY);
            server |= any || purpose == KeyPurposeId::new(SERVER);
            client |= any || purpose == KeyPurposeId::new(CLIENT);
        }
        let required = match server {
            true => RequiredUsage::client_auth(),
            false => RequiredUsage::server_auth(),
        };
        match empty || (server && client) {
            true => Ok(()),
            false => Err(webpki::Error::RequiredEkuNotFoundContext(RequiredEkuNotFoundContext {
                required,
                present: Vec::new(),
            })),
        }
    }
}

// === impl SvidError ===

impl SvidError {
    /// [`Class::Unavailable`] for what passes with time or the next bundle, [`Class::Internal`]
    /// else: whoever signed it is at fault.
    pub fn class(&self) -> Class {
        match self {
            Self::Expired
            | Self::NotYetValid
            | Self::Untrusted
            | Self::AuthorityNotValid
            | Self::IntermediateNotValid => Class::Unavailable,
            _ => Class::Internal,
        }
    }
}

impl From<webpki::Error> for SvidError {
    fn from(error: webpki::Error) -> Self {
        match error {
            webpki::Error::UnknownIssuer => Self::Untrusted,
            webpki::Error::InvalidSignatureForPublicKey => Self::Signature,
            // The leaf's own validity is checked before.
            webpki::Error::CertExpired { .. } | webpki::Error::CertNotValidYet { .. } => {
                Self::IntermediateNotValid
            }
            other => Self::Chain { reason: format!("{other:?}") },
        }
    }
}
