//! What policy makes of it: the identity, the lifetime, the names, and the rules.

use std::time::Duration;

use super::{
    Denial, Grant, Policy, Question, ReasonCode, RuleVerdict, Wish,
    policy::{MIN_TTL, Terms},
    rule::{self, Asked},
    whom::Subject,
};
use crate::{
    id::SpiffeId,
    k8s::IdentityIs,
    pki::{DnsName, KeyAlgorithm},
    volume::duration,
};

/// Decides by the one policy that applies.
pub(super) fn check<W>(
    question: &Question<'_, W>,
    subject: &Subject<'_>,
    wish: &Wish,
) -> Result<Grant, Denial> {
    let policy = applying(question, subject)?;
    let name = policy.name();
    let terms = terms(policy)?;
    let id = identity(question, subject, name, terms)?;
    let ttl = lifetime(name, terms, wish)?;
    let key = key_algorithm(name, terms, wish)?;
    let dns_names = dns_names(question, subject, name, terms, &wish.dns_names)?;
    // Before the rules: they are to judge what is going to be asked for, not what was supposed.
    if wish.id.as_ref().is_some_and(|asked| *asked != id) || wish.key != key {
        let asked = wish.id.as_ref().unwrap_or(&id);
        let message = format!(
            "the policy {name} gives {id} and a key of {key}; the request is for {asked} with {}",
            wish.key
        );
        return Err(Denial::identity_is(IdentityIs { id, key_algorithm: key }, message));
    }
    let asked = Asked { id: &id, ttl, key: Some(key), dns_names, audience: &[] };
    rule::check(name, &terms.rules, subject, &asked)?;
    Ok(Grant {
        policy: name.to_owned(),
        id,
        ttl,
        dns_names: dns_names.to_vec(),
        federates_with: terms.federates_with.clone(),
        public_key: wish.public_key.clone(),
    })
}

/// What each rule of the policy that applies says, as far as it comes to that.
pub(super) fn rules(
    question: &Question<'_>,
    subject: &Subject<'_>,
    wish: &Wish,
) -> Vec<RuleVerdict> {
    let verdicts = || {
        let policy = applying(question, subject).ok()?;
        let name = policy.name();
        let terms = policy.terms().ok()?;
        let id = identity(question, subject, name, terms).ok()?;
        let ttl = lifetime(name, terms, wish).ok()?;
        let key = key_algorithm(name, terms, wish).ok()?;
        let asked =
            Asked { id: &id, ttl, key: Some(key), dns_names: &wish.dns_names, audience: &[] };
        let verdict = |(rule, verdict): (&rule::Rule, _)| RuleVerdict {
            name: rule.name().to_owned(),
            verdict,
            message: rule.message().to_owned(),
        };
        Some(rule::judge(&terms.rules, subject, &asked).map(verdict).collect())
    };
    verdicts().unwrap_or_default()
}

pub(super) fn applying<'a, W>(
    question: &Question<'a, W>,
    subject: &Subject<'_>,
) -> Result<&'a Policy, Denial> {
    question.policies.applying(subject.pod, subject.namespace).ok_or_else(|| {
        Denial::new(
            ReasonCode::NoPolicy,
            format!(
                "no SvidPolicy matches the pod {}; `svid-csi policy test` shows why",
                subject.pod.object_name()
            ),
        )
    })
}

/// What a policy that can be used says.
pub(super) fn terms(policy: &Policy) -> Result<&Terms, Denial> {
    policy.terms().map_err(|problem| {
        Denial::new(
            ReasonCode::PolicyInvalid,
            format!("the policy {} applies and is invalid: {problem}", policy.name()),
        )
    })
}

pub(super) fn identity<W>(
    question: &Question<'_, W>,
    subject: &Subject<'_>,
    policy: &str,
    terms: &Terms,
) -> Result<SpiffeId, Denial> {
    let own = &question.settings.trust_domain;
    terms.id.render(own, &subject.template_input()).map_err(|error| {
        Denial::new(
            ReasonCode::NoIdentity,
            format!("the policy {policy} gives this pod no legal ID by {}: {error}", terms.id),
        )
    })
}

/// What isn't asked for is the policy's default, which is never above its limit.
fn lifetime(policy: &str, terms: &Terms, wish: &Wish) -> Result<Duration, Denial> {
    let (shortest, longest) = (*wish.carried.start(), *wish.carried.end());
    if terms.max_ttl < shortest {
        return Err(Denial::new(
            ReasonCode::TtlNotAllowed,
            format!(
                "the policy {policy} allows a lifetime of {} at most, and a certificate that is asked \
                 for in this way lives {} at least",
                duration::format(terms.max_ttl),
                duration::format(shortest)
            ),
        ));
    }
    let Some(ttl) = wish.ttl else { return Ok(terms.default_ttl.max(shortest).min(longest)) };
    let (shortest, longest) = (shortest.max(MIN_TTL), longest.min(terms.max_ttl));
    match (shortest..=longest).contains(&ttl) {
        true => Ok(ttl),
        false => Err(Denial::new(
            ReasonCode::TtlNotAllowed,
            format!(
                "the pod asks for a lifetime of {}; the policy {policy} allows {} to {}",
                duration::format(ttl),
                duration::format(shortest),
                duration::format(longest)
            ),
        )),
    }
}

/// What isn't asked for is the policy's first.
fn key_algorithm(policy: &str, terms: &Terms, wish: &Wish) -> Result<KeyAlgorithm, Denial> {
    let allowed = &terms.key_algorithms;
    match allowed.first() {
        Some(first) if !wish.explicit_key => Ok(*first),
        _ if allowed.contains(&wish.key) => Ok(wish.key),
        _ => Err(Denial::new(
            ReasonCode::KeyAlgorithmNotAllowed,
            format!(
                "the pod asks for a key of {}; the policy {policy} allows {}",
                wish.key,
                allowed.iter().map(|one| one.as_str()).collect::<Vec<_>>().join(", ")
            ),
        )),
    }
}

fn dns_names<'w, W>(
    question: &Question<'_, W>,
    subject: &Subject<'_>,
    policy: &str,
    terms: &Terms,
    wanted: &'w [DnsName],
) -> Result<&'w [DnsName], Denial> {
    if wanted.is_empty() {
        return Ok(wanted);
    }
    let input = subject.template_input();
    // A template that gives this pod no name, as for want of a label, allows none.
    let allowed: Vec<DnsName> = terms
        .dns_names
        .iter()
        .filter_map(|template| template.render(&question.settings.trust_domain, &input).ok())
        .filter_map(|name| name.parse().ok())
        .collect();
    match wanted.iter().find(|name| !allowed.contains(name)) {
        None => Ok(wanted),
        Some(name) => {
            let allowed: Vec<_> = allowed.iter().map(DnsName::as_str).collect();
            let allowed = match allowed.as_slice() {
                [] => "none".to_owned(),
                names => names.join(", "),
            };
            Err(Denial::new(
                ReasonCode::DnsNameNotAllowed,
                format!(
                    "the pod asks for the DNS name {name}; the policy {policy} allows it {allowed}"
                ),
            ))
        }
    }
}
