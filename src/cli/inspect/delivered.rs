//! Judges what the Workload API delivered as if it had been files.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    time::SystemTime,
};

use serde::{Serialize, Serializer};
use svid_csi_proto::workload::X509svid;
use zeroize::Zeroizing;

use super::{
    content::Authorities,
    judge::{self, Against},
    report::{Code, Inspected, Kind},
};
use crate::{
    id::{SpiffeId, TrustDomain},
    pki::{Certificate, PrivateKey, certificates_from_der, certificates_to_pem},
};

/// What came beside the facts that files show, too.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::cli) struct Delivered {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::cli) hint: Option<String>,
    /// The chain, leaf first, PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::cli) certificates: Option<String>,
    /// Only if somebody asked for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::cli) private_key: Option<SecretPem>,
    /// The bundle of the SVID's trust domain, or the bundle itself, PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::cli) bundle_pem: Option<String>,
    /// Trust domain to PEM.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(in crate::cli) federated: BTreeMap<String, String>,
    /// The JWT bundle, a JWK Set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::cli) jwks: Option<serde_json::Value>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(in crate::cli) jwt_keys: Vec<JwtKey>,
}

/// A public key of a JWT bundle.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::cli) struct JwtKey {
    pub(in crate::cli) kid: String,
    /// `RSA`, or a curve.
    pub(in crate::cli) kind: String,
}

/// A private key as PEM; wiped when dropped.
pub(in crate::cli) struct SecretPem(pub(in crate::cli) Zeroizing<String>);

const WORKLOAD_API: &str =
    "it is not what the standard says: report it to whoever serves the socket";

/// Judges an SVID of the Workload API. Its private key, if it is one that can be used.
pub(in crate::cli) fn delivered_svid(
    at: &str,
    svid: &X509svid,
    federated: &HashMap<String, impl AsRef<[u8]>>,
    now: SystemTime,
) -> (Inspected, Option<PrivateKey>) {
    let mut result = Inspected::new(at);
    result.kind = Some(Kind::Combined);
    let chain = certificates(&mut result, "the chain", &svid.x509_svid);
    let parsed = judge::svid(&mut result, &chain, now);
    let key = match PrivateKey::from_pkcs8_der(&svid.x509_svid_key) {
        Ok(key) => {
            judge::key(&mut result, &key, chain.first());
            Some(key)
        }
        Err(error) => {
            result.error(Code::Damaged, error.to_string(), WORKLOAD_API);
            None
        }
    };
    let bundle = certificates(&mut result, "the bundle", &svid.bundle);
    let mut delivered = Delivered {
        hint: Some(svid.hint.clone()).filter(|hint| !hint.is_empty()),
        certificates: Some(certificates_to_pem(&chain)),
        bundle_pem: Some(certificates_to_pem(&bundle)),
        ..Delivered::default()
    };
    let authorities = Authorities::of_certificates(bundle);
    let domain = parsed.as_ref().map(|svid| svid.id().trust_domain().to_string());
    judge::bundle(&mut result, &authorities, domain, now);
    if let Some(parsed) = &parsed {
        let against = Against { authorities, name: "the bundle".to_owned() };
        judge::chain(&mut result, parsed, &against, now);
        if parsed.id().as_str() != svid.spiffe_id {
            let message = format!("it is called {} but is for {}", svid.spiffe_id, parsed.id());
            result.error(Code::IdentityMismatch, message, WORKLOAD_API);
        }
    }
    for (name, der) in federated {
        let certificates = certificates(&mut result, name, der.as_ref());
        if let Some(domain) = trust_domain(&mut result, name) {
            delivered.federated.insert(domain.to_string(), certificates_to_pem(&certificates));
        }
    }
    result.delivered = Some(delivered);
    (result, key)
}

/// Judges a bundle of the Workload API; `name` is the trust domain's ID.
pub(in crate::cli) fn delivered_bundle(
    name: &str,
    der: Option<&[u8]>,
    jwks: Option<&[u8]>,
    now: SystemTime,
) -> (Inspected, Option<TrustDomain>) {
    let mut result = Inspected::new(name);
    result.kind = Some(Kind::Bundle);
    let mut delivered = Delivered::default();
    let domain = trust_domain(&mut result, name);
    if let Some(der) = der {
        let certificates = certificates(&mut result, "the X.509 bundle", der);
        delivered.bundle_pem = Some(certificates_to_pem(&certificates));
        let authorities = Authorities::of_certificates(certificates);
        judge::bundle(&mut result, &authorities, domain.as_ref().map(ToString::to_string), now);
    }
    if let Some(jwks) = jwks {
        match serde_json::from_slice::<serde_json::Value>(jwks) {
            Ok(jwks) => {
                delivered.jwt_keys = jwt_keys(&jwks);
                delivered.jwks = Some(jwks);
            }
            Err(error) => {
                let message = format!("the JWT bundle is not JSON: {error}");
                result.error(Code::Damaged, message, WORKLOAD_API);
            }
        }
    }
    result.delivered = Some(delivered);
    (result, domain)
}

fn jwt_keys(jwks: &serde_json::Value) -> Vec<JwtKey> {
    let keys = jwks.get("keys").and_then(|keys| keys.as_array());
    let member = |key: &serde_json::Value, name| {
        key.get(name).and_then(|value| value.as_str()).map(ToOwned::to_owned)
    };
    let shown = |key: &serde_json::Value| JwtKey {
        kid: member(key, "kid").unwrap_or_default(),
        kind: member(key, "crv").or_else(|| member(key, "kty")).unwrap_or_default(),
    };
    keys.map(|keys| keys.iter().map(shown).collect()).unwrap_or_default()
}

fn certificates(result: &mut Inspected, what: &str, der: &[u8]) -> Vec<Certificate> {
    certificates_from_der(der).unwrap_or_else(|error| {
        result.error(Code::Damaged, format!("{what}: {error}"), WORKLOAD_API);
        Vec::new()
    })
}

fn trust_domain(result: &mut Inspected, name: &str) -> Option<TrustDomain> {
    match name.parse::<SpiffeId>() {
        Ok(id) if !id.is_workload() => Some(id.trust_domain().clone()),
        _ => {
            let message = format!("a bundle is called {name}, which is no trust domain's ID");
            result.error(Code::Damaged, message, WORKLOAD_API);
            None
        }
    }
}

// === impl JwtKey ===

impl fmt::Display for JwtKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, kid {}", self.kind, self.kid)
    }
}

// === impl SecretPem ===

impl fmt::Debug for SecretPem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("redacted")
    }
}

impl Serialize for SecretPem {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}
