//! What is asked for: the CSR and the wishes beside it. Read before policy is asked, so that here
//! only what no policy could allow is refused.

use std::time::Duration;

use super::{
    Denial, Question, ReasonCode,
    policy::{MAX_TTL, MIN_TTL},
};
use crate::{
    k8s::{
        RequestFacts,
        names::{MIN_EXPIRATION_SECONDS, USAGES, annotation},
    },
    pki::{Csr, CsrError, DnsName, KeyAlgorithm},
    volume::duration,
};

/// A request that is well-formed.
#[derive(Clone, Debug)]
pub(super) struct Wish {
    pub(super) csr: Csr,
    /// The algorithm of the CSR's key.
    pub(super) key: KeyAlgorithm,
    /// The lifetime that the pod asked for.
    pub(super) ttl: Option<Duration>,
    /// Whether the pod asked for the key's algorithm.
    pub(super) explicit_key: bool,
    /// The DNS names that the pod asked for.
    pub(super) dns_names: Vec<DnsName>,
}

/// All the annotations that the driver writes.
const KNOWN: [&str; 6] = [
    annotation::POD_NAMESPACE,
    annotation::POD_NAME,
    annotation::POD_UID,
    annotation::TTL,
    annotation::KEY_ALGORITHM,
    annotation::DNS_NAMES,
];
/// More names make a certificate large, and are not meant for one pod.
const MAX_DNS_NAMES: usize = 16;
/// An RSA-4096 request has less than 2 KiB.
const MAX_CSR: usize = 16 << 10;

/// Checks everything about what is asked for.
pub(super) fn check(question: &Question<'_>) -> Result<Wish, Denial> {
    let request = question.request;
    let unknown = request
        .annotations
        .keys()
        .find(|key| key.starts_with(annotation::PREFIX) && !KNOWN.contains(&key.as_str()));
    if let Some(key) = unknown {
        return Err(Denial::new(
            ReasonCode::UnknownAnnotation,
            format!(
                "the annotation {} is unknown; the driver may be newer than the controller",
                shown(key)
            ),
        ));
    }
    let csr = csr(&request.request)?;
    let own = &question.settings.trust_domain;
    if csr.id().trust_domain() != own {
        return Err(Denial::new(
            ReasonCode::ForeignTrustDomain,
            format!("the request is for {}; this controller signs for {own}", csr.id()),
        ));
    }
    if csr.id().path().strip_prefix("/svid.dev").is_some_and(is_end) {
        return Err(Denial::new(
            ReasonCode::ReservedId,
            format!("{} is reserved for the controller", csr.id()),
        ));
    }
    let Some(key) = csr.key_algorithm() else {
        let all = KeyAlgorithm::ALL.map(KeyAlgorithm::as_str).join(", ");
        return Err(Denial::new(
            ReasonCode::WeakKey,
            format!("the request's key is of an unsupported kind or size; use one of {all}"),
        ));
    };
    usages(request)?;
    let ttl = ttl(request)?;
    expiration(request, ttl)?;
    let explicit_key = explicit_key(request, key)?;
    Ok(Wish { key, ttl, explicit_key, dns_names: dns_names(request)?, csr })
}

fn csr(pem: &[u8]) -> Result<Csr, Denial> {
    let text = std::str::from_utf8(pem).ok().filter(|text| text.len() <= MAX_CSR);
    let parsed = match text {
        Some(text) => Csr::from_pem(text),
        None => Err(CsrError::Pem),
    };
    parsed.map_err(|error| {
        let reason = match &error {
            CsrError::Pem | CsrError::Malformed | CsrError::Create(_) => ReasonCode::MalformedCsr,
            CsrError::Signature => ReasonCode::BadSignature,
            CsrError::Subject => ReasonCode::SubjectNotEmpty,
            CsrError::Attributes => ReasonCode::ForbiddenAttribute,
            CsrError::Extensions => ReasonCode::ForbiddenExtension,
            CsrError::Names | CsrError::DnsNames => ReasonCode::ForbiddenName,
            CsrError::Id(_) => ReasonCode::NotASpiffeId,
        };
        Denial::new(reason, error.to_string())
    })
}

fn is_end(rest: &str) -> bool {
    rest.is_empty() || rest.starts_with('/')
}

fn usages(request: &RequestFacts) -> Result<(), Denial> {
    let exactly = request.usages.len() == USAGES.len()
        && USAGES.iter().all(|usage| request.usages.iter().any(|given| given == usage));
    match exactly {
        true => Ok(()),
        false => Err(Denial::new(
            ReasonCode::WrongUsages,
            format!("the usages must be exactly {}", USAGES.join(", ")),
        )),
    }
}

fn ttl(request: &RequestFacts) -> Result<Option<Duration>, Denial> {
    let Some(text) = request.annotations.get(annotation::TTL) else { return Ok(None) };
    duration::parse(text).map(Some).map_err(|error| {
        Denial::new(
            ReasonCode::MalformedTtl,
            format!("the annotation {} is {}: {error}", annotation::TTL, shown(text)),
        )
    })
}

/// `expirationSeconds` is what the lifetime makes it. Without a lifetime the node supposes one, so
/// any that some policy could give will do; what is granted is the policy's.
fn expiration(request: &RequestFacts, ttl: Option<Duration>) -> Result<(), Denial> {
    let given = request.expiration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    let at_least = |seconds: u64| seconds.max(MIN_EXPIRATION_SECONDS);
    let allowed = match ttl {
        Some(ttl) => at_least(ttl.as_secs())..=at_least(ttl.as_secs()),
        None => at_least(MIN_TTL.as_secs())..=at_least(MAX_TTL.as_secs()),
    };
    match given {
        Some(given) if allowed.contains(&given) => Ok(()),
        _ => Err(Denial::new(
            ReasonCode::WrongExpiration,
            format!(
                "expirationSeconds is {}; for the lifetime asked for it must be {}",
                request.expiration_seconds.map_or("absent".to_owned(), |given| given.to_string()),
                match allowed.start() == allowed.end() {
                    true => allowed.start().to_string(),
                    false => format!("{} to {}", allowed.start(), allowed.end()),
                }
            ),
        )),
    }
}

fn explicit_key(request: &RequestFacts, key: KeyAlgorithm) -> Result<bool, Denial> {
    let Some(name) = request.annotations.get(annotation::KEY_ALGORITHM) else { return Ok(false) };
    match name.parse::<KeyAlgorithm>() {
        Ok(wanted) if wanted == key => Ok(true),
        Ok(wanted) => Err(Denial::new(
            ReasonCode::WrongKeyAlgorithm,
            format!("the pod asks for a key of {wanted}, the request has one of {key}"),
        )),
        Err(error) => Err(Denial::new(
            ReasonCode::WrongKeyAlgorithm,
            format!("the annotation {}: {error}", annotation::KEY_ALGORITHM),
        )),
    }
}

fn dns_names(request: &RequestFacts) -> Result<Vec<DnsName>, Denial> {
    let Some(text) = request.annotations.get(annotation::DNS_NAMES) else { return Ok(Vec::new()) };
    let malformed = |problem: String| {
        let name = annotation::DNS_NAMES;
        Denial::new(ReasonCode::MalformedDnsNames, format!("the annotation {name}: {problem}"))
    };
    let mut names: Vec<DnsName> = Vec::new();
    for part in text.split(',') {
        let part = part.trim();
        let name = part.parse().map_err(|error| malformed(format!("{}: {error}", shown(part))))?;
        if names.contains(&name) {
            return Err(malformed(format!("{name} is there twice")));
        }
        if names.len() == MAX_DNS_NAMES {
            return Err(malformed(format!("more than {MAX_DNS_NAMES} names")));
        }
        names.push(name);
    }
    Ok(names)
}

/// Text of unknown origin, quoted and cut.
fn shown(text: &str) -> String {
    let cut: String = text.chars().take(64).collect();
    let more = if cut.len() < text.len() { "…" } else { "" };
    format!("{cut:?}{more}")
}
