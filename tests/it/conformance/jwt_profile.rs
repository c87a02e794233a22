//! SPIFFE_Workload_API.md §6, the JWT-SVID profile.

use std::collections::BTreeSet;

use prost_types::value::Kind;
use serde_json::Value;
use svid_csi::{
    class::Class,
    jose::{JwtKey, JwtKeyAlgorithm},
};
use svid_csi_proto::workload::{JwtBundlesRequest, JwtsvidRequest};
use tonic::Code;

use super::{
    requirements,
    token::{self, Forger, fetch, part, refused, validate},
};
use crate::{
    plugin::Pod,
    workload_api::{Ground, message},
};

fn asking(audience: &[&str], id: &str) -> JwtsvidRequest {
    let audience = audience.iter().map(ToString::to_string).collect();
    JwtsvidRequest { audience, spiffe_id: id.to_owned() }
}

requirements! {
    WorkloadApi "6.2.1" Must
    "The audience of the request is the one in the token."
    async fn workload_api_6_2_1_the_audience_is_in_the_token() {
        let ground = Ground::new();
        let (_pod, mut api) = ground.pod(1).await;
        for audience in [&["bank"][..], &["bank", "spiffe://example.org/shop"]] {
            let token = fetch(&mut api, audience).await;
            let got: BTreeSet<String> =
                serde_json::from_value(part(&token, 1)["aud"].clone()).unwrap();
            assert_eq!(got, audience.iter().map(ToString::to_string).collect());
        }
    }

    WorkloadApi "6.2.1" Must
    "Without a `spiffe_id`, JWT-SVIDs of all identities of the client are returned; at least one."
    async fn workload_api_6_2_1_no_id_means_every_identity() {
        let ground = Ground::new();
        let (pod, mut api) = ground.pod(1).await;
        let svids = api.fetch_jwtsvid(asking(&["bank"], "")).await.unwrap().into_inner().svids;
        let ids: Vec<_> = svids.iter().map(|svid| svid.spiffe_id.clone()).collect();
        assert_eq!(ids, [pod.id()]);
        assert_eq!(part(&svids[0].svid, 1)["sub"], Value::String(pod.id()));
        let svids = api.fetch_jwtsvid(asking(&["bank"], &pod.id())).await.unwrap().into_inner();
        assert_eq!(svids.svids[0].spiffe_id, pod.id());
    }

    WorkloadApi "6.2.1" Must
    "Hints that are set are unique among the SVIDs of a response: none is set."
    async fn workload_api_6_2_1_no_hint_is_there_twice() {
        let ground = Ground::new();
        let (_pod, mut api) = ground.pod(1).await;
        let svids = api.fetch_jwtsvid(asking(&["bank"], "")).await.unwrap().into_inner().svids;
        assert!(svids.iter().all(|svid| svid.hint.is_empty()));
    }

    WorkloadApi "6.2.1" Should
    "PermissionDenied for an identity that is not the client's."
    async fn workload_api_6_2_1_a_foreign_identity_is_denied() {
        let ground = Ground::new();
        let (_pod, mut api) = ground.pod(1).await;
        for id in ["spiffe://example.org/ns/shop/sa/other", "spiffe://elsewhere.example/x"] {
            let status = api.fetch_jwtsvid(asking(&["bank"], id)).await.unwrap_err();
            assert_eq!(status.code(), Code::PermissionDenied, "{status:?}");
        }
        // What is no SPIFFE ID at all is nobody's.
        for id in ["cart", "spiffe://", "http://example.org/x", "spiffe://example.org/a//b"] {
            let status = api.fetch_jwtsvid(asking(&["bank"], id)).await.unwrap_err();
            assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        }
    }

    WorkloadApi "6.2.1" Should
    "PermissionDenied for a client that is authorized for no identity."
    async fn workload_api_6_2_1_no_identity_is_denied() {
        let ground = Ground::new();
        let pod = Pod::new(1).with("ttl", "10s");
        ground.publish(&pod).await;
        let mut api = ground.api(&pod).await;
        ground.signer.refuse(Some(Class::Denied));
        let status = api.fetch_jwtsvid(asking(&["bank"], "")).await.unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied, "{status:?}");
        assert_eq!(status.message(), "no identity issued");
    }

    WorkloadApi "6.2.2" Must
    "A JWTBundlesResponse has the bundle of the server's own trust domain, under its SPIFFE ID: a JWK Set (RFC 7517)."
    async fn workload_api_6_2_2_the_own_bundle_is_a_jwk_set() {
        let ground = Ground::new();
        let (_pod, mut api) = ground.pod(1).await;
        let mut bundles = api.fetch_jwt_bundles(JwtBundlesRequest {}).await.unwrap().into_inner();
        let bundles = message(&mut bundles).await.bundles;
        assert_eq!(bundles.keys().collect::<Vec<_>>(), ["spiffe://example.org"]);
        let set: Value = serde_json::from_slice(&bundles["spiffe://example.org"]).unwrap();
        let [key] = &set["keys"].as_array().unwrap()[..] else { panic!("{set}") };
        assert_eq!((&key["kty"], &key["crv"]), (&"EC".into(), &"P-256".into()));
        let token = fetch(&mut api, &["bank"]).await;
        assert_eq!(key["kid"], part(&token, 0)["kid"]);
    }

    WorkloadApi "6.2.2" Must
    "Keys of other uses are not among them, and nothing private is."
    async fn workload_api_6_2_2_no_key_of_another_use() {
        let ground = Ground::new();
        let (_pod, mut api) = ground.pod(1).await;
        let mut bundles = api.fetch_jwt_bundles(JwtBundlesRequest {}).await.unwrap().into_inner();
        let bundles = message(&mut bundles).await.bundles;
        for set in bundles.values() {
            let set: Value = serde_json::from_slice(set).unwrap();
            for key in set["keys"].as_array().unwrap() {
                assert!(key.get("x5c").is_none() && key.get("d").is_none(), "{key}");
                let usage = key.get("use").and_then(Value::as_str);
                assert!(matches!(usage, None | Some("jwt-svid" | "sig")), "{key}");
            }
        }
    }

    WorkloadApi "6.2.3" Must
    "A token is validated by all rules of the JWT-SVID standard."
    async fn workload_api_6_2_3_what_is_not_valid_is_refused() {
        let ground = Ground::new();
        let (_pod, mut api) = ground.pod(1).await;
        let forger = Forger::new(&ground);
        validate(&mut api, &forger.sign(&forger.header(), &token::claims())).await.unwrap();
        let stranger = Forger::with(&JwtKey::generate(JwtKeyAlgorithm::Es256).unwrap());
        let good = forger.sign(&forger.header(), &token::claims());
        let (message, _) = good.rsplit_once('.').unwrap();
        refused(&mut api, &[
            // Signed by somebody else, who names our key.
            stranger.sign(&forger.header(), &token::claims()),
            stranger.sign(&stranger.header(), &token::claims()),
            format!("{message}."),
            message.to_owned(),
            format!("{good}x"),
            "a.b.c".to_owned(),
            "x".repeat(60_000),
            forger.with_claims(|claims| claims["exp"] = (token::now() - 60).into()),
            forger.with_claims(|claims| claims["aud"] = "shop".into()),
            forger.with_claims(|claims| claims["sub"] = "cart".into()),
        ])
        .await;
    }

    WorkloadApi "6.2.3" Should
    "The claims of a valid token are returned with the SPIFFE ID."
    async fn workload_api_6_2_3_claims_are_returned() {
        let ground = Ground::new();
        let (_pod, mut api) = ground.pod(1).await;
        let forger = Forger::new(&ground);
        let token = forger.with_claims(|claims| claims["team"] = serde_json::json!({"n": [1, true, null, "x"]}));
        let answer = validate(&mut api, &token).await.unwrap();
        assert_eq!(answer.spiffe_id, "spiffe://example.org/ns/shop/sa/cart");
        let claims = answer.claims.unwrap().fields;
        let text = |name: &str| match claims[name].kind.clone() {
            Some(Kind::StringValue(text)) => text,
            other => panic!("{name}: {other:?}"),
        };
        assert_eq!(text("sub"), answer.spiffe_id);
        assert!(matches!(claims["exp"].kind, Some(Kind::NumberValue(exp)) if exp > 1e9));
        assert!(matches!(&claims["aud"].kind, Some(Kind::ListValue(list)) if list.values.len() == 1));
        assert!(matches!(&claims["team"].kind, Some(Kind::StructValue(team))
            if matches!(&team.fields["n"].kind, Some(Kind::ListValue(list)) if list.values.len() == 4)));
    }

    WorkloadApi "6.3" Must
    "A token is validated with the bundle of its subject's trust domain; without one it is untrusted."
    async fn workload_api_6_3_the_subjects_trust_domain_vouches() {
        let ground = Ground::new();
        let (_pod, mut api) = ground.pod(1).await;
        let forger = Forger::new(&ground);
        // Signed with our own key, and in the name of a domain that we know nothing of.
        let foreign = forger.with_claims(|claims| claims["sub"] = "spiffe://elsewhere.example/x".into());
        refused(&mut api, &[foreign]).await;
    }
}
