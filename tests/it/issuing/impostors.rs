//! Who is taken for the controller: nobody else is shown a token (DESIGN.md §5).

use std::{sync::Arc, time::Duration};

use svid_csi::clock::{Clock, SystemClock};
use tonic::Code;

use super::{
    Cluster, any_port,
    far_side::{CONTROLLER, Ca, Replica, Shared, Shown, authority},
};
use crate::{
    plugin::{Pod, assert_status, eventually, on_a_node},
    process::get,
    volume::checked,
};

const HOUR: Duration = Duration::from_secs(3600);

async fn in_front_of(shared: &Arc<Shared>, shown: &Shown) -> Cluster {
    let replica = Replica::start(shared, any_port(), shown).await;
    let signer = ["--signer", "controller"];
    Cluster::start_with(shared.clone(), vec![replica], &signer, &[]).await
}

#[test]
fn nobody_but_the_controller_is_shown_a_token() {
    on_a_node(async || {
        let shared = Shared::new();
        let ca = shared.authority();
        let now = SystemClock.now();
        let other: Ca = authority();
        let mut longer = Shown::controller(&ca);
        longer.chain.extend(Shown::controller(&other).chain);
        for (shown, part) in [
            // A pod's own SVID chains to the same bundle.
            (Shown::svid(&ca, "spiffe://example.org/ns/shop/sa/cart", now), "not the controller"),
            (
                Shown::svid(&ca, "spiffe://example.org/svid.dev/controllers", now),
                "not the controller",
            ),
            (Shown::svid(&ca, CONTROLLER, now - HOUR * 2), "expired"),
            (Shown::svid(&other, CONTROLLER, now), "does not lead to an authority"),
        ] {
            let cluster = in_front_of(&shared, &shown).await;
            let pod = Pod::new(1);
            let refused = cluster.publish(&pod, "pod.token.1").await;
            assert_status(refused, Code::Unavailable, &[part, "refused"]);
            assert!(shared.seen().is_empty(), "it was asked");
            let (status, reason) = get(&cluster.node, "/readyz").await;
            assert!(status == 503 && reason.contains(part), "{reason}");
            let metrics = get(&cluster.node, "/metrics").await.1;
            assert!(metrics.contains(r#"controller_handshakes_total{result="refused"}"#));
            cluster.node.unpublish(&pod).await.unwrap();
        }
        // One that shows a certificate too many is still itself.
        let cluster = in_front_of(&shared, &longer).await;
        assert!(cluster.publish(&Pod::new(1), "pod.token.1").await.is_err());
        assert!(shared.seen().is_empty(), "its chain is no SVID's");
        cluster.node.unpublish(&Pod::new(1)).await.unwrap();
    });
}

/// Invariant 6: the controller's next root is trusted as soon as it is in the bundle, and a
/// connection under one that is gone ends.
#[test]
fn connections_follow_the_bundle() {
    on_a_node(async || {
        let mut cluster = Cluster::start(1, &[]).await;
        cluster.publish(&Pod::new(1), "pod.token.1").await.unwrap();
        let (old, new) = (cluster.shared.authority(), authority());
        cluster.publish_bundle(&[&old, &new]);
        eventually("the volume has both", async || {
            let set = checked(&cluster.node, &Pod::new(1));
            (set.bundle.x509_authorities().len() == 2).then_some(())
        })
        .await;
        let connected = async |cluster: &Cluster| {
            let metrics = get(&cluster.node, "/metrics").await.1;
            let line = metrics.lines().find(|it| it.contains("replica_connected{")).unwrap();
            line.ends_with(" 1")
        };
        assert!(connected(&cluster).await, "nothing that was trusted is gone");

        // The same certificate, whose root is withdrawn.
        *cluster.shared.authority.lock().unwrap() = new.clone();
        cluster.publish_bundle(&[&new]);
        eventually("the connection ends", async || (!connected(&cluster).await).then_some(()))
            .await;
        let (status, reason) = get(&cluster.node, "/readyz").await;
        assert!(status == 503 && reason.contains("does not lead to an authority"), "{reason}");

        // It comes back with a certificate under the root that stays.
        let address = cluster.replicas.remove(0).address;
        let shown = Shown::controller(&new);
        let replica = eventually("its port is free", async || {
            std::net::TcpListener::bind(address).is_ok().then_some(())
        });
        replica.await;
        cluster.replicas.push(Replica::start(&cluster.shared, address, &shown).await);
        cluster.publish(&Pod::new(2), "pod.token.2").await.unwrap();
        checked(&cluster.node, &Pod::new(2));
        for n in [1, 2] {
            cluster.node.unpublish(&Pod::new(n)).await.unwrap();
        }
    });
}
