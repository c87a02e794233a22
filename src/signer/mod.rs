//! Who signs: the seam between a volume that needs an SVID and a CA that makes one.

pub mod agent;
pub mod cert_manager;
pub mod controller;
pub mod local;
pub mod requests;

mod handout;
mod told;

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;

pub use self::handout::{Given, HandedOut, Handout, KeyedSvid};
use crate::{
    class::Class,
    id::{SpiffeId, TrustDomain},
    jose::JwtSvid,
    pki::{Csr, DnsName, KeyAlgorithm, X509Svid},
    volume::{IssuerChoice, PodInfo, PodToken, VolumeId},
};

/// Has X.509-SVIDs signed.
#[async_trait]
pub trait Signer: Send + Sync + 'static {
    /// Signs one request. The caller verifies everything about the answer.
    async fn sign(&self, request: &SignRequest) -> Result<X509Svid, SignError>;

    /// Follows what this volume's pod is given, where certificates come with their keys from
    /// elsewhere. `None`: [`Self::sign`] is asked for each certificate.
    fn hand_out(&self, _volume: &VolumeId, _pod: &PodInfo) -> Option<Handout> {
        None
    }

    /// Whether a request could be signed now, and until when the signing CA lives.
    fn status(&self) -> SignerStatus;

    /// Whether requests are kept and decided elsewhere. One may then outlive this process, which
    /// resumes it by its key, and may be answered with another identity ([`Assigned`]). A signer
    /// that signs whatever the node says must answer false.
    fn is_remote(&self) -> bool {
        false
    }

    /// Whether requests go to an issuer that signs what the CSR says, as cert-manager's do: the DNS
    /// names stand in the CSR itself then, and a volume may name the issuer.
    fn has_issuers(&self) -> bool {
        false
    }

    /// Issues one JWT-SVID. The caller has made sure that the identity is the volume's own.
    async fn sign_jwt(&self, _request: &JwtRequest) -> Result<JwtSvid, SignError> {
        self.signs_jwt()?;
        Err(SignError::new(
            Class::Internal,
            "this signer says that it signs JWT-SVIDs and does not",
        ))
    }

    /// Whether JWT-SVIDs can be issued at all; `Err` says what to set. What passes by itself, as a
    /// key that is published and signs in a moment, is no error here, but one of
    /// [`Self::sign_jwt`].
    fn signs_jwt(&self) -> Result<(), SignError> {
        Err(SignError::new(
            Class::NotReady,
            "nobody signs JWT-SVIDs for this node: set --controller-address, so that the controller \
             does (with the chart: jwt.enabled=true); a node with --signer local needs a jwt.key in --ca-dir",
        ))
    }
}

/// What a volume is certified as. Policy may assign another identity or key algorithm than a node,
/// which cannot read policy, asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assigned {
    /// The identity.
    pub id: SpiffeId,
    /// The algorithm of its keys.
    pub key_algorithm: KeyAlgorithm,
}

/// What a volume asks for.
#[derive(Debug)]
pub struct SignRequest {
    /// The volume that the SVID is for.
    pub volume: VolumeId,
    /// The pod that the volume belongs to.
    pub pod: PodInfo,
    /// The identity to be certified.
    pub id: SpiffeId,
    /// The lifetime wished for; the signer may give less.
    pub ttl: Duration,
    /// The same, if the pod asked for it.
    pub explicit_ttl: Option<Duration>,
    /// The key's algorithm, if the pod asked for it.
    pub explicit_key_algorithm: Option<KeyAlgorithm>,
    /// DNS names that the pod asked for, which only policy can allow.
    pub dns_names: Vec<DnsName>,
    /// The issuer that the pod asked for, which only policy can allow.
    pub issuer: Option<IssuerChoice>,
    /// The public key, with proof that the asker holds the private one.
    pub csr: Csr,
    /// The pod's own token, where kubelet gave one that is good now. A signer that needs it and has
    /// none answers [`SignError::no_pod_token`].
    pub pod_token: Option<Arc<PodToken>>,
}

/// What a JWT-SVID is asked for.
#[derive(Clone, Debug)]
pub struct JwtRequest {
    /// The volume through which it is asked for.
    pub volume: VolumeId,
    /// The pod that the volume belongs to.
    pub pod: PodInfo,
    /// The identity to be certified.
    pub id: SpiffeId,
    /// For whom the token is: at least one, none empty.
    pub audience: Vec<String>,
    /// The longest lifetime that is wanted. The signer gives its own (`--jwt-ttl`) if that is less.
    pub ttl: Duration,
    /// As in [`SignRequest`].
    pub pod_token: Option<Arc<PodToken>>,
}

// === impl Assigned ===

impl Assigned {
    /// Whether a workload of this trust domain can have the identity.
    pub fn is_possible(&self, own: &TrustDomain) -> bool {
        self.id.trust_domain() == own && self.id.is_workload() && !self.id.is_reserved()
    }
}

/// How a signer is doing.
#[derive(Debug)]
pub struct SignerStatus {
    /// `Err` says why nothing can be signed now.
    pub ready: Result<(), SignError>,
    /// When the first certificate of the signing chain ends, where it is known.
    pub ca_not_after: Option<SystemTime>,
}

/// Why nothing was signed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct SignError {
    class: Class,
    message: String,
    retry_after: Option<Duration>,
    assigned: Option<Box<Assigned>>,
    wants_pod_token: bool,
    lifetime: Option<Duration>,
}

// === impl SignError ===

impl SignError {
    /// An error of this class; `message` tells a person what to do.
    pub fn new(class: Class, message: impl Into<String>) -> Self {
        Self {
            class,
            message: message.into(),
            retry_after: None,
            assigned: None,
            wants_pod_token: false,
            lifetime: None,
        }
    }

    /// Nothing else is wrong than what was asked for: the next request must be for this.
    pub fn identity_is(assigned: Assigned) -> Self {
        let Assigned { id, key_algorithm } = &assigned;
        let message = format!("policy gives this pod {id} with a key of {key_algorithm}");
        Self { assigned: Some(Box::new(assigned)), ..Self::new(Class::Denied, message) }
    }

    /// The request has no token of its pod, and the signer needs one. Why it has none is for the node
    /// to say.
    pub fn no_pod_token() -> Self {
        Self::new(Class::NotReady, "the signer needs the pod's token").with_wish_for_token()
    }

    /// The same, where another token of the pod may mend it: kubelet's next one is tried at once.
    pub fn with_wish_for_token(self) -> Self {
        Self { wants_pod_token: true, ..self }
    }

    /// The lifetime was wrong: policy gives this one.
    pub fn with_lifetime(self, lifetime: Duration) -> Self {
        Self { lifetime: Some(lifetime), ..self }
    }

    /// The same, where it is known when the signer signs again: nobody waits much longer.
    pub fn with_retry_after(self, wait: Duration) -> Self {
        Self { retry_after: Some(wait), ..self }
    }

    /// What it means to the caller.
    pub fn class(&self) -> Class {
        self.class
    }

    /// What to ask for instead, where that is known.
    pub fn assigned(&self) -> Option<&Assigned> {
        self.assigned.as_deref()
    }

    /// Whether another token of the pod is what is missing.
    pub fn wants_pod_token(&self) -> bool {
        self.wants_pod_token
    }

    /// The lifetime that policy gives instead of the one that was supposed, where that is known.
    pub fn lifetime(&self) -> Option<Duration> {
        self.lifetime
    }

    /// How long to wait before the next try, where that is known.
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }
}
