//! A CertificateSigningRequest as a request for an identity. The driver writes its annotations; who
//! made it is what the API server wrote.

use std::time::Duration;

use crate::{
    controller::{
        annotated,
        approver::{
            ApproverSettings, Denial, IdentityRequest, ReasonCode, Requester, Uses, Wish,
            possible_ttls,
        },
    },
    k8s::{
        RequestFacts,
        names::{MIN_EXPIRATION_SECONDS, NODE_UID_LABEL, SIGNER, USAGES},
    },
};

/// Reads this version of a request.
pub fn read(request: &RequestFacts, settings: &ApproverSettings) -> IdentityRequest {
    IdentityRequest {
        requester: requester(request, settings),
        pod: annotated::pod(&request.annotations),
        uses: Uses::Volume,
        wish: wish(request, settings),
    }
}

fn requester(request: &RequestFacts, settings: &ApproverSettings) -> Result<Requester, Denial> {
    if request.signer_name != SIGNER {
        return Err(Denial::new(
            ReasonCode::WrongSigner,
            format!("the request is for signer {}, not for {SIGNER}", request.signer_name),
        ));
    }
    let requester = annotated::requester(&request.username, &request.extra, settings)?;
    match request.labels.get(NODE_UID_LABEL) {
        Some(label) if *label == requester.node_uid => Ok(requester),
        _ => Err(Denial::new(
            ReasonCode::NodeLabelMismatch,
            format!(
                "the label {NODE_UID_LABEL} must be the requester's node, {}",
                requester.node_uid
            ),
        )),
    }
}

fn wish(request: &RequestFacts, settings: &ApproverSettings) -> Result<Wish, Denial> {
    let wish = annotated::wish(&request.request, &request.annotations, settings)?;
    usages(request)?;
    expiration(request, wish.ttl)?;
    Ok(wish)
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

/// `expirationSeconds` is what the lifetime makes it. Without a lifetime the node supposes one, so
/// any that some policy could give will do; what is granted is the policy's.
fn expiration(request: &RequestFacts, ttl: Option<Duration>) -> Result<(), Denial> {
    let given = request.expiration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    let at_least = |ttl: Duration| ttl.as_secs().max(MIN_EXPIRATION_SECONDS);
    let possible = possible_ttls();
    let allowed = match ttl {
        Some(ttl) => at_least(ttl)..=at_least(ttl),
        None => at_least(*possible.start())..=at_least(*possible.end()),
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
