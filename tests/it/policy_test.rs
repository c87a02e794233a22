//! `svid-csi policy test`: what it says, and its exit status.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use serde_json::Value;

const POD: &str = "\
apiVersion: v1
kind: Pod
metadata: {name: web-0, namespace: shop}
spec:
  serviceAccountName: web
  containers: [{name: web, image: registry.example/web:1}]
  volumes: [{name: svid, csi: {driver: csi.svid.dev, readOnly: true}}]
";
const NAMESPACE: &str = "\
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {team: shop}}
";

/// A directory with the document's first example and what it needs.
fn scene() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/policy.md");
    let document = fs::read_to_string(document).unwrap();
    let example = document.split("```yaml\n").nth(1).unwrap().split("```").next().unwrap();
    let example = example.replace("[web, payments/api]", "[web]");
    for (name, text) in [
        ("policy.yaml", example.as_str()),
        ("pod.yaml", POD),
        ("elsewhere.yaml", &POD.replace("registry.example", "docker.io")),
        ("plain.yaml", &POD.replace("csi: {driver: csi.svid.dev, readOnly: true}", "emptyDir: {}")),
        ("namespace.yaml", NAMESPACE),
        ("typo.yaml", &example.replacen("maxTTL", "maxTtl", 1)),
        ("broken.yaml", &example.replace("pod.spec", "pod.annotations")),
        ("old.yaml", &example.replace("v1alpha1", "v1")),
        ("text.yaml", "{ not: [yaml"),
    ] {
        fs::write(dir.path().join(name), text).unwrap();
    }
    dir
}

fn test(dir: &Path, arguments: &str) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_svid-csi"));
    command.args(["policy", "test"]).args(arguments.split_whitespace());
    command.env_remove("SVID_CSI_TRUST_DOMAIN").env_remove("SVID_CSI_DRIVER_NAME");
    let output = command.current_dir(dir).stdin(Stdio::null()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn the_documents_example_says_what_the_document_says() {
    let dir = scene();
    let arguments = "policy.yaml --pod-file pod.yaml --namespace-file namespace.yaml";
    let (code, said, _) = test(dir.path(), arguments);
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/policy.md");
    let document = fs::read_to_string(document).unwrap();
    assert!(document.contains(&said), "{said}");
    assert_eq!(code, Some(0));
}

#[test]
fn a_denial_has_its_reason_and_status_1() {
    let dir = scene();
    let namespace = "--namespace-file namespace.yaml";
    for (arguments, reason) in [
        ("--pod-file elsewhere.yaml", "RuleNotMet"),
        ("--pod-file plain.yaml", "PodWithoutVolume"),
        ("--pod-file pod.yaml --ttl 3h", "TtlNotAllowed"),
        ("--pod-file pod.yaml --key-algorithm ed25519", "KeyAlgorithmNotAllowed"),
        ("--pod-file pod.yaml --dns-names a.b,c.d", "DnsNameNotAllowed"),
    ] {
        let arguments = format!("policy.yaml {namespace} {arguments} -o json");
        let (code, said, _) = test(dir.path(), &arguments);
        let json: Value = serde_json::from_str(&said).unwrap();
        assert_eq!((&json["decision"], &json["reason"]), (&"denied".into(), &reason.into()));
        assert_eq!(code, Some(1), "{arguments}");
    }
    let (_, said, _) = test(dir.path(), "policy.yaml --pod-file pod.yaml");
    assert!(said.contains("does not match") && said.contains("DENIED    NoPolicy"), "{said}");
    let broken = format!("broken.yaml --pod-file pod.yaml {namespace}");
    let (code, said, _) = test(dir.path(), &broken);
    assert!(said.contains("INVALID: the rule own-registry: pod has no annotations"), "{said}");
    assert_eq!(code, Some(1));
}

#[test]
fn a_jwt_svid_is_explained_too() {
    let dir = scene();
    let arguments = "policy.yaml --pod-file pod.yaml --namespace-file namespace.yaml --audience";
    let (code, said, _) = test(dir.path(), &format!("{arguments} https://api.example"));
    let lines = "jwt       for https://api.example, 10m at most\nclaim     team: shop\nADMITTED\n";
    assert!(said.ends_with(lines), "{said}");
    assert_eq!(code, Some(0));
    let arguments = format!("{arguments} https://api.example,https://other.example");
    let (code, said, _) = test(dir.path(), &arguments);
    let line = "DENIED    the JWT-SVID: AudienceNotAllowed: ";
    assert!(said.contains("id        spiffe://") && said.contains(line), "{said}");
    assert_eq!(code, Some(1));
    let (_, said, _) = test(dir.path(), &format!("{arguments} -o json"));
    let json: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(
        (&json["decision"], &json["jwt"]["decision"]),
        (&"admitted".into(), &"denied".into())
    );
    assert_eq!(json["jwt"]["reason"], "AudienceNotAllowed");
}

#[test]
fn bad_input_is_said_with_status_64() {
    let dir = scene();
    for (arguments, problem) in [
        ("typo.yaml --pod-file pod.yaml", "no field spec.x509.maxTtl; did you mean maxTTL?"),
        ("old.yaml --pod-file pod.yaml", "apiVersion"),
        ("text.yaml --pod-file pod.yaml", "text.yaml"),
        ("pod.yaml --pod-file pod.yaml", "there is no SvidPolicy in it"),
        ("policy.yaml --pod-file namespace.yaml", "there is no Pod in it"),
        ("policy.yaml --pod-file absent.yaml", "absent.yaml"),
        ("--pod-file pod.yaml", "name a file"),
        ("policy.yaml", "--pod"),
        ("policy.yaml --pod-file pod.yaml --ttl soon", "--ttl"),
        ("policy.yaml --pod-file pod.yaml --key-algorithm dsa", "--key-algorithm"),
        ("policy.yaml --pod-file pod.yaml --dns-names *.x", "wildcards"),
        ("policy.yaml --pod-file pod.yaml --audience a,,b", "--audience"),
    ] {
        let (code, said, complaint) = test(dir.path(), arguments);
        assert_eq!((code, said.as_str()), (Some(64), ""), "{arguments}");
        assert!(complaint.contains(problem), "{arguments}: {complaint}");
    }
}
