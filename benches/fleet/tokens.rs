//! ServiceAccount tokens as the API server makes them, and the key that checks them.

use std::time::{Duration, SystemTime};

use aws_lc_rs::{
    rand::SystemRandom,
    rsa::KeySize,
    signature::{self, KeyPair, RsaKeyPair},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::objects::{Fleet, Pod};

pub const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
const KEY_ID: &str = "d0Lh8S2b9mTQv0u3qDk2V9y4W1n6c7x8z5a3s1f0g2h";
const LIFE: Duration = Duration::from_hours(1);

/// Signs tokens.
pub struct Tokens {
    key: RsaKeyPair,
}

// === impl Tokens ===

impl Tokens {
    pub fn new() -> Self {
        Self { key: RsaKeyPair::generate(KeySize::Rsa2048).unwrap() }
    }

    /// What `/openid/v1/jwks` says.
    pub fn keys(&self) -> Value {
        let public = self.key.public_key();
        let (n, e) = (public.modulus(), public.exponent());
        json!({"keys": [{
            "use": "sig", "kty": "RSA", "alg": "RS256", "kid": KEY_ID,
            "n": encoded(n.big_endian_without_leading_zero()),
            "e": encoded(e.big_endian_without_leading_zero()),
        }]})
    }

    /// A pod's token, bound to it and its node; two of one pod differ by `serial`.
    pub fn of(&self, pod: &Pod, serial: usize) -> String {
        let header = json!({"alg": "RS256", "kid": KEY_ID});
        let now = seconds(SystemTime::now());
        let claims = json!({
            "aud": ["svid.dev"], "iss": ISSUER, "iat": now, "nbf": now, "exp": now + LIFE.as_secs(),
            "jti": format!("{serial:08x}-9f61-4b7e-8c1b-{}", pod.uid.rsplit('-').next().unwrap()),
            "kubernetes.io": {
                "namespace": pod.namespace,
                "node": {"name": Fleet::node_name(pod.node), "uid": Fleet::node_uid(pod.node)},
                "pod": {"name": pod.name, "uid": pod.uid},
                "serviceaccount": {"name": pod.account, "uid": Fleet::account_uid(pod)},
            },
            "sub": format!("system:serviceaccount:{}:{}", pod.namespace, pod.account),
        });
        let text = format!("{}.{}", encoded(header.to_string()), encoded(claims.to_string()));
        let mut signature = vec![0; self.key.public_modulus_len()];
        let random = SystemRandom::new();
        let padding = &signature::RSA_PKCS1_SHA256;
        self.key.sign(padding, &random, text.as_bytes(), &mut signature).unwrap();
        format!("{text}.{}", encoded(signature))
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

fn encoded(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}
