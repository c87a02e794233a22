//! How keys are represented in a SPIFFE bundle, as it lies in each volume (`bundle.json`).

use serde_json::Value;

use super::requirements;
use crate::{plugin::Pod, workload_api::Ground};

fn keys(ground: &Ground, pod: &Pod, usage: &str) -> Vec<Value> {
    let text = std::fs::read(ground.machine.target(pod).join("bundle.json")).unwrap();
    let bundle: Value = serde_json::from_slice(&text).unwrap();
    let keys = bundle["keys"].as_array().unwrap().iter();
    let keys: Vec<_> = keys.filter(|key| key["use"] == usage).cloned().collect();
    assert!(!keys.is_empty(), "{bundle}");
    keys
}

requirements! {
    X509Svid "6.1" Must
    "An X.509 authority is a JWK with `use` x509-svid, no `kid` and exactly one certificate in `x5c`."
    async fn x509_svid_6_1_authorities_in_the_bundle() {
        let ground = Ground::new();
        let (pod, _) = ground.pod(1).await;
        for key in keys(&ground, &pod, "x509-svid") {
            assert!(key.get("kid").is_none(), "{key}");
            assert_eq!(key["x5c"].as_array().unwrap().len(), 1, "{key}");
        }
    }

    X509Svid "6.1" Should
    "That certificate is self-signed."
    async fn x509_svid_6_1_roots_are_self_signed() {
        let ground = Ground::new();
        let (pod, _) = ground.pod(1).await;
        let set = ground.machine.set(&pod);
        assert!(set.bundle.x509_authorities().iter().all(|root| root.is_self_signed()));
        assert_eq!(set.bundle.x509_authorities().len(), keys(&ground, &pod, "x509-svid").len());
    }

    JwtSvid "6.1" Must
    "A JWT authority is a JWK with `use` jwt-svid and a `kid`."
    async fn jwt_svid_6_1_authorities_in_the_bundle() {
        let ground = Ground::new();
        let (pod, _) = ground.pod(1).await;
        for key in keys(&ground, &pod, "jwt-svid") {
            assert!(key["kid"].as_str().is_some_and(|kid| !kid.is_empty()), "{key}");
            assert!(key.get("d").is_none(), "{key}");
        }
    }
}
