//! Requests that can't be served: the right code, a sentence that helps, nothing left behind
//! (invariant 7).

use std::{fs, os::unix::fs::symlink};

use svid_csi_proto::csi::v1::{
    NodePublishVolumeRequest, NodeUnpublishVolumeRequest,
    volume_capability::{AccessType, BlockVolume},
};
use tonic::Code;

use crate::plugin::{Node, Pod, assert_status, on_a_node};

/// Publishes a changed request; it must fail and leave no mount and no target directory.
async fn refused(
    node: &Node,
    what: &str,
    change: impl FnOnce(&mut NodePublishVolumeRequest),
    code: Code,
    parts: &[&str],
) {
    let pod = Pod::new(1);
    node.prepare(&pod);
    let mut request = node.request(&pod);
    change(&mut request);
    println!("{what}");
    assert_status(node.publish_raw(request).await, code, parts);
    assert_eq!(node.mounts(), Vec::<String>::new(), "{what}");
    assert!(!node.target(&pod).exists(), "{what}");
}

fn set(key: &str, value: &str) -> impl FnOnce(&mut NodePublishVolumeRequest) {
    move |request| drop(request.volume_context.insert(key.to_owned(), value.to_owned()))
}

fn unset(key: &str) -> impl FnOnce(&mut NodePublishVolumeRequest) {
    move |request| drop(request.volume_context.remove(key))
}

#[test]
fn pod_info_that_is_missing_or_malformed() {
    on_a_node(async || {
        let node = Node::started(&[]).await;
        let invalid = Code::InvalidArgument;
        let keys = ["pod.name", "pod.namespace", "pod.uid", "serviceAccount.name", "ephemeral"];
        for key in keys {
            let key = format!("csi.storage.k8s.io/{key}");
            refused(&node, "missing", unset(&key), invalid, &[&key]).await;
            refused(&node, "empty", set(&key, ""), invalid, &[&key]).await;
            for bad in ["../x", "a/b", "a b", "\0", "UPPER CASE", &"x".repeat(300)] {
                refused(&node, bad, set(&key, bad), invalid, &[&key]).await;
            }
        }
        let other = set("csi.storage.k8s.io/pod.uid", "00000000-0000-4000-8000-00000000000f");
        refused(&node, "another pod's directory", other, invalid, &["UID"]).await;
    });
}

#[test]
fn attributes_that_are_unknown_or_out_of_bounds() {
    on_a_node(async || {
        let node = Node::started(&["--max-ttl", "2h"]).await;
        let cases: &[(&str, &str, &[&str])] = &[
            ("csi.svid.dev/tll", "1h", &["csi.svid.dev/tll", "csi.svid.dev/ttl"]),
            ("csi.svid.dev/key-algo", "rsa-2048", &["csi.svid.dev/key-algorithm"]),
            ("ttl", "1h", &["csi.svid.dev/ttl"]),
            ("csi.svid.dev/ttl", "9s", &["ttl", "10s"]),
            ("csi.svid.dev/ttl", "3h", &["ttl", "2h"]),
            ("csi.svid.dev/ttl", "soon", &["ttl"]),
            ("csi.svid.dev/ttl", "-1h", &["ttl"]),
            ("csi.svid.dev/ttl", "99999999999999999999h", &["ttl"]),
            ("csi.svid.dev/key-algorithm", "rsa-1024", &["rsa-2048"]),
            ("csi.svid.dev/layout", "pem", &["spiffe-helper"]),
            ("csi.svid.dev/certificate-file", "/etc/passwd", &["certificate-file"]),
            ("csi.svid.dev/certificate-file", "../tls.crt", &["certificate-file"]),
            ("csi.svid.dev/certificate-file", "a/b", &["certificate-file"]),
            ("csi.svid.dev/certificate-file", "", &["certificate-file"]),
            ("csi.svid.dev/certificate-file", "..data", &["certificate-file"]),
            ("csi.svid.dev/certificate-file", ".svid", &["certificate-file"]),
            ("csi.svid.dev/certificate-file", "bundle.json", &["certificate-file"]),
            ("csi.svid.dev/certificate-file", "spiffe.sock", &["certificate-file"]),
            ("csi.svid.dev/certificate-file", "tls.key", &["tls.key"]),
            ("csi.svid.dev/combined-file", "ca.crt", &["ca.crt"]),
            ("csi.svid.dev/mode", "0777", &["mode"]),
            ("csi.svid.dev/mode", "0600", &["mode"]),
            ("csi.svid.dev/mode", "0", &["mode"]),
            ("csi.svid.dev/mode", "rw", &["mode"]),
            ("csi.svid.dev/uid", "4294967295", &["uid"]),
            ("csi.svid.dev/uid", "-1", &["uid"]),
            ("csi.svid.dev/gid", "root", &["gid"]),
            ("csi.svid.dev/jwt", "token", &["jwt"]),
            ("csi.svid.dev/jwt", "token=", &["jwt"]),
            ("csi.svid.dev/jwt", "../token=aud", &["jwt"]),
            ("csi.svid.dev/jwt", "tls.key=aud", &["tls.key"]),
            ("csi.svid.dev/socket", "../spiffe.sock", &["socket"]),
            ("csi.svid.dev/socket", "tls.crt", &["tls.crt"]),
            ("csi.svid.dev/keystore", "pkcs12", &["not yet supported"]),
            ("csi.svid.dev/keystore-password-file", "pw", &["not yet supported"]),
            ("csi.svid.dev/dns-names", "*.b", &["cannot contain '*'"]),
        ];
        for (key, value, parts) in cases {
            let what = format!("{key}={value}");
            refused(&node, &what, set(key, value), Code::InvalidArgument, parts).await;
        }
        let long = "n".repeat(256);
        let name = set("csi.svid.dev/key-file", &long);
        refused(&node, "a long name", name, Code::InvalidArgument, &["key-file"]).await;
        // Another driver's attribute is nobody's business here.
        let pod = Pod::new(2);
        node.prepare(&pod);
        let mut request = node.request(&pod);
        request.volume_context.insert("example.com/whatever".to_owned(), "x".to_owned());
        node.publish_raw(request).await.unwrap();
    });
}

#[test]
fn requests_of_another_shape() {
    on_a_node(async || {
        let node = Node::started(&[]).await;
        let invalid = Code::InvalidArgument;
        let readonly = |request: &mut NodePublishVolumeRequest| request.readonly = false;
        refused(&node, "not read-only", readonly, invalid, &["readOnly: true"]).await;
        let block = |request: &mut NodePublishVolumeRequest| {
            let capability = request.volume_capability.as_mut().unwrap();
            capability.access_type = Some(AccessType::Block(BlockVolume {}));
        };
        refused(&node, "block", block, invalid, &["block"]).await;
        let none = |request: &mut NodePublishVolumeRequest| request.volume_capability = None;
        refused(&node, "no capability", none, invalid, &["volume_capability"]).await;
        let no_id = |request: &mut NodePublishVolumeRequest| request.volume_id.clear();
        refused(&node, "no id", no_id, invalid, &["volume_id"]).await;
        let long_id = |request: &mut NodePublishVolumeRequest| request.volume_id = "x".repeat(129);
        refused(&node, "long id", long_id, invalid, &["volume_id", "128"]).await;
        let no_target = |request: &mut NodePublishVolumeRequest| request.target_path.clear();
        refused(&node, "no target", no_target, invalid, &["target_path"]).await;
        let fs_type = |request: &mut NodePublishVolumeRequest| {
            let capability = request.volume_capability.as_mut().unwrap();
            if let Some(AccessType::Mount(mount)) = &mut capability.access_type {
                mount.fs_type = "ext4".to_owned();
            }
        };
        refused(&node, "a file system", fs_type, invalid, &["tmpfs"]).await;
        for group in ["staff", "-1", "4294967295"] {
            let fs_group = |request: &mut NodePublishVolumeRequest| {
                let capability = request.volume_capability.as_mut().unwrap();
                if let Some(AccessType::Mount(mount)) = &mut capability.access_type {
                    mount.volume_mount_group = group.to_owned();
                }
            };
            refused(&node, group, fs_group, invalid, &["volume_mount_group"]).await;
        }
    });
}

#[test]
fn targets_outside_kubelets_pods() {
    on_a_node(async || {
        let node = Node::started(&[]).await;
        let (kubelet, pod) = (node.kubelet().display().to_string(), Pod::new(1));
        let good = node.target(&pod).display().to_string();
        let uid = &pod.uid;
        for target in [
            "/etc".to_owned(),
            "relative/path".to_owned(),
            format!("{kubelet}/pods/../../etc/volumes/kubernetes.io~csi/x/mount"),
            format!("{kubelet}/pods/{uid}/volumes/kubernetes.io~csi/../../../x/mount"),
            format!("{kubelet}/pods/{uid}/volumes/kubernetes.io~csi/svid"),
            format!("{kubelet}/pods/{uid}/volumes/kubernetes.io~empty-dir/svid/mount"),
            format!("{kubelet}/plugins/x"),
            format!("{good}/deeper"),
            format!("{good}/"),
            good.replace("/mount", "//mount"),
            good.replace("/mount", "/./mount"),
            good.replace("svid", &"x".repeat(256)),
            format!("{good}\0"),
        ] {
            let there =
                |request: &mut NodePublishVolumeRequest| request.target_path = target.clone();
            refused(&node, &target, there, Code::InvalidArgument, &["target path"]).await;
            let request =
                NodeUnpublishVolumeRequest { volume_id: pod.volume_id(), target_path: target };
            let result = node.csi().await.node_unpublish_volume(request).await.map(|_| ());
            assert_status(result, Code::InvalidArgument, &["target path"]);
        }
        let lone = Pod::new(3);
        let result = node.publish_raw(node.request(&lone)).await;
        assert_status(result, Code::FailedPrecondition, &["kubelet makes it"]);
    });
}

/// A pod that gets write access to the node's directory must not lead the driver elsewhere.
#[test]
fn symlinks_in_the_target_path() {
    on_a_node(async || {
        let node = Node::started(&[]).await;
        let elsewhere = node.path("elsewhere");
        fs::create_dir_all(elsewhere.join("svid")).unwrap();

        let pod = Pod::new(1);
        node.prepare(&pod);
        symlink(&elsewhere, node.target(&pod)).unwrap();
        assert_status(node.publish(&pod).await, Code::Internal, &["not a directory"]);
        assert!(fs::symlink_metadata(node.target(&pod)).unwrap().is_symlink(), "left as it was");

        let pod = Pod::new(2);
        let volumes = node.target(&pod).parent().unwrap().parent().unwrap().to_owned();
        fs::create_dir_all(volumes.parent().unwrap()).unwrap();
        symlink(&elsewhere, &volumes).unwrap();
        let result = node.publish_raw(node.request(&pod)).await;
        assert_eq!(result.unwrap_err().code(), Code::Internal);
        assert!(node.unpublish(&pod).await.is_err());
        assert_eq!(fs::read_dir(elsewhere.join("svid")).unwrap().count(), 0);
        assert!(node.mounts().is_empty());
    });
}
