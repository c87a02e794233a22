//! Policies, read and checked once for each version of them.

use std::{cmp::Reverse, sync::Arc, time::Duration};

use super::{jwt_terms::JwtTerms, rule::Rule, selector::Selector};
use crate::{
    id::{DnsTemplate, IdTemplate, TrustDomain},
    k8s::{IssuerRef, NamespaceFacts, PodFacts, PolicyFacts, SvidPolicySpec},
    pki::KeyAlgorithm,
    volume::duration,
};

/// One policy, ready for use or known to be broken.
#[derive(Clone, Debug)]
pub struct Policy {
    name: String,
    uid: String,
    generation: i64,
    priority: i32,
    selector: Selector,
    terms: Result<Terms, PolicyProblem>,
}

/// What a policy grants.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    pub(super) id: IdTemplate,
    pub(super) default_ttl: Duration,
    pub(super) max_ttl: Duration,
    /// Never empty.
    pub(super) key_algorithms: Vec<KeyAlgorithm>,
    pub(super) dns_names: Vec<DnsTemplate>,
    pub(super) jwt: JwtTerms,
    pub(super) federates_with: Vec<TrustDomain>,
    /// Those that a pod may name beside the installation's.
    pub(super) issuers: Vec<IssuerRef>,
    pub(super) rules: Vec<Rule>,
}

/// What is wrong with a policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct PolicyProblem {
    reason: &'static str,
    message: String,
}

/// All policies, in the order in which they apply.
#[derive(Clone, Debug, Default)]
pub struct PolicySet {
    policies: Vec<Arc<Policy>>,
}

/// No SVID lives shorter.
pub(super) const MIN_TTL: Duration = Duration::from_secs(10);
/// No policy allows more.
pub(super) const MAX_TTL: Duration = Duration::from_secs(24 * 3600);

// === impl PolicySet ===

impl PolicySet {
    /// Reads these policies. Of `previous` those are taken over that have not changed.
    pub fn compile<'a>(
        policies: impl IntoIterator<Item = &'a PolicyFacts>,
        previous: Option<&Self>,
    ) -> Self {
        let known = |facts: &PolicyFacts| {
            let mut known = previous?.policies.iter();
            known.find(|policy| policy.is_of(facts)).map(Arc::clone)
        };
        let mut policies: Vec<_> = policies
            .into_iter()
            .map(|facts| known(facts).unwrap_or_else(|| Arc::new(Policy::read(facts))))
            .collect();
        policies
            .sort_by(|a, b| (Reverse(a.priority), &a.name).cmp(&(Reverse(b.priority), &b.name)));
        Self { policies }
    }

    /// The one policy that applies to a pod: the first that matches, broken or not.
    pub fn applying(&self, pod: &PodFacts, namespace: &NamespaceFacts) -> Option<&Policy> {
        self.iter().find(|policy| policy.matches(pod, namespace))
    }

    /// All of them, in the order in which they apply.
    pub fn iter(&self) -> impl Iterator<Item = &Policy> {
        self.policies.iter().map(Arc::as_ref)
    }
}

// === impl Policy ===

impl Policy {
    fn read(facts: &PolicyFacts) -> Self {
        let (selector, problems) = Selector::read(&facts.spec.selector);
        let terms = match problems.into_iter().next() {
            Some(problem) => Err(PolicyProblem::new("InvalidSelector", problem)),
            None => Terms::read(&facts.spec),
        };
        Self {
            name: facts.name.clone(),
            uid: facts.uid.clone(),
            generation: facts.generation,
            priority: facts.spec.priority,
            selector,
            terms,
        }
    }

    fn is_of(&self, facts: &PolicyFacts) -> bool {
        // Objects that never were in a cluster have neither UID nor generation.
        !self.uid.is_empty() && self.uid == facts.uid && self.generation == facts.generation
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Which version of it this is.
    pub fn generation(&self) -> i64 {
        self.generation
    }

    /// Its rank among policies that match.
    pub fn priority(&self) -> i32 {
        self.priority
    }

    /// What is wrong with it. A broken policy denies whatever it applies to.
    pub fn problem(&self) -> Option<&PolicyProblem> {
        self.terms.as_ref().err()
    }

    /// Whether it is for this pod. Whether it applies depends on the other policies.
    pub fn matches(&self, pod: &PodFacts, namespace: &NamespaceFacts) -> bool {
        self.selector.matches(pod, namespace)
    }

    /// The longest lifetime, the key algorithms and the DNS name templates that it allows.
    pub fn allows(&self) -> Option<(Duration, &[KeyAlgorithm], &[DnsTemplate])> {
        let terms = self.terms.as_ref().ok()?;
        Some((terms.max_ttl, &terms.key_algorithms, &terms.dns_names))
    }

    /// The issuers that a pod may name beside the installation's.
    pub fn issuers(&self) -> &[IssuerRef] {
        self.terms.as_ref().map_or(&[], |terms| &terms.issuers)
    }

    pub(super) fn terms(&self) -> Result<&Terms, &PolicyProblem> {
        self.terms.as_ref()
    }
}

// === impl Terms ===

impl Terms {
    fn read(spec: &SvidPolicySpec) -> Result<Self, PolicyProblem> {
        let id = spec.id.parse().map_err(|error| PolicyProblem::at("InvalidID", "id", error))?;
        let default_ttl = ttl("x509.defaultTTL", &spec.x509.default_ttl)?;
        let max_ttl = ttl("x509.maxTTL", &spec.x509.max_ttl)?;
        let key_algorithms: Vec<KeyAlgorithm> =
            each("InvalidKeyAlgorithm", "x509.keyAlgorithms", &spec.x509.key_algorithms)?;
        if key_algorithms.is_empty() {
            let problem = "x509.keyAlgorithms: name one at least, or leave the field out";
            return Err(PolicyProblem::new("InvalidKeyAlgorithm", problem));
        }
        Ok(Self {
            id,
            default_ttl: default_ttl.min(max_ttl),
            max_ttl,
            key_algorithms,
            dns_names: each("InvalidDNSName", "dnsNames", &spec.dns_names)?,
            jwt: JwtTerms::read(&spec.jwt)?,
            issuers: each("InvalidIssuer", "issuers", &spec.issuers)?,
            federates_with: each("InvalidTrustDomain", "federatesWith", &spec.federates_with)?,
            rules: spec.rules.iter().map(Rule::compile).collect::<Result<_, _>>()?,
        })
    }
}

pub(super) fn ttl(field: &'static str, text: &str) -> Result<Duration, PolicyProblem> {
    let problem = |error: String| PolicyProblem::at("InvalidTTL", field, error);
    let ttl = duration::parse(text).map_err(|error| problem(error.to_string()))?;
    match (MIN_TTL..=MAX_TTL).contains(&ttl) {
        true => Ok(ttl),
        false => Err(problem(format!(
            "{text} is out of range; a lifetime is {} to {}",
            duration::format(MIN_TTL),
            duration::format(MAX_TTL)
        ))),
    }
}

pub(super) fn each<'t, T: std::str::FromStr<Err: std::fmt::Display>>(
    reason: &'static str,
    field: &'static str,
    texts: impl IntoIterator<Item = &'t String>,
) -> Result<Vec<T>, PolicyProblem> {
    let parse = |text: &String| {
        text.parse().map_err(|error: T::Err| {
            PolicyProblem::at(reason, field, format_args!("{text:?}: {error}"))
        })
    };
    texts.into_iter().map(parse).collect()
}

// === impl PolicyProblem ===

impl PolicyProblem {
    pub(super) fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }

    fn at(reason: &'static str, field: &str, problem: impl std::fmt::Display) -> Self {
        Self::new(reason, format!("{field}: {problem}"))
    }

    /// The reason of the condition Ready.
    pub fn reason(&self) -> &'static str {
        self.reason
    }
}
