//! `svid-csi fetch` at the sockets of the real node plugin.

use std::{
    fs,
    io::{BufRead, BufReader, Lines},
    process::{ChildStdout, Stdio},
};

use serde_json::Value;
use svid_csi::pki::certificates_from_pem;

use super::{command, run};
use crate::plugin::{Node, Pod, on_a_node};

fn socket(node: &Node, pod: &Pod) -> String {
    node.target(pod).join("spiffe.sock").display().to_string()
}

fn serial(node: &Node, pod: &Pod) -> String {
    let chain = fs::read_to_string(node.target(pod).join("tls.crt")).unwrap();
    certificates_from_pem(&chain).unwrap()[0].serial_hex().to_owned()
}

#[test]
fn what_is_fetched_is_what_the_files_have() {
    on_a_node(async || {
        let node = Node::started(&[]).await;
        let (one, other) = (Pod::new(1), Pod::new(2));
        for pod in [&one, &other] {
            node.publish(pod).await.unwrap();
            let ran = run(&socket(&node, pod), &["x509", "-o", "json"]);
            ran.has(0, &[&serial(&node, pod), &pod.id()], &[]);
        }
        let socket = socket(&node, &one);
        run(&socket, &["healthcheck"]).has(0, &["healthy"], &[]);
        run(&socket, &["bundle"]).has(0, &["example.org, 1 authority"], &[]);
        node.unpublish(&one).await.unwrap();
        run(&socket, &["healthcheck"]).has(1, &[], &["is the volume mounted here"]);
    });
}

#[test]
fn a_token_of_one_pod_is_validated_at_the_socket_of_another() {
    on_a_node(async || {
        let node = Node::started(&["--jwt-key-algorithm", "es256"]).await;
        let (one, mut other) = (Pod::new(1), Pod::new(2));
        other.service_account = "ledger".to_owned();
        node.publish(&one).await.unwrap();
        node.publish(&other).await.unwrap();
        let (one_socket, other_socket) = (socket(&node, &one), socket(&node, &other));
        let ran = run(&one_socket, &["jwt", "-a", "bank", "-o", "token"]);
        ran.has(0, &["."], &[]);
        let token = ran.stdout.trim();
        let ran = run(&other_socket, &["validate", "-a", "bank", "-o", "json", token]);
        ran.has(0, &[], &[]);
        let said = ran.json();
        assert_eq!((&said["valid"], &said["spiffeId"]), (&true.into(), &one.id().into()));
        assert_eq!(said["claims"]["aud"], serde_json::json!(["bank"]));
        let wrong = run(&other_socket, &["validate", "-a", "ledger", token]);
        wrong.has(1, &["not valid: the token is for another audience"], &[]);
        let foreign = run(&one_socket, &["jwt", "-a", "bank", "--spiffe-id", &other.id()]);
        foreign.has(1, &[], &["PermissionDenied: no identity issued"]);
        run(&one_socket, &["bundle"]).has(0, &["JWT key", "P-256, kid "], &[]);
        let jwks = run(&one_socket, &["bundle", "-o", "jwks"]).json();
        assert_eq!(jwks["keys"].as_array().unwrap().len(), 1);
    });
}

/// Invariant 4, as the client sees it: nobody restarts the client, nothing fresh is issued again.
#[test]
fn a_watch_goes_on_after_the_plugin_was_killed() {
    on_a_node(async || {
        let mut node = Node::started(&[]).await;
        let pod = Pod::new(1);
        node.publish(&pod).await.unwrap();
        let mut command = command(&socket(&node, &pod), &["watch", "-o", "json"]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let next = |lines: &mut Lines<BufReader<ChildStdout>>| {
            let line: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
            line["results"][0]["svid"]["serial"].as_str().unwrap().to_owned()
        };
        let first = next(&mut lines);
        assert_eq!(first, serial(&node, &pod));
        node.kill().await;
        node.start().await;
        assert_eq!(next(&mut lines), first);
        child.kill().unwrap();
        child.wait().unwrap();
        let told = BufReader::new(child.stderr.take().unwrap()).lines().next().unwrap().unwrap();
        assert!(told.contains("spiffe.sock: "), "{told}");
    });
}
