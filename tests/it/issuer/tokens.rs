//! ServiceAccount tokens, made as an API server makes them.

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::now;
use crate::api_server::Store;

const ISSUER: &str = "https://kubernetes.default.svc";

/// What an API server signs tokens with.
pub struct TokenAuthority {
    pair: EcdsaKeyPair,
    key_id: String,
}

impl TokenAuthority {
    pub fn new() -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let key_id = URL_SAFE_NO_PAD.encode(&pair.public_key().as_ref()[1..9]);
        Self { pair, key_id }
    }

    /// As the API server publishes its keys.
    pub fn publish(&self, store: &Store) {
        let point = &self.pair.public_key().as_ref()[1..];
        let encode = |part: &[u8]| URL_SAFE_NO_PAD.encode(part);
        let jwk = json!({
            "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": self.key_id,
            "x": encode(&point[..32]), "y": encode(&point[32..]),
        });
        for (path, mut content) in [
            ("/.well-known/openid-configuration", json!({"issuer": ISSUER})),
            ("/openid/v1/jwks", json!({"keys": [jwk]})),
        ] {
            content["metadata"] = json!({"name": path});
            store.put("openid", content);
        }
    }

    pub fn token(&self, claims: &Value) -> String {
        self.signed(&json!({"alg": "ES256", "kid": self.key_id}), claims)
    }

    pub fn signed(&self, header: &Value, claims: &Value) -> String {
        let encode = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
        let message = format!("{}.{}", encode(header), encode(claims));
        let signature = self.pair.sign(&SystemRandom::new(), message.as_bytes()).unwrap();
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
    }
}

/// What a bound token says: namespace, then name and UID of account, pod and node.
pub fn claims(
    namespace: &str,
    account: (&str, &str),
    pod: (&str, &str),
    node: (&str, &str),
) -> Value {
    let seconds = now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let named = |(name, uid): (&str, &str)| json!({"name": name, "uid": uid});
    json!({
        "iss": ISSUER, "aud": ["svid.dev"], "sub": format!("system:serviceaccount:{namespace}:{}", account.0),
        "iat": seconds, "nbf": seconds, "exp": seconds + 3_600, "jti": format!("{seconds}"),
        "kubernetes.io": {
            "namespace": namespace, "serviceaccount": named(account), "pod": named(pod),
            "node": named(node),
        },
    })
}
