//! What is set up wrong says so, and what comes from the agent is believed no more than anybody.

use serde_json::json;
use tonic::Code;

use super::{Agent, Entry, Ground};
use crate::{
    plugin::{Node, Pod, assert_status, eventually, on_a_node},
    process::get,
    volume::checked,
};

#[test]
fn a_driver_that_is_no_delegate_is_told_so_and_keeps_what_it_has() {
    on_a_node(async || {
        let mut ground = Ground::start().await;
        let pod = ground.pod(1).await;
        ground.agent.order("authorize", "no");
        let reason = eventually("it is not ready", async || {
            let (status, reason) = get(&ground.node, "/readyz").await;
            (status == 503).then_some(reason)
        })
        .await;
        assert!(reason.contains("authorized_delegates"), "{reason}");
        let parts = ["authorized_delegates", "registration entry"];
        assert_status(ground.node.publish(&Pod::new(2)).await, Code::FailedPrecondition, &parts);
        ground.serial(&pod);
        assert_eq!(ground.last_error(&pod), None, "it speaks of the driver, not of the pod");
        ground.agent.order("authorize", "yes");
        ground.becomes_ready().await;
        ground.pod(2).await;
    });
}

#[test]
fn identities_of_nobody_here_are_refused() {
    on_a_node(async || {
        let mut ground = Ground::start().await;
        for id in [
            "spiffe://other.example/ns/shop/sa/cart",
            "spiffe://example.org/svid.dev/controller",
            "spiffe://example.org",
        ] {
            let entry = Entry::of(&Pod::new(1)).with("spiffe_id", json!(id));
            ground.agent.entry("cart", entry);
            let refused = ground.node.publish(&Pod::new(1)).await.unwrap_err();
            assert!(
                [Code::Internal, Code::Unavailable].contains(&refused.code()),
                "{id}: {refused:?}"
            );
            assert!(ground.file(&Pod::new(1), "tls.key").is_none(), "{id}");
            ground.node.unpublish(&Pod::new(1)).await.unwrap();
        }
        ground.agent.entry("cart", Entry::of(&Pod::new(1)));
        ground.pod(1).await;
    });
}

/// Of another trust domain, or without a bundle of its own: the last good one stands.
#[test]
fn an_agent_without_the_own_bundle_is_told_apart() {
    on_a_node(async || {
        let mut ground = Ground::start().await;
        let pod = ground.pod(1).await;
        ground.agent.order("federate", "other.example");
        ground.agent.order("hide-own", "yes");
        let reason = eventually("it is not ready", async || {
            let (status, reason) = get(&ground.node, "/readyz").await;
            (status == 503).then_some(reason)
        })
        .await;
        assert!(reason.contains("other.example") && reason.contains("example.org"), "{reason}");
        assert_ne!(ground.metric("bundle_refused").await, "0");
        checked(&ground.node, &pod);
        ground.agent.order("hide-own", "no");
        ground.becomes_ready().await;
    });
}

/// The Workload API's socket is the other one that an agent has.
#[test]
fn the_wrong_socket_is_named() {
    on_a_node(async || {
        let mut node = Node::without_ca();
        let agent = Agent::started(node.path("agent"));
        // Any gRPC server that is no agent: the plugin's own.
        let csi = node.csi_socket().display().to_string();
        node.set_extra(&["--signer", "agent", "--agent-socket", &csi]);
        node.start().await;
        let parts = ["admin_socket_path"];
        let reason = eventually("it says so", async || {
            let (_, reason) = get(&node, "/readyz").await;
            parts.iter().all(|part| reason.contains(part)).then_some(reason)
        })
        .await;
        assert!(reason.contains("csi.sock"), "{reason}");
        drop(agent);
    });
}
