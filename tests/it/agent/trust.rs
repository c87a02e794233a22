//! Bundles come from the agent, too: the own trust domain's and the federated ones.

use serde_json::json;
use svid_csi_proto::workload::{X509BundlesRequest, X509svidRequest};

use super::{Entry, Ground};
use crate::{
    plugin::{Pod, eventually, on_a_node},
    volume::checked,
    workload_api::{message, with_header},
};

/// Invariant 6, as SPIRE keeps it: a new CA is in every volume before it signs.
#[test]
fn a_new_ca_comes_before_its_first_signature_and_the_old_one_goes() {
    on_a_node(async || {
        let mut ground = Ground::start().await;
        let pod = ground.pod(1).await;
        let before = ground.serial(&pod);
        let roots = || checked(&ground.node, &pod).bundle.x509_authorities().len();
        let sequence = |ground: &Ground| {
            let bundle = ground.file(&pod, "bundle.json").unwrap();
            let bundle: serde_json::Value = serde_json::from_str(&bundle).unwrap();
            bundle["spiffe_sequence"].as_u64().unwrap()
        };
        let first = sequence(&ground);
        ground.agent.order("add-ca", "");
        eventually("both are there", async || (roots() == 2).then_some(())).await;
        assert!(ground.serial(&pod) == before && sequence(&ground) > first);
        ground.agent.order("use-ca", "");
        let set = ground.renewed(&pod, &before).await;
        assert_eq!(set.bundle.x509_authorities().len(), 2);
        ground.agent.order("drop-ca", "");
        eventually("the old one is gone", async || (roots() == 1).then_some(())).await;
        assert!(sequence(&ground) > first + 1);
        // All of it at once, as after a long absence.
        let before = ground.serial(&pod);
        for order in ["add-ca", "use-ca", "drop-ca"] {
            ground.agent.order(order, "");
        }
        ground.renewed(&pod, &before).await;
    });
}

/// Each pod knows the trust domains that its entry federates with, and no other.
#[test]
fn federated_bundles_are_those_of_the_entry() {
    on_a_node(async || {
        let mut ground = Ground::start().await;
        let plain = ground.pod(1).await;
        for domain in ["one.example", "two.example"] {
            ground.agent.order("federate", domain);
        }
        let mut federated = Pod::new(2);
        federated.service_account = "federated".to_owned();
        let entry = |domains| Entry::of(&federated).with("federates_with", domains);
        ground.agent.entry("federated", entry(json!(["spiffe://one.example"])));
        ground.node.publish(&federated).await.unwrap();
        let has = |pod: &Pod, domain: &str| {
            ground.file(pod, &format!("federated/{domain}.pem")).is_some()
        };
        eventually("its bundle is there", async || has(&federated, "one.example").then_some(()))
            .await;
        assert!(!has(&federated, "two.example") && !has(&plain, "one.example"));
        for (pod, others) in [(&plain, 0), (&federated, 1)] {
            let mut api = with_header(&ground.node.target(pod).join("spiffe.sock")).await;
            let svid = api.fetch_x509svid(X509svidRequest {}).await.unwrap();
            let first = message(&mut svid.into_inner()).await;
            assert_eq!(first.federated_bundles.len(), others, "{pod:?}");
            let bundles = api.fetch_x509_bundles(X509BundlesRequest {}).await.unwrap();
            let first = message(&mut bundles.into_inner()).await;
            assert_eq!(first.bundles.len(), 1 + others, "{pod:?}");
        }
        // A trust domain that SPIRE federates with no longer is gone from the volume.
        ground.agent.order("unfederate", "one.example");
        eventually("it is gone", async || {
            ground.file(&federated, "federated/one.example.pem").is_none().then_some(())
        })
        .await;
        checked(&ground.node, &federated);
    });
}
