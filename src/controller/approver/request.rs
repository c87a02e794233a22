//! A request for an identity, whatever way it came. Who reads one tells here what is proven and what
//! is only said; what is wrong with it already is kept, and told at its turn.

use std::{ops::RangeInclusive, time::Duration};

use super::{
    Denial, ReasonCode,
    policy::{MAX_TTL, MIN_TTL},
};
use crate::{
    id::{SpiffeId, TrustDomain},
    k8s::ObjectName,
    pki::{Csr, CsrError, DnsName, KeyAlgorithm, PublicKey},
};

/// A request for an identity.
#[derive(Clone, Debug)]
pub struct IdentityRequest<W = Wish> {
    /// Who asks, as the API server or a token proves it.
    pub requester: Result<Requester, Denial>,
    /// The pod that it is for, as the requester says.
    pub pod: Result<NamedPod, Denial>,
    /// By what the pod's specification must show that it wants an identity.
    pub uses: Uses,
    /// What is asked for, as the requester says.
    pub wish: Result<W, Denial>,
}

/// Who asks. A node reaches no further than its pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requester {
    /// The node's name.
    pub node: ObjectName,
    /// The node's UID.
    pub node_uid: String,
    /// The driver's pod there; nothing where the node's kubelet asks, and nobody else can.
    pub driver_pod: Option<NamedPod>,
}

/// A pod by its names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedPod {
    /// Its namespace and name.
    pub name: ObjectName,
    /// Its UID.
    pub uid: String,
    /// The name of the ServiceAccount that it runs as, where that is said too.
    pub service_account_name: Option<String>,
    /// The UID of the ServiceAccount that it runs as, where that is said too.
    pub service_account_uid: Option<String>,
}

/// What a pod has in its specification that is to have an identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Uses {
    /// An inline volume of the driver.
    Volume,
    /// A projected volume with a `podCertificate` of our signer.
    PodCertificate,
}

/// An X.509-SVID that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// The key to be certified; the requester has proven that it holds it.
    pub public_key: PublicKey,
    /// Its algorithm.
    pub key: KeyAlgorithm,
    /// Whether the pod asked for the key's algorithm.
    pub explicit_key: bool,
    /// The identity; nothing where it is left to policy.
    pub id: Option<SpiffeId>,
    /// The lifetime that the pod asked for.
    pub ttl: Option<Duration>,
    /// The lifetimes that the way it came can carry. A default is brought within.
    pub carried: RangeInclusive<Duration>,
    /// The DNS names that the pod asked for.
    pub dns_names: Vec<DnsName>,
}

/// More names make a certificate large, and are not meant for one pod.
const MAX_DNS_NAMES: usize = 16;

// === impl Wish ===

impl Wish {
    /// What a CSR asks for, and nothing beside it. Only what no policy could allow is refused.
    pub fn of_csr(csr: Result<Csr, CsrError>, own: &TrustDomain) -> Result<Self, Denial> {
        let csr = csr.map_err(unreadable)?;
        check_id(csr.id(), own)?;
        Ok(Self { id: Some(csr.id().clone()), ..Self::of_key(csr.public_key().clone())? })
    }

    /// A key to be certified as what policy gives.
    pub fn of_key(public_key: PublicKey) -> Result<Self, Denial> {
        let Some(key) = public_key.algorithm() else {
            let all = KeyAlgorithm::ALL.map(KeyAlgorithm::as_str).join(", ");
            return Err(Denial::new(
                ReasonCode::WeakKey,
                format!("the request's key is of an unsupported kind or size; use one of {all}"),
            ));
        };
        Ok(Self {
            public_key,
            key,
            explicit_key: false,
            id: None,
            ttl: None,
            carried: possible_ttls(),
            dns_names: Vec::new(),
        })
    }

    /// With the key algorithm that the pod asked for, by its name; `said` is where it says so.
    pub fn asking_for_key(self, name: &str, said: &str) -> Result<Self, Denial> {
        let problem = match name.parse::<KeyAlgorithm>() {
            Ok(wanted) if wanted == self.key => return Ok(Self { explicit_key: true, ..self }),
            Ok(wanted) => {
                format!("the pod asks for a key of {wanted}, the request has one of {}", self.key)
            }
            Err(error) => format!("{said}: {error}"),
        };
        Err(Denial::new(ReasonCode::WrongKeyAlgorithm, problem))
    }

    /// With the DNS names that the pod asked for; `said` is where it says so.
    pub fn asking_for_names<'a>(
        self,
        texts: impl IntoIterator<Item = &'a str>,
        said: &str,
    ) -> Result<Self, Denial> {
        let malformed = |problem: String| {
            Denial::new(ReasonCode::MalformedDnsNames, format!("{said}: {problem}"))
        };
        let mut names: Vec<DnsName> = Vec::new();
        for text in texts {
            let name =
                text.parse().map_err(|error| malformed(format!("{}: {error}", shown(text))))?;
            if names.contains(&name) {
                return Err(malformed(format!("{name} is there twice")));
            }
            if names.len() == MAX_DNS_NAMES {
                return Err(malformed(format!("more than {MAX_DNS_NAMES} names")));
            }
            names.push(name);
        }
        Ok(Self { dns_names: names, ..self })
    }
}

/// What is wrong with a request for a key.
pub fn unreadable(error: CsrError) -> Denial {
    let reason = match &error {
        CsrError::Pem | CsrError::Malformed | CsrError::Create(_) => ReasonCode::MalformedCsr,
        CsrError::Signature => ReasonCode::BadSignature,
        CsrError::Subject => ReasonCode::SubjectNotEmpty,
        CsrError::Attributes | CsrError::NotEmpty => ReasonCode::ForbiddenAttribute,
        CsrError::Extensions => ReasonCode::ForbiddenExtension,
        CsrError::Names | CsrError::DnsNames => ReasonCode::ForbiddenName,
        CsrError::Id(_) => ReasonCode::NotASpiffeId,
        CsrError::Unprovable => ReasonCode::WeakKey,
    };
    Denial::new(reason, error.to_string())
}

/// Refuses an identity that no policy could give.
pub fn check_id(id: &SpiffeId, own: &TrustDomain) -> Result<(), Denial> {
    if id.trust_domain() != own {
        return Err(Denial::new(
            ReasonCode::ForeignTrustDomain,
            format!("the request is for {id}; this controller signs for {own}"),
        ));
    }
    if id.is_reserved() {
        return Err(Denial::new(
            ReasonCode::ReservedId,
            format!("{id} is reserved for the controller"),
        ));
    }
    Ok(())
}

/// The lifetimes that some policy could give.
pub fn possible_ttls() -> RangeInclusive<Duration> {
    MIN_TTL..=MAX_TTL
}

/// Text of unknown origin, quoted and cut.
pub fn shown(text: &str) -> String {
    let cut: String = text.chars().take(64).collect();
    let more = if cut.len() < text.len() { "…" } else { "" };
    format!("{cut:?}{more}")
}
