//! The plugin without a good CA: it serves, says what is wrong, keeps what lives, and goes on as
//! soon as there is one.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    time::{Duration, Instant},
};

use svid_csi::pki::Authority;
use svid_csi_proto::csi::v1::{ProbeRequest, identity_client::IdentityClient};
use tokio::time::sleep;
use tonic::Code;

use crate::{
    local_ca::{new_ca, put},
    plugin::{Node, Pod, assert_status, eventually, on_a_node},
    process::get,
    volume::{Set, checked},
};

async fn ready(node: &Node) -> bool {
    let mut identity = IdentityClient::new(node.channel().await.unwrap());
    identity.probe(ProbeRequest {}).await.unwrap().into_inner().ready.unwrap()
}

fn put_private(directory: &Path, authority: &Authority) {
    fs::create_dir_all(directory).unwrap();
    fs::write(directory.join("tls.key"), "").unwrap();
    let private = fs::Permissions::from_mode(0o600);
    fs::set_permissions(directory.join("tls.key"), private).unwrap();
    put(directory, authority);
}

/// Invariant 2, and the whole way of a person who installs without a CA.
#[test]
fn a_publish_waits_for_the_ca_and_says_what_is_missing() {
    on_a_node(async || {
        let mut node = Node::without_ca();
        node.start().await;
        let dir = node.ca_dir().display().to_string();
        assert!(!ready(&node).await);
        let (status, reason) = get(&node, "/readyz").await;
        assert!(status == 503 && reason.contains(&dir) && reason.contains("--ca-create"));
        eventually("alive", async || (get(&node, "/livez").await.0 == 200).then_some(())).await;
        assert!(get(&node, "/metrics").await.1.contains("svid_csi_signer_ready 0"));
        let errors = node.log().matches(r#""level":"ERROR""#).count();
        assert_eq!(errors, 1, "{}", node.log());

        let (in_vain, in_time) = (Pod::new(1), Pod::new(2));
        let began = Instant::now();
        let parts = ["holds no CA", dir.as_str(), "tried for 20 s"];
        assert_status(node.publish(&in_vain).await, Code::Unavailable, &parts);
        let took = began.elapsed();
        assert!((19..22).contains(&took.as_secs()), "{took:?}");
        assert!(Set::read(&node.target(&in_vain)).is_err());

        let began = Instant::now();
        let repair = async {
            sleep(Duration::from_secs(3)).await;
            put_private(&node.ca_dir(), &new_ca());
        };
        let (published, ()) = tokio::join!(node.publish(&in_time), repair);
        published.unwrap();
        println!("the CA came after 3 s, the SVID after {:?}", began.elapsed());
        checked(&node, &in_time);
        assert!(ready(&node).await);
        assert!(get(&node, "/metrics").await.1.contains("svid_csi_signer_ready 1"));
        node.publish(&in_vain).await.unwrap();
        checked(&node, &in_vain);
    });
}

/// A pod's deletion, and the driver's end, don't wait for a signer.
#[test]
fn an_unpublish_or_a_shutdown_ends_the_wait() {
    on_a_node(async || {
        let mut node = Node::without_ca();
        node.start().await;
        let pod = Pod::new(1);
        let began = Instant::now();
        let delete = async {
            eventually("it is mounted", async || node.mounts().first().cloned()).await;
            sleep(Duration::from_secs(1)).await;
            node.unpublish(&pod).await.unwrap();
        };
        let (published, ()) = tokio::join!(node.publish(&pod), delete);
        assert_status(published, Code::Aborted, &["being unpublished"]);
        assert!(node.mounts().is_empty() && !node.target(&pod).exists());

        node.prepare(&pod);
        let (mut csi, request) = (node.csi().await, node.request(&pod));
        let end = async {
            eventually("it is mounted", async || node.mounts().first().cloned()).await;
            node.terminate().await
        };
        let (published, status) = tokio::join!(csi.node_publish_volume(request), end);
        assert_eq!(status, Some(0));
        let published = published.map(|_| ());
        assert_status(published, Code::Unavailable, &["shutting down"]);
        assert!(began.elapsed() < Duration::from_secs(12), "{:?}", began.elapsed());
    });
}

/// Invariants 3, 4 and 6, where the CA is gone when the plugin starts again.
#[test]
fn live_volumes_outlast_a_start_without_a_ca() {
    on_a_node(async || {
        let mut node = Node::without_ca();
        put_private(&node.ca_dir(), &new_ca());
        node.start().await;
        let (long, short) = (Pod::new(1), Pod::new(2).with("ttl", "10s"));
        for pod in [&long, &short] {
            node.publish(pod).await.unwrap();
        }
        let before = checked(&node, &long);
        let data = fs::read_link(node.target(&long).join("..data")).unwrap();
        node.kill().await;
        for name in ["tls.crt", "tls.key"] {
            fs::write(node.ca_dir().join(name), "garbage").unwrap();
        }
        node.start().await;
        node.publish(&long).await.expect("what lives is never refused");
        eventually("a renewal fails", async || node.log().contains("renewal failed").then_some(()))
            .await;
        assert_eq!(fs::read_link(node.target(&long).join("..data")).unwrap(), data, "untouched");
        let held = Set::read(&node.target(&short)).expect("the last good set stays");
        assert_eq!(held.bundle.to_pem(), before.bundle.to_pem());

        let new = new_ca();
        put(&node.ca_dir(), &new);
        let mut trusted_before_it_signed = false;
        eventually("the new CA signs", async || {
            let set = Set::read(&node.target(&long)).unwrap();
            trusted_before_it_signed |= set.bundle.contains(&new.roots()[0]);
            let renewed = Set::read(&node.target(&short)).unwrap();
            if renewed.svid.leaf().issuer() != new.certificate().subject() {
                return None;
            }
            assert!(trusted_before_it_signed);
            Some(())
        })
        .await;
        let after = checked(&node, &long);
        assert_eq!(after.svid.serial_hex(), before.svid.serial_hex());
        assert!(after.bundle.contains(&before.bundle.x509_authorities()[0]));
        assert!(ready(&node).await);
    });
}
