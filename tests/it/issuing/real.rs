//! The node plugin's process in front of the controller's.

use std::fs;

use serde_json::json;
use svid_csi::{jose, pki::TrustBundle};
use tonic::Code;

use super::{LATER, TOKENS, tokens, tokens::fetch_jwt};
use crate::{
    issuer::{Bench, cart, now},
    plugin::{Node, Pod, TRUST_DOMAIN, assert_status, eventually, on_a_node},
    process::get,
    volume::checked,
};

/// The pod that the cluster of the controller's tests has on node-1.
fn cart_pod() -> Pod {
    Pod { uid: "p-1".to_owned(), name: "cart-0".to_owned(), ..Pod::new(0) }
}

async fn node(bench: &Bench) -> Node {
    let mut node = Node::without_ca();
    let (address, token) = (bench.address.to_string(), node.path("driver-token"));
    let token = token.display().to_string();
    let settings = ["--controller-address", &address, "--controller-token-file", &token];
    node.set_extra(&[["--signer", "controller", "--kubeconfig"].as_slice(), &settings].concat());
    fs::write(node.path("kubeconfig"), bench.server.kubeconfig("svid-csi")).unwrap();
    fs::write(node.path("driver-token"), bench.driver()).unwrap();
    node.start().await;
    node
}

#[test]
fn the_controller_signs_for_a_pod_that_both_tokens_prove() {
    on_a_node(async || {
        let bench = Bench::start().await;
        let node = node(&bench).await;
        // Without a call yet, the connection is known to be a driver's, so that it stays.
        eventually("it is connected and known", async || {
            let ready = get(&node, "/readyz").await.0 == 200;
            let strangers = bench.metric("svid_csi_controller_issuer_connections_unproven ").await;
            let all = bench.metric("svid_csi_controller_issuer_connections_open ").await;
            (ready && strangers == 0.0 && all == 1.0).then_some(())
        })
        .await;

        let pod = cart_pod();
        let publish = async |token: &str| {
            node.prepare(&pod);
            let mut request = node.request(&pod);
            request.secrets.insert(TOKENS.to_owned(), tokens(token, LATER));
            node.publish_raw(request).await
        };
        // Another pod's token, and one of another node's driver.
        let mut other = cart();
        other["kubernetes.io"]["pod"] = json!({"name": "cart-1", "uid": "p-2"});
        let denied = publish(&bench.authority.token(&other)).await;
        assert_status(denied, Code::PermissionDenied, &["the controller denied it"]);
        let mut foreign = cart();
        foreign["aud"] = json!(["vault"]);
        let refused = publish(&bench.authority.token(&foreign)).await;
        assert_status(refused, Code::FailedPrecondition, &["the pod's token", "audience"]);

        publish(&bench.pod()).await.unwrap();
        checked(&node, &pod);
        // JWT-SVIDs come as soon as policy lets them.
        let status = fetch_jwt(&node, &pod, "db").await.unwrap_err();
        assert_eq!(
            (status.code(), status.message()),
            (Code::PermissionDenied, "no identity issued")
        );
        let spec = json!({"jwt": {"audiences": ["db"]}});
        let policy = json!({"metadata": {"name": "default", "generation": 2}, "spec": spec});
        bench.server.store.put("apis/svid.dev/v1alpha1/svidpolicies", policy);
        let token =
            eventually("a JWT-SVID is issued", async || fetch_jwt(&node, &pod, "db").await.ok())
                .await;
        let json = fs::read(node.target(&pod).join("bundle.json")).unwrap();
        let bundle = TrustBundle::from_jwks(TRUST_DOMAIN.parse().unwrap(), &json).unwrap();
        let of = |_: &_| Some(bundle.jwt_authorities().clone());
        let verified = jose::verify(&token, "db", of, now()).unwrap();
        assert_eq!(verified.id.as_str(), pod.id());
        node.unpublish(&pod).await.unwrap();
    });
}
