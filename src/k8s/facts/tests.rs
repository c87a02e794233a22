//! What is kept of objects, and what isn't.

use std::time::Duration;

use serde_json::json;

use super::*;

#[test]
fn of_a_pod_nothing_counts_in_its_favour_that_its_kubelet_writes() {
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {
            "namespace": "shop", "name": "web-0", "uid": "u", "labels": {"app": "web"},
            "annotations": {"kubernetes.io/config.mirror": "x", "csi.svid.dev/id": "admin"},
            "deletionTimestamp": "2026-11-22T09:00:00Z",
        },
        "spec": {"nodeName": "a", "containers": [], "volumes": [
            {"name": "v", "csi": {"driver": "csi.svid.dev", "readOnly": true}},
            {"name": "w", "persistentVolumeClaim": {"claimName": "csi.other.dev"}},
        ]},
        "status": {"phase": "Succeeded", "podIP": "10.0.0.1"},
    }))
    .unwrap();
    let facts = PodFacts::from(pod);
    assert_eq!(facts.object_name(), ObjectName::new("shop", "web-0"));
    assert_eq!((facts.node_name(), facts.service_account()), ("a", "default"));
    assert!(facts.mirror && facts.is_finished());
    assert!(facts.uses_driver("csi.svid.dev") && !facts.uses_driver("csi.other.dev"));
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_338_000);
    assert_eq!(facts.deletion_timestamp, Some(at));
    assert_eq!(PodFacts::from(Pod::default()), PodFacts::default());
}

#[test]
fn of_a_nodes_labels_only_those_count_that_its_kubelet_cannot_write() {
    let node: Node = serde_json::from_value(json!({
        "metadata": {"name": "a", "uid": "u", "labels": {
            "node-restriction.kubernetes.io/zone": "1",
            "team.node-restriction.kubernetes.io/name": "2",
            "evil-node-restriction.kubernetes.io/x": "3",
            "node-restriction.kubernetes.io": "4",
            "kubernetes.io/hostname": "a",
            "plain": "6",
        }},
        "spec": {"taints": [{"key": "k", "effect": "NoExecute"}]},
        "status": {"nodeInfo": null},
    }))
    .unwrap();
    let facts = NodeFacts::from(node);
    let labels: Vec<_> = facts.labels.keys().map(String::as_str).collect();
    assert_eq!(
        labels,
        ["node-restriction.kubernetes.io/zone", "team.node-restriction.kubernetes.io/name"]
    );
    assert_eq!(facts.taints[0].effect, "NoExecute");
}

#[test]
fn of_a_request_only_what_is_true_was_decided() {
    let request: CertificateSigningRequest = serde_json::from_value(json!({
        "metadata": {"name": "svid-1", "uid": "u", "resourceVersion": "7", "annotations": {
            "csi.svid.dev/pod-namespace": "shop", "csi.svid.dev/pod-name": "web-0",
        }},
        "spec": {
            "request": "aGVsbG8=", "signerName": "svid.dev/workload",
            "username": "system:serviceaccount:svid-system:svid-csi",
            "extra": {
                "authentication.kubernetes.io/pod-name": ["x"],
                "authentication.kubernetes.io/node-name": ["a"],
                "two": ["a", "b"], "none": [], "empty": [""],
            },
        },
        "status": {"certificate": "", "conditions": [
            {"type": "Approved", "status": "True", "reason": "SvidPolicy"},
            {"type": "Failed", "status": "False"},
        ]},
    }))
    .unwrap();
    let facts = RequestFacts::from(request);
    assert!(facts.is_approved() && !facts.is_denied() && !facts.is_failed());
    assert!(!facts.has_certificate);
    assert_eq!(facts.request, b"hello");
    for key in ["two", "none", "empty", "absent"] {
        assert_eq!(facts.extra(key), None, "{key}");
    }
}
