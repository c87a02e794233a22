//! Tokens as somebody else might make them.

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair},
};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use serde_json::{Value, json};
use svid_csi::{
    clock::{Clock, SystemClock},
    jose::JwtKey,
};
use svid_csi_proto::workload::{JwtsvidRequest, ValidateJwtsvidRequest, ValidateJwtsvidResponse};
use tonic::Status;

use crate::workload_api::{Api, Ground};

/// The audience of every token here.
pub const AUDIENCE: &str = "bank";

/// Signs anything at all with the trust domain's own key.
pub struct Forger {
    key: EcdsaKeyPair,
    key_id: String,
}

impl Forger {
    pub fn new(ground: &Ground) -> Self {
        Self::with(ground.signer.jwt.as_ref().unwrap())
    }

    pub fn with(key: &JwtKey) -> Self {
        let pem = key.to_pem().unwrap();
        let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        let der = STANDARD.decode(body).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der).unwrap();
        Self { key: pair, key_id: key.authority().key_id().to_owned() }
    }

    pub fn header(&self) -> Value {
        json!({ "alg": "ES256", "kid": self.key_id, "typ": "JWT" })
    }

    pub fn sign(&self, header: &Value, claims: &Value) -> String {
        let part = |json: &Value| URL_SAFE_NO_PAD.encode(json.to_string());
        let message = format!("{}.{}", part(header), part(claims));
        let signature = self.key.sign(&SystemRandom::new(), message.as_bytes()).unwrap();
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// A good token but for this.
    pub fn with_header(&self, change: impl FnOnce(&mut Value)) -> String {
        let mut header = self.header();
        change(&mut header);
        self.sign(&header, &claims())
    }

    /// A good token but for this.
    pub fn with_claims(&self, change: impl FnOnce(&mut Value)) -> String {
        let mut claims = claims();
        change(&mut claims);
        self.sign(&self.header(), &claims)
    }
}

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemClock.now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

pub fn claims() -> Value {
    let now = now();
    json!({
        "sub": "spiffe://example.org/ns/shop/sa/cart",
        "aud": [AUDIENCE],
        "iat": now,
        "exp": now + 60,
    })
}

/// Header or claims of a token.
pub fn part(token: &str, index: usize) -> Value {
    let part = token.split('.').nth(index).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

/// A token of the pod's own.
pub async fn fetch(api: &mut Api, audience: &[&str]) -> String {
    let audience = audience.iter().map(ToString::to_string).collect();
    let request = JwtsvidRequest { audience, ..Default::default() };
    let svids = api.fetch_jwtsvid(request).await.unwrap().into_inner().svids;
    svids[0].svid.clone()
}

pub async fn validate(api: &mut Api, token: &str) -> Result<ValidateJwtsvidResponse, Status> {
    let request = ValidateJwtsvidRequest { audience: AUDIENCE.into(), svid: token.into() };
    api.validate_jwtsvid(request).await.map(tonic::Response::into_inner)
}

/// Every one of these is refused, and as invalid.
pub async fn refused(api: &mut Api, tokens: &[String]) {
    for token in tokens {
        let status = validate(api, token).await.expect_err(token);
        assert_eq!(status.code(), tonic::Code::InvalidArgument, "{status:?}");
    }
}
