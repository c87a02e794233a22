//! What a bound ServiceAccount token says (KEP-1205, KEP-4193).

use std::{fmt, time::SystemTime};

use serde_json::{Map, Value};

use super::{TokenError, error::Unbound};
use crate::{
    jose::{CLOCK_SKEW, Jws},
    k8s::{ObjectName, ReviewedToken, names::extra},
};

/// What a verified token proves: who runs in which pod on which node. That these still exist is for
/// the approver to see.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenClaims {
    /// Of the ServiceAccount and the pod.
    pub namespace: String,
    /// The ServiceAccount's name.
    pub service_account: String,
    /// The ServiceAccount's UID.
    pub service_account_uid: String,
    /// The name of the pod that it is bound to.
    pub pod_name: String,
    /// That pod's UID.
    pub pod_uid: String,
    /// The name of the Node that this pod was on when the token was made.
    pub node_name: String,
    /// That Node's UID.
    pub node_uid: String,
    /// When it ends.
    pub expires_at: SystemTime,
}

/// Longer names are nobody's: 253 is the most that a Kubernetes object has.
const MAX_NAME: usize = 253;

// === impl TokenClaims ===

impl TokenClaims {
    /// Reads what a token says, and refuses what no signature could make good: another audience, a
    /// time that is over or yet to come, a token that is bound to no pod on no node.
    pub(super) fn read(jws: &Jws<'_>, audience: &str, now: SystemTime) -> Result<Self, TokenError> {
        if jws.audience()?.as_slice() != [audience] {
            return Err(TokenError::Audience { wanted: audience.to_owned() });
        }
        let Some(expires_at) = jws.time("exp")? else { return Err(TokenError::NoExpiry) };
        if expires_at <= now {
            return Err(TokenError::Expired);
        }
        let latest = now + CLOCK_SKEW;
        for claim in ["nbf", "iat"] {
            if jws.time(claim)?.is_some_and(|begin| begin > latest) {
                return Err(TokenError::NotYet);
            }
        }
        let bound = match jws.claims().get("kubernetes.io") {
            Some(Value::Object(bound)) => bound,
            _ => return Err(Unbound::NotAServiceAccount.into()),
        };
        let named = |kind| named(bound, kind);
        let namespace = text(bound.get("namespace"));
        let (Some(namespace), Some((service_account, service_account_uid))) =
            (namespace, named("serviceaccount"))
        else {
            return Err(Unbound::NotAServiceAccount.into());
        };
        let (pod_name, pod_uid) = named("pod").ok_or(Unbound::Pod)?;
        let (node_name, node_uid) = named("node").ok_or(Unbound::Node)?;
        let claims = Self {
            namespace,
            service_account,
            service_account_uid,
            pod_name,
            pod_uid,
            node_name,
            node_uid,
            expires_at,
        };
        match jws.claims().get("sub").and_then(Value::as_str) {
            Some(subject) if subject == claims.username() => Ok(claims),
            _ => Err(Unbound::NotAServiceAccount.into()),
        }
    }

    /// As the API server names the account.
    pub fn username(&self) -> String {
        format!("system:serviceaccount:{}:{}", self.namespace, self.service_account)
    }

    /// The pod that it is bound to.
    pub fn pod(&self) -> ObjectName {
        ObjectName::new(&self.namespace, &self.pod_name)
    }

    /// Whether the API server's verdict says the same of it in every point.
    pub(super) fn agrees(&self, reviewed: &ReviewedToken, audience: &str) -> bool {
        let says = |key, value: &str| reviewed.user.extra(key) == Some(value);
        reviewed.audiences == [audience]
            && reviewed.user.username == self.username()
            && reviewed.uid == self.service_account_uid
            && says(extra::POD_NAME, &self.pod_name)
            && says(extra::POD_UID, &self.pod_uid)
            && says(extra::NODE_NAME, &self.node_name)
            && says(extra::NODE_UID, &self.node_uid)
    }
}

impl fmt::Debug for TokenClaims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenClaims({} on {})", self.pod(), self.node_name)
    }
}

/// Name and UID of an object that a token is bound to.
fn named(bound: &Map<String, Value>, kind: &str) -> Option<(String, String)> {
    let object = bound.get(kind)?;
    Some((text(object.get("name"))?, text(object.get("uid"))?))
}

fn text(value: Option<&Value>) -> Option<String> {
    let text = value?.as_str()?;
    (!text.is_empty() && text.len() <= MAX_NAME).then(|| text.to_owned())
}
