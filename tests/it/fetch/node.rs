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
