//! Whatever becomes of the agent, its entries and the plugin, what the volumes have stays
//! (invariants 3 and 4).

use std::{fs, time::Duration};

use serde_json::json;
use svid_csi_proto::workload::{JwtsvidRequest, X509svidRequest};
use tonic::Code;

use super::{Entry, Ground};
use crate::{
    plugin::{Pod, assert_status, eventually, on_a_node},
    process::get,
    volume::checked,
    workload_api::{message, with_header},
};

/// A new agent has other keys for everyone.
#[test]
fn an_agent_that_is_killed_and_comes_back() {
    on_a_node(async || {
        let mut ground = Ground::start().await;
        let pod = ground.pod(1).await;
        let (before, data) =
            (ground.serial(&pod), fs::read_link(ground.node.target(&pod).join("..data")).unwrap());
        ground.agent.kill();
        eventually("it says so", async || {
            (get(&ground.node, "/readyz").await.0 == 503).then_some(())
        })
        .await;
        let mut api = with_header(&ground.node.target(&pod).join("spiffe.sock")).await;
        let mut stream = api.fetch_x509svid(X509svidRequest {}).await.unwrap().into_inner();
        message(&mut stream).await;
        // The same request again is no error; a new one waits, and says why in vain.
        ground.node.publish(&pod).await.unwrap();
        let parts = ["admin.sock", "is away", "tried for 20 s"];
        assert_status(ground.node.publish(&Pod::new(2)).await, Code::Unavailable, &parts);
        assert_eq!(fs::read_link(ground.node.target(&pod).join("..data")).unwrap(), data);
        assert_eq!((ground.serial(&pod), ground.last_error(&pod)), (before.clone(), None));

        ground.agent.start();
        ground.renewed(&pod, &before).await;
        message(&mut stream).await;
        ground.becomes_ready().await;
        ground.node.publish(&Pod::new(2)).await.unwrap();
    });
}

/// Renewals that are due meanwhile fail, and are made up for.
#[test]
fn an_agent_that_is_away_when_svids_are_overdue() {
    on_a_node(async || {
        let mut ground = Ground::start().await;
        let short = |ttl: u64| Entry::of(&Pod::new(1)).with("ttl", json!(ttl));
        ground.agent.entry("cart", short(20));
        let pod = ground.pod(1).await;
        let before = ground.serial(&pod);
        ground.agent.kill();
        let (class, why) = eventually("it is overdue", async || ground.last_error(&pod)).await;
        assert!(class == "unavailable" && why.contains("is away"), "{class}: {why}");
        assert!(ground.file(&pod, "tls.key").is_some());
        ground.agent.start();
        eventually("it is renewed", async || {
            let set = crate::volume::Set::read(&ground.node.target(&pod)).unwrap();
            (set.svid.serial_hex() != before).then_some(())
        })
        .await;
        checked(&ground.node, &pod);
        assert_eq!(ground.last_error(&pod), None);
    });
}

/// It keeps its connections and says nothing: whoever waits has a deadline.
#[test]
fn an_agent_that_hangs_costs_nobody_more_than_its_deadline() {
    on_a_node(async || {
        let ground = Ground::start().await;
        let pod = ground.pod(1).await;
        ground.agent.hang(true);
        let started = tokio::time::Instant::now();
        let refused = ground.node.publish(&Pod::new(2)).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
        assert!(started.elapsed() < Duration::from_secs(25), "{:?}", started.elapsed());
        ground.node.unpublish(&Pod::new(2)).await.unwrap();
        ground.serial(&pod);
        ground.agent.hang(false);
        ground.pod(3).await;
    });
}

/// The pod is refused where it is asked for something new; what it has stays.
#[test]
fn an_entry_that_is_deleted_and_made_again() {
    on_a_node(async || {
        let mut ground = Ground::start().await;
        let pod = ground.pod(1).await;
        let before = ground.serial(&pod);
        ground.agent.order("delete", "cart");
        let (class, why) = eventually("it is denied", async || ground.last_error(&pod)).await;
        assert_eq!(class, "denied", "{why}");
        assert!(why.contains("k8s:sa:cart") && why.contains(&pod.uid), "{why}");
        assert_eq!(ground.serial(&pod), before);
        let mut api = with_header(&ground.node.target(&pod).join("spiffe.sock")).await;
        let asked = JwtsvidRequest { audience: vec!["db".to_owned()], spiffe_id: String::new() };
        let refused = api.fetch_jwtsvid(asked.clone()).await.unwrap_err();
        assert_eq!(
            (refused.code(), refused.message()),
            (Code::PermissionDenied, "no identity issued")
        );
        let parts = ["SPIRE has no registration entry", "k8s:ns:shop"];
        assert_status(ground.node.publish(&Pod::new(2)).await, Code::PermissionDenied, &parts);

        ground.agent.entry("cart", Entry::of(&pod));
        ground.renewed(&pod, &before).await;
        eventually("the failure is over", async || ground.last_error(&pod).is_none().then_some(()))
            .await;
        api.fetch_jwtsvid(asked).await.unwrap();
    });
}

/// Invariant 4: with the agent down, a restart brings every volume back, and issues nothing again
/// where the agent has the same as before.
#[test]
fn a_plugin_that_is_killed_while_the_agent_is_down() {
    on_a_node(async || {
        let mut ground = Ground::start().await;
        ground.agent.order("federate", "other.example");
        let federated =
            Entry::of(&Pod::new(1)).with("federates_with", json!(["spiffe://other.example"]));
        ground.agent.entry("cart", federated);
        let pod = Pod::new(1).with("jwt", "vault.jwt=vault");
        ground.node.publish(&pod).await.unwrap();
        eventually("it is federated", async || ground.file(&pod, "federated/other.example.pem"))
            .await;
        let before = ground.serial(&pod);
        ground.node.kill().await;
        ground.start_node().await;
        ground.becomes_ready().await;
        tokio::time::sleep(Duration::from_secs(6)).await;
        assert_eq!(ground.serial(&pod), before, "nothing that is fresh is replaced");

        ground.node.kill().await;
        ground.agent.kill();
        ground.start_node().await;
        let mut api = with_header(&ground.node.target(&pod).join("spiffe.sock")).await;
        let mut stream = api.fetch_x509svid(X509svidRequest {}).await.unwrap().into_inner();
        let served = message(&mut stream).await;
        assert_eq!(served.svids[0].spiffe_id, pod.id());
        assert_eq!(served.federated_bundles.len(), 1, "nothing is taken away");
        assert_eq!(ground.serial(&pod), before);
        assert!(ground.file(&pod, "federated/other.example.pem").is_some());
        ground.agent.start();
        ground.renewed(&pod, &before).await;
    });
}
