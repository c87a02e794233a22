//! The decision on a JWT-SVID: the same pod, the same policy, the same rules as for X.509.

use std::{collections::BTreeMap, time::Duration};

use super::{
    Decision, Denial, Question, ReasonCode, check_id,
    grant::{applying, identity, terms},
    jwt_terms::JwtTerms,
    policy::MIN_TTL,
    rule::{self, Asked},
    shown, who,
    whom::{self, Subject},
};
use crate::{
    id::{ClaimTemplate, SpiffeId, TrustDomain},
    volume::{AudienceSet, duration},
};

/// A JWT-SVID that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtWish {
    /// For whom.
    pub audience: AudienceSet,
    /// The identity.
    pub id: SpiffeId,
    /// The longest lifetime that is wanted.
    pub ttl: Option<Duration>,
}

/// A JWT-SVID that may be signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtGrant {
    /// The name of the policy that applies.
    pub policy: String,
    /// The identity.
    pub id: SpiffeId,
    /// For whom, sorted.
    pub audience: Vec<String>,
    /// The lifetime.
    pub ttl: Duration,
    /// Claims beside those of every JWT-SVID.
    pub claims: BTreeMap<String, String>,
}

/// Decides on a JWT-SVID. The same question always has the same answer.
pub fn decide_jwt(question: &Question<'_, JwtWish>) -> Decision<JwtGrant> {
    match grant(question) {
        Ok(grant) => Decision::Approve(Box::new(grant)),
        Err(denial) => Decision::Deny(denial),
    }
}

fn grant(question: &Question<'_, JwtWish>) -> Result<JwtGrant, Denial> {
    let requester = who::check(question)?;
    let subject = whom::check(question, requester)?;
    let wish = question.request.wish.as_ref().map_err(Clone::clone)?;
    let policy = applying(question, &subject)?;
    let name = policy.name();
    let terms = terms(policy)?;
    let id = identity(question, &subject, name, terms)?;
    if wish.id != id {
        return Err(Denial::new(
            ReasonCode::OtherIdentity,
            format!("the policy {name} gives this pod {id}; the request is for {}", wish.id),
        ));
    }
    let audience = wish.audience.as_slice();
    if let Some((allowed, missing)) = terms.jwt.audiences.lack(audience) {
        return Err(forbidden(name, missing, allowed));
    }
    let ttl = lifetime(name, &terms.jwt, wish)?;
    let claims = claims(question, &subject, name, &terms.jwt)?;
    let asked = Asked { id: &id, ttl, key: None, dns_names: &[], audience };
    rule::check(name, &terms.rules, &subject, &asked)?;
    Ok(JwtGrant { policy: name.to_owned(), id, audience: audience.to_vec(), ttl, claims })
}

fn forbidden(policy: &str, audience: &str, allowed: &[String]) -> Denial {
    const SHOWN: usize = 4;
    let message = match allowed {
        [] => format!(
            "the policy {policy} allows no JWT-SVIDs; name the audience {} in spec.jwt.audiences, \
             or [\"*\"] for any",
            shown(audience)
        ),
        some => {
            let more = if some.len() > SHOWN { ", …" } else { "" };
            let some: Vec<_> = some.iter().take(SHOWN).map(|one| shown(one)).collect();
            format!(
                "the pod asks for the audience {}; the policy {policy} allows {}{more}, to the \
                 letter (spec.jwt.audiences)",
                shown(audience),
                some.join(", ")
            )
        }
    };
    Denial::new(ReasonCode::AudienceNotAllowed, message)
}

/// What is wanted is a bound, not a demand: the node cannot know the policy's.
fn lifetime(policy: &str, terms: &JwtTerms, wish: &JwtWish) -> Result<Duration, Denial> {
    let ttl = wish.ttl.map_or(terms.max_ttl, |longest| longest.min(terms.max_ttl));
    match ttl >= MIN_TTL {
        true => Ok(ttl),
        false => Err(Denial::new(
            ReasonCode::TtlNotAllowed,
            format!(
                "the request is for a JWT-SVID of {} at most; the policy {policy} allows {} to {}",
                duration::format(ttl),
                duration::format(MIN_TTL),
                duration::format(terms.max_ttl)
            ),
        )),
    }
}

fn claims(
    question: &Question<'_, JwtWish>,
    subject: &Subject<'_>,
    policy: &str,
    terms: &JwtTerms,
) -> Result<BTreeMap<String, String>, Denial> {
    let own = &question.settings.trust_domain;
    let input = subject.template_input();
    let render = |(name, template): &(String, ClaimTemplate)| {
        let value = template.render(own, &input).map_err(|error| {
            Denial::new(
                ReasonCode::NoClaim,
                format!(
                    "the policy {policy} gives this pod no claim {name} by {template}: {error}"
                ),
            )
        })?;
        Ok((name.clone(), value))
    };
    terms.claims.iter().map(render).collect()
}

// === impl JwtWish ===

impl JwtWish {
    /// What a node asks for; only what no policy could allow is refused. Order and repetition of
    /// audiences don't count.
    pub fn new(
        id: &str,
        audience: Vec<String>,
        ttl: Option<Duration>,
        own: &TrustDomain,
    ) -> Result<Self, Denial> {
        let id: SpiffeId = id.parse().map_err(|error| {
            Denial::new(ReasonCode::NotASpiffeId, format!("{}: {error}", shown(id)))
        })?;
        check_id(&id, own)?;
        let audience = AudienceSet::new(audience)
            .map_err(|error| Denial::new(ReasonCode::MalformedAudience, error.to_string()))?;
        Ok(Self { audience, id, ttl })
    }
}
