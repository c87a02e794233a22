//! The decision on a request whose issuer signs what the request says: what policy gives must stand
//! there, all of it.

use std::time::Duration;

use super::{Decision, Denial, Grant, Question, ReasonCode, Wish, grant, who, whom};
use crate::{
    k8s::{IssuerRef, LifetimeIs},
    volume::duration,
};

/// What a CertificateRequest asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateWish {
    /// What its CSR asks for, DNS names too, and the annotations beside it.
    pub wish: Wish,
    /// The lifetime that it will have.
    pub lifetime: Duration,
    /// Who signs it.
    pub issuer: IssuerRef,
    /// Whether that is the issuer for pods that name none.
    pub is_default: bool,
}

/// Decides. The same question always has the same answer.
pub fn decide_certificate(question: &Question<'_, CertificateWish>) -> Decision {
    match check(question) {
        Ok(grant) => Decision::Approve(Box::new(grant)),
        Err(denial) => Decision::Deny(denial),
    }
}

fn check(question: &Question<'_, CertificateWish>) -> Result<Grant, Denial> {
    let requester = who::check(question)?;
    let subject = whom::check(question, requester)?;
    let asked = question.request.wish.as_ref().map_err(Clone::clone)?;
    let policy = grant::applying(question, &subject)?;
    let allowed = &grant::terms(policy)?.issuers;
    if !asked.is_default && !allowed.contains(&asked.issuer) {
        let names: Vec<String> = allowed.iter().map(ToString::to_string).collect();
        return Err(Denial::new(
            ReasonCode::IssuerNotAllowed,
            format!(
                "the pod asks for the issuer {}; the policy {} allows the installation's and {}",
                asked.issuer,
                policy.name(),
                if names.is_empty() { "no other".to_owned() } else { names.join(", ") }
            ),
        ));
    }
    let grant = grant::check(question, &subject, &asked.wish)?;
    if grant.ttl != asked.lifetime {
        let message = format!(
            "the policy {} gives a lifetime of {}; the request is for {}",
            grant.policy,
            duration::format(grant.ttl),
            duration::format(asked.lifetime)
        );
        return Err(Denial::lifetime_is(LifetimeIs { ttl_seconds: grant.ttl.as_secs() }, message));
    }
    Ok(grant)
}
