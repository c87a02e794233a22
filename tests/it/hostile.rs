//! A pod that turns on the driver by way of its volume's socket: whatever it sends is answered by
//! the standard's code or by the end of its connection, costs little memory, and its neighbour's
//! calls go on being answered.

mod bytes;
mod calls;
mod crowd;
mod neighbour;
mod wire;

use std::{fs, pin::Pin};

use self::{neighbour::Neighbour, wire::Ended};
use crate::plugin::{Node, Pod, on_a_node};

/// What the process may have grown by after an attack, in KiB.
const GROWTH: u64 = 24 * 1024;
/// The same where each of a pod's 64 connections is made to hold 0.85 MiB, in buffers that entries of
/// `h2`'s dynamic table refer to.
const GROWTH_OF_TABLES: u64 = 80 * 1024;

/// A node with the attacker's pod and its neighbour's.
struct Scene {
    node: Node,
    attacker: Pod,
    neighbour: Neighbour,
    /// Resident memory before the first attack.
    before: u64,
}

/// An attack under way.
type Attack<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

// === impl Scene ===

impl Scene {
    async fn new() -> Self {
        let node = Node::started(&[]).await;
        let (attacker, victim) = (Pod::new(1), Pod::new(2));
        for pod in [&attacker, &victim] {
            node.publish(pod).await.unwrap();
        }
        let neighbour = Neighbour::new(node.target(&victim).join("spiffe.sock"), victim.id());
        neighbour.answered().await;
        let before = resident(&node);
        Self { node, attacker, neighbour, before }
    }

    fn wire(&self) -> wire::Door {
        wire::Door(self.node.target(&self.attacker).join("spiffe.sock"))
    }

    /// Attacks while the neighbour calls, and looks at the process then.
    fn during<'a, T: 'a>(
        &'a self,
        what: &'a str,
        attack: impl Future<Output = T> + 'a,
    ) -> Attack<'a, T> {
        self.growing(GROWTH, what, attack)
    }

    /// The same, with this bound of memory.
    fn growing<'a, T: 'a>(
        &'a self,
        most: u64,
        what: &'a str,
        attack: impl Future<Output = T> + 'a,
    ) -> Attack<'a, T> {
        Box::pin(async move {
            let (seen, calls) = self.neighbour.during(attack).await;
            let grown = resident(&self.node).saturating_sub(self.before);
            println!("{what}: {calls} calls of the neighbour answered, {grown} KiB more");
            assert!(grown < most, "{what}: {grown} KiB more than before");
            seen
        })
    }
}

/// VmRSS in KiB.
fn resident(node: &Node) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", node.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn malformed_bytes_end_only_their_connection() {
    on_a_node(|| async {
        let scene = Scene::new().await;
        for bytes in bytes::all() {
            let name = bytes.name;
            let ended = scene.during(name, scene.wire().send(&bytes.sent)).await;
            assert_eq!(ended, bytes.wanted, "{name}");
        }
    });
}

#[test]
fn floods_end_or_stall_their_connection() {
    on_a_node(|| async {
        let scene = Scene::new().await;
        for bytes in bytes::floods() {
            let name = bytes.name;
            let ended = scene
                .during(name, scene.wire().flood(&bytes.sent, bytes.wanted == Ended::Stalled))
                .await;
            assert_eq!(ended, bytes.wanted, "{name}");
        }
    });
}

#[test]
fn calls_that_ask_too_much_are_refused() {
    on_a_node(|| async {
        let scene = Scene::new().await;
        calls::all(&scene).await;
    });
}

#[test]
fn a_crowd_of_connections_is_bounded() {
    on_a_node(|| async {
        let scene = Scene::new().await;
        crowd::all(&scene).await;
    });
}
