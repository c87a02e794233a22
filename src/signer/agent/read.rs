//! From the agent's messages to what they say. Nothing in them is believed: they are bounded and
//! parsed, and verified by whoever uses them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use serde::Deserialize;
use serde_json::Value;
use svid_csi_proto::spire::api::agent::delegatedidentity::v1::{
    SubscribeToX509sviDsResponse, X509svidWithKey,
};
use tracing::warn;
use zeroize::Zeroizing;

use crate::{
    class::Class,
    id::{SpiffeId, TrustDomain},
    jose::{JwkError, JwtAuthority},
    pki::{Certificate, PrivateKey, TrustBundle, X509Svid, certificates_from_der},
    signer::{HandedOut, KeyedSvid, SignError},
};

/// The most identities of one pod.
const MAX_SVIDS: usize = 100;
/// The most certificates of a chain.
const MAX_CHAIN: usize = 16;
/// The most trust domains that an agent may federate with: there is room for them in a volume.
const MAX_FEDERATED: usize = 100;

/// The JWT authorities of each trust domain.
pub(super) type JwtBundles = BTreeMap<TrustDomain, Vec<JwtAuthority>>;

/// The X.509 bundle of each trust domain, the own one among them.
pub(super) type X509Bundles = BTreeMap<TrustDomain, TrustBundle>;

/// What a pod is given; `None` if no registration entry matches.
pub(super) fn handed_out(
    response: SubscribeToX509sviDsResponse,
) -> Result<Option<HandedOut>, SignError> {
    let SubscribeToX509sviDsResponse { x509_svids, federates_with } = response;
    if x509_svids.len() > MAX_SVIDS || federates_with.len() > MAX_FEDERATED {
        return Err(wrong("more identities or federated trust domains than are taken"));
    }
    if x509_svids.is_empty() {
        return Ok(None);
    }
    let mut svids = Vec::new();
    let mut bad = None;
    for svid in x509_svids {
        match keyed_svid(svid) {
            Ok(svid) => svids.push(svid),
            // Another one may be the volume's.
            Err(error) => {
                warn!(%error, "the SPIRE agent handed out an SVID that can't be used");
                bad = Some(error);
            }
        }
    }
    if let (Some(error), true) = (bad, svids.is_empty()) {
        return Err(error);
    }
    let federates_with: BTreeSet<TrustDomain> =
        federates_with.iter().filter_map(|id| trust_domain(id)).collect();
    Ok(Some(HandedOut { svids, federates_with }))
}

fn keyed_svid(svid: X509svidWithKey) -> Result<KeyedSvid, SignError> {
    let key_der = Zeroizing::new(svid.x509_svid_key);
    let chain = svid.x509_svid.unwrap_or_default().cert_chain;
    if chain.len() > MAX_CHAIN {
        return Err(wrong("a chain of more certificates than are taken"));
    }
    let chain: Result<Vec<Certificate>, _> =
        chain.iter().map(|der| Certificate::from_der(der)).collect();
    let x509 = X509Svid::from_chain(chain.map_err(wrong)?).map_err(wrong)?;
    let key = PrivateKey::from_pkcs8_der(&key_der).map_err(wrong)?;
    Ok(KeyedSvid { x509, key: Arc::new(key) })
}

/// The X.509 bundles. The own trust domain's must be there and good; another that can't be used is
/// left out.
pub(super) fn x509_bundles(
    message: HashMap<String, Vec<u8>>,
    own: &TrustDomain,
) -> Result<X509Bundles, SignError> {
    if message.len() > MAX_FEDERATED + 1 {
        return Err(wrong("bundles of more trust domains than there is room for"));
    }
    let mut bundles = X509Bundles::new();
    let mut others = BTreeSet::new();
    for (id, der) in message {
        let Some(domain) = trust_domain(&id) else { continue };
        let read = certificates_from_der(&der).map_err(|error| error.to_string()).and_then(|all| {
            TrustBundle::new(domain.clone(), all).map_err(|error| error.to_string())
        });
        match read {
            Ok(bundle) => {
                others.insert(domain.clone());
                bundles.insert(domain, bundle);
            }
            Err(error) if domain == *own => return Err(wrong(error)),
            Err(error) => warn!(%domain, error, "a federated bundle can't be used"),
        }
    }
    if bundles.contains_key(own) {
        return Ok(bundles);
    }
    let others: Vec<&str> = others.iter().map(TrustDomain::as_str).collect();
    let message = format!(
        "the SPIRE agent has no bundle of --trust-domain {own}, only of: {}",
        others.join(", ")
    );
    Err(SignError::new(Class::NotReady, message))
}

#[derive(Deserialize)]
struct KeySet {
    keys: Vec<Value>,
}

/// The JWT authorities, in the order of their names: an agent gives them in any order, and a volume
/// is not rewritten for that.
pub(super) fn jwt_bundles(message: HashMap<String, Vec<u8>>) -> Result<JwtBundles, SignError> {
    if message.len() > MAX_FEDERATED + 1 {
        return Err(wrong("JWT bundles of more trust domains than there is room for"));
    }
    let mut bundles = JwtBundles::new();
    for (id, json) in message {
        let Some(domain) = trust_domain(&id) else { continue };
        let set: KeySet = serde_json::from_slice(&json).map_err(wrong)?;
        let mut authorities = Vec::new();
        for key in &set.keys {
            match JwtAuthority::from_jwk(key) {
                Ok(authority) => authorities.push(authority),
                Err(JwkError::Unsupported) => {}
                Err(error) => return Err(wrong(format!("a JWT key of {domain}: {error}"))),
            }
        }
        authorities.sort_by(|one, other| one.key_id().cmp(other.key_id()));
        bundles.insert(domain, authorities);
    }
    Ok(bundles)
}

/// A trust domain that comes as a SPIFFE ID.
fn trust_domain(id: &str) -> Option<TrustDomain> {
    let id: SpiffeId = id.parse().ok()?;
    (!id.is_workload()).then(|| id.trust_domain().clone())
}

fn wrong(what: impl std::fmt::Display) -> SignError {
    SignError::new(Class::Internal, format!("the SPIRE agent's answer is refused: {what}"))
}

#[cfg(test)]
mod tests;
