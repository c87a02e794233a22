//! What SPIRE gives is what a volume has, and what changes there changes here.

use serde_json::json;
use svid_csi::pki::KeyAlgorithm;
use svid_csi_proto::workload::{JwtsvidRequest, ValidateJwtsvidRequest, X509svidRequest};

use super::{Entry, Ground};
use crate::{
    plugin::{Pod, eventually, on_a_node},
    volume::Set,
    workload_api::{message, with_header},
};

/// One subscription a volume, which ends with it.
#[test]
fn a_volume_has_certificate_and_key_of_its_pods_entry() {
    on_a_node(async || {
        let mut ground = Ground::start().await;
        let (one, two) = (ground.pod(1).await, ground.pod(2).await);
        assert_eq!(ground.agent.subscriptions(), 2);
        assert_eq!(ground.serial(&one), ground.serial(&two), "one entry, one SVID");
        assert_eq!(ground.metric("agent_subscriptions").await, "2");
        // The same request again is no error, and no other subscription.
        ground.node.publish(&one).await.unwrap();
        let svid = ground.file(&one, "tls.crt").unwrap();
        let mut api = with_header(&ground.node.target(&one).join("spiffe.sock")).await;
        let mut stream = api.fetch_x509svid(X509svidRequest {}).await.unwrap().into_inner();
        let served = message(&mut stream).await;
        assert_eq!(served.svids[0].spiffe_id, one.id());
        for pod in [&one, &two] {
            ground.node.unpublish(pod).await.unwrap();
        }
        eventually("nobody is followed", async || {
            (ground.agent.subscriptions() == 0).then_some(())
        })
        .await;
        assert!(ground.node.mounts().is_empty() && svid.contains("BEGIN CERTIFICATE"));
    });
}

/// Not at the volume's own time, but soon after the agent rotated.
#[test]
fn what_the_agent_rotates_comes_to_files_and_streams() {
    on_a_node(async || {
        let mut ground = Ground::start().await;
        let pod = ground.pod(1).await;
        let before = ground.serial(&pod);
        let mut api = with_header(&ground.node.target(&pod).join("spiffe.sock")).await;
        let mut stream = api.fetch_x509svid(X509svidRequest {}).await.unwrap().into_inner();
        let first = message(&mut stream).await;
        ground.agent.order("rotate", "");
        ground.renewed(&pod, &before).await;
        let second = message(&mut stream).await;
        assert_ne!(first.svids[0].x509_svid_key, second.svids[0].x509_svid_key);
        assert_eq!(ground.last_error(&pod), None);
    });
}

/// An entry that is made for a pod is a moment away from its agent.
#[test]
fn a_publish_waits_for_an_entry_that_comes() {
    on_a_node(async || {
        let mut ground = Ground::start().await;
        let mut pod = Pod::new(1);
        pod.service_account = "late".to_owned();
        ground.node.prepare(&pod);
        let (mut csi, request) = (ground.node.csi().await, ground.node.request(&pod));
        let (published, ()) = tokio::join!(csi.node_publish_volume(request), async {
            eventually("it is asked for", async || {
                (ground.agent.subscriptions() == 1).then_some(())
            })
            .await;
            // An entry of this very pod alone.
            let selectors = json!([format!("k8s:pod-uid:{}", pod.uid)]);
            ground.agent.entry("late", Entry::of(&pod).with("selectors", selectors));
        });
        published.unwrap();
        ground.serial(&pod);
        let other = Pod { uid: "00000000-0000-4000-8000-00000000ffff".to_owned(), ..pod };
        let refused = ground.node.publish(&other).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::PermissionDenied, "{refused:?}");
    });
}

/// The default identity if there is one, else the one that the volume has, else SPIRE's first.
#[test]
fn of_several_svids_the_volume_has_its_own() {
    on_a_node(async || {
        let mut ground = Ground::start().await;
        let pod = Pod::new(1);
        let with = |id: &str| Entry::of(&pod).with("spiffe_id", json!(id));
        let [first, second] = ["spiffe://example.org/first", "spiffe://example.org/second"];
        ground.agent.order("delete", "cart");
        ground.agent.entry("b", with(second));
        ground.node.publish(&pod).await.unwrap();
        let set = || Set::read(&ground.node.target(&pod)).unwrap();
        set().check(second).unwrap();
        assert_eq!(ground.node.record(&pod).unwrap()["spiffeId"], second);
        let before = set().svid.serial_hex().to_owned();

        // Another one that comes first takes nothing away.
        ground.agent.entry("a", with(first));
        ground.agent.order("rotate", "");
        eventually("it is renewed", async || (set().svid.serial_hex() != before).then_some(()))
            .await;
        set().check(second).unwrap();
        ground.agent.order("delete", "b");
        eventually("the first is what is left", async || set().check(first).ok()).await;
        ground.agent.entry("z", Entry::of(&pod));
        eventually("the default is preferred", async || set().check(&pod.id()).ok()).await;
        assert_eq!(ground.node.record(&pod).unwrap()["spiffeId"], pod.id());
    });
}

/// What a pod asks for is SPIRE's to give; what it does not get is said.
#[test]
fn attributes_that_spire_decides_are_checked_against_what_came() {
    on_a_node(async || {
        let mut ground = Ground::start().await;
        let names = json!(["cart.shop.svc", "cart"]);
        let entry = || Entry::of(&Pod::new(1)).with("dns_names", names.clone());
        ground.agent.entry("cart", entry().with("ttl", json!(600)));
        for (n, (key, value, part)) in [
            ("ttl", "5m", "x509SVIDTTL"),
            ("key-algorithm", "rsa-2048", "workload_x509_svid_key_type"),
            ("dns-names", "other.shop.svc", "registration entry"),
        ]
        .into_iter()
        .enumerate()
        {
            let refused = ground.node.publish(&Pod::new(n).with(key, value)).await.unwrap_err();
            assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{refused:?}");
            for part in [key, value, part] {
                let shown =
                    if value == "5m" { part.replace("5m", "300 s") } else { part.to_owned() };
                assert!(refused.message().contains(&shown), "{shown}: {}", refused.message());
            }
        }
        assert!(ground.node.mounts().is_empty());
        ground
            .agent
            .entry("cart", entry().with("key_type", json!("rsa-2048")).with("ttl", json!(600)));
        let asks = Pod::new(9)
            .with("ttl", "10m")
            .with("key-algorithm", "rsa-2048")
            .with("dns-names", "cart.shop.svc");
        ground.node.publish(&asks).await.unwrap();
        let set = crate::volume::checked(&ground.node, &asks);
        assert_eq!(set.key.algorithm(), KeyAlgorithm::Rsa2048);
        // A volume that asks for nothing takes what there is.
        ground.pod(8).await;
    });
}

#[test]
fn jwt_svids_are_signed_by_spire_and_verify_by_its_keys() {
    on_a_node(async || {
        let mut ground = Ground::start().await;
        let pod = Pod::new(1).with("jwt", "vault.jwt=vault");
        ground.node.publish(&pod).await.unwrap();
        let token = ground.file(&pod, "vault.jwt").unwrap();
        assert!(ground.file(&pod, "bundle.json").unwrap().contains("jwt-svid"));
        let mut api = with_header(&ground.node.target(&pod).join("spiffe.sock")).await;
        let validate = |svid: String, audience: &str| ValidateJwtsvidRequest {
            audience: audience.to_owned(),
            svid,
        };
        let seen = api.validate_jwtsvid(validate(token, "vault")).await.unwrap().into_inner();
        assert_eq!(seen.spiffe_id, pod.id());
        // Another key, which is in the bundle a moment before or after its first signature.
        ground.agent.order("add-jwt-key", "");
        let audience = vec!["db".to_owned(), "queue".to_owned()];
        let asked = JwtsvidRequest { audience, spiffe_id: String::new() };
        let fetched = api.fetch_jwtsvid(asked).await.unwrap().into_inner();
        assert_eq!(fetched.svids[0].spiffe_id, pod.id());
        let token = fetched.svids[0].svid.clone();
        api.validate_jwtsvid(validate(token, "queue")).await.unwrap();
    });
}
