//! In a DaemonSet: kubelet's directories come into the container as mounts of their own, whose
//! mounts go back to the host.

use std::process::Command;

use crate::{
    plugin::{DRIVER, Node, Pod, eventually, on_a_node},
    volume::{Set, checked},
};

/// What a container runtime does for the chart's three `hostPath` volumes. The rest of the
/// container's root file system is read-only.
const THREE_DIRECTORIES: &str = r#"
for dir in pods "plugins/$DRIVER" plugins_registry; do
    mkdir -p "kubelet/$dir"
done
mount -o remount,ro kubelet
for dir in pods "plugins/$DRIVER" plugins_registry; do
    mount --bind "host/$dir" "kubelet/$dir"
done
"#;

const WHOLE_DIRECTORY: &str = "mount --bind host kubelet";

fn mount_directories(node: &Node, how: &str) {
    let script = format!(
        r#"
set -e
mkdir host
mount -t tmpfs host host
mount --make-shared host
mkdir -p host/pods "host/plugins/$DRIVER" host/plugins_registry
mount -t tmpfs container kubelet
{how}"#
    );
    let mut shell = Command::new("sh");
    shell.args(["-c", &script]).current_dir(node.path("")).env("DRIVER", DRIVER);
    assert!(shell.status().unwrap().success());
}

/// Invariant 4, with the mounts that a restarted container gets.
fn serves_and_resumes(how: &'static str) {
    on_a_node(async || {
        let mut node = Node::new(&[]);
        mount_directories(&node, how);
        node.start().await;
        let pod = Pod::new(1).with("ttl", "10s");
        node.publish(&pod).await.unwrap();
        let before = checked(&node, &pod).svid.serial_hex().to_owned();
        let on_the_host =
            node.path("host").join(node.target(&pod).strip_prefix(node.kubelet()).unwrap());
        assert_eq!(Set::read(&on_the_host).unwrap().svid.serial_hex(), before);

        node.kill().await;
        node.start().await;
        node.publish(&pod).await.unwrap();
        eventually("it is renewed", async || {
            (checked(&node, &pod).svid.serial_hex() != before).then_some(())
        })
        .await;
        assert_eq!(node.mounts().len(), 1, "nothing is stacked");
        node.unpublish(&pod).await.unwrap();
        assert!(node.mounts().is_empty() && !on_the_host.exists());
    });
}

#[test]
fn three_directories_of_kubelet_are_enough() {
    serves_and_resumes(THREE_DIRECTORIES);
}

#[test]
fn the_whole_of_kubelets_directory_serves_too() {
    serves_and_resumes(WHOLE_DIRECTORY);
}
