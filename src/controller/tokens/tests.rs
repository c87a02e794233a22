//! Tokens good and bad (DESIGN.md invariant 5 rests on them), and an API server whose keys change,
//! are forged, or cannot be had.

mod keys;
mod refused;

use std::{
    sync::Mutex,
    time::{SystemTime, UNIX_EPOCH},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use tokio::{task::JoinSet, time::advance};

use super::*;
use crate::{
    jose::{JwtKey, JwtKeyAlgorithm},
    k8s::fake_tokens::FakeTokens,
};

const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
const NOW: u64 = 1_800_000_000;

/// A clock that a test moves.
struct Watch(Mutex<SystemTime>);

impl Clock for Watch {
    fn now(&self) -> SystemTime {
        *self.0.lock().unwrap()
    }
}

/// An API server, what it signs with, and who verifies.
struct Bench {
    api: Arc<FakeTokens>,
    key: JwtKey,
    tokens: Arc<Tokens>,
    clock: Arc<Watch>,
    stop: CancellationToken,
    _following: JoinSet<()>,
}

impl Bench {
    /// With this API server's key published, and read.
    async fn new(algorithm: JwtKeyAlgorithm) -> Self {
        let key = JwtKey::generate(algorithm).unwrap();
        let bench = Self::unread(key);
        bench.api.publish(ISSUER, Some(vec![jwk(&bench.key)]));
        assert!(bench.tokens.ready().is_err(), "before anything was read");
        bench.read().await;
        bench
    }

    fn unread(key: JwtKey) -> Self {
        let (cluster, api) = FakeTokens::new();
        let clock = Arc::new(Watch(Mutex::new(at(NOW))));
        let audience = Tokens::AUDIENCE.to_owned();
        let tokens = Tokens::new(cluster, audience, clock.clone(), Metrics::default());
        let stop = CancellationToken::new();
        let mut following = JoinSet::new();
        following.spawn({
            let (tokens, stop) = (tokens.clone(), stop.clone());
            async move { tokens.follow(stop).await }
        });
        Self { api, key, tokens, clock, stop, _following: following }
    }

    /// Waits until the keys have been read, or not been had.
    async fn read(&self) {
        let _ = self.tokens.keys.current().await;
    }

    fn token(&self, changes: Value) -> String {
        sign(&self.key, &header(&self.key), &with(&body(), &changes))
    }

    async fn verify(&self, token: &str) -> Result<(), String> {
        self.tokens.verify(token).await.map(drop).map_err(|error| error.to_string())
    }

    fn set(&self, seconds: u64) {
        *self.clock.0.lock().unwrap() = at(seconds);
    }

    fn count(&self, way: Way, result: &'static str) -> u64 {
        self.tokens.metrics.count(way, result)
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

/// As the API server publishes a key.
fn jwk(key: &JwtKey) -> Value {
    let mut jwk = Value::Object(key.authority().to_jwk(Some("sig")));
    jwk["alg"] = json!(key.algorithm().jwt_algorithm().as_str());
    jwk
}

fn header(key: &JwtKey) -> Value {
    json!({"alg": key.algorithm().jwt_algorithm().as_str(), "kid": key.authority().key_id()})
}

/// As the API server of 1.32 writes a pod's token.
fn body() -> Value {
    json!({
        "aud": ["svid.dev"], "exp": NOW + 3_600, "iat": NOW, "iss": ISSUER, "jti": "5a0c", "nbf": NOW,
        "kubernetes.io": {
            "namespace": "shop",
            "node": { "name": "node-1", "uid": "n-1" },
            "pod": { "name": "cart-0", "uid": "p-1" },
            "serviceaccount": { "name": "cart", "uid": "s-1" },
        },
        "sub": "system:serviceaccount:shop:cart",
    })
}

/// The object with these members changed; `null` takes one away, a path leads further in.
fn with(object: &Value, changes: &Value) -> Value {
    let mut object = object.clone();
    for (path, value) in changes.as_object().unwrap() {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let parent = object.pointer_mut(parent).unwrap().as_object_mut().unwrap();
        match value {
            Value::Null => drop(parent.remove(name)),
            value => drop(parent.insert(name.to_owned(), value.clone())),
        }
    }
    object
}

fn encode(part: &Value) -> String {
    URL_SAFE_NO_PAD.encode(part.to_string())
}

/// A token with this header and these claims, well signed by the key.
fn sign(key: &JwtKey, header: &Value, claims: &Value) -> String {
    let message = format!("{}.{}", encode(header), encode(claims));
    format!("{message}.{}", key.signature(message.as_bytes()))
}

#[tokio::test(start_paused = true)]
async fn a_token_says_who_runs_in_which_pod_on_which_node() {
    for algorithm in JwtKeyAlgorithm::ALL {
        let bench = Bench::new(algorithm).await;
        assert_eq!(bench.tokens.ready(), Ok(()));
        let token = bench.token(json!({}));
        let claims = bench.tokens.verify(&token).await.unwrap();
        let expected = TokenClaims {
            namespace: "shop".to_owned(),
            service_account: "cart".to_owned(),
            service_account_uid: "s-1".to_owned(),
            pod_name: "cart-0".to_owned(),
            pod_uid: "p-1".to_owned(),
            node_name: "node-1".to_owned(),
            node_uid: "n-1".to_owned(),
            expires_at: at(NOW + 3_600),
        };
        assert_eq!(*claims, expected);
        // The same again is not verified again, and nothing of it asks the API server anything.
        for _ in 0..1_000 {
            assert_eq!(*bench.tokens.verify(&token).await.unwrap(), expected);
        }
        assert_eq!(bench.count(Way::Keys, "good"), 1);
        assert_eq!(bench.count(Way::Memory, "good"), 1_000);
        assert_eq!((bench.api.reads(), bench.api.reviews()), (1, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_shows_a_token() {
    let bench = Bench::new(JwtKeyAlgorithm::Es256).await;
    let token = bench.token(json!({}));
    let claims = bench.tokens.verify(&token).await.unwrap();
    assert_eq!(format!("{claims:?}"), "TokenClaims(shop/cart-0 on node-1)");
    let jws = Jws::parse(&token).unwrap();
    let shown = format!("{jws:?}");
    assert!(!shown.contains("cart"), "{shown}");
    for part in token.split('.').skip(1) {
        assert!(!shown.contains(part), "{shown}");
    }
}
