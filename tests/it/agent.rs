//! `--signer agent`: the node plugin's process in front of a SPIRE agent.

mod far_side;
mod given;
mod lasting;
mod refused;
mod trust;

use std::fs;

use self::far_side::{Agent, Entry};
use crate::{
    plugin::{Node, Pod, eventually},
    process::get,
    volume::{Set, checked},
};

/// A node with a SPIRE agent.
struct Ground {
    agent: Agent,
    node: Node,
}

// === impl Ground ===

impl Ground {
    /// Both run, and the agent's server has an entry for the first pods' ServiceAccount.
    async fn start() -> Self {
        let mut node = Node::without_ca();
        let mut agent = Agent::started(node.path("agent"));
        agent.entry("cart", Entry::of(&Pod::new(1)));
        node.set_extra(&[
            "--signer",
            "agent",
            "--agent-socket",
            &agent.socket().display().to_string(),
        ]);
        let mut ground = Self { agent, node };
        ground.start_node().await;
        ground.becomes_ready().await;
        ground
    }

    /// Starts the plugin, until it has said where its metrics are.
    async fn start_node(&mut self) {
        let told = |node: &Node| node.log().matches(r#""message":"ready""#).count();
        let before = told(&self.node);
        self.node.start().await;
        eventually("it says so", async || (told(&self.node) > before).then_some(())).await;
    }

    async fn becomes_ready(&self) {
        eventually("it is ready", async || {
            (get(&self.node, "/readyz").await.0 == 200).then_some(())
        })
        .await;
    }

    /// A published volume with the pod's default identity.
    async fn pod(&self, n: usize) -> Pod {
        let pod = Pod::new(n);
        self.node.publish(&pod).await.unwrap();
        checked(&self.node, &pod);
        pod
    }

    fn serial(&self, pod: &Pod) -> String {
        checked(&self.node, pod).svid.serial_hex().to_owned()
    }

    /// The volume's next SVID, after `before`; whoever reads meanwhile finds a whole set.
    async fn renewed(&self, pod: &Pod, before: &str) -> Set {
        eventually("the volume is renewed", async || {
            let set = checked(&self.node, pod);
            (set.svid.serial_hex() != before).then_some(set)
        })
        .await
    }

    fn file(&self, pod: &Pod, name: &str) -> Option<String> {
        fs::read_to_string(self.node.target(pod).join(name)).ok()
    }

    /// The class of the volume's last failure, as `inspect` has it.
    fn last_error(&self, pod: &Pod) -> Option<(String, String)> {
        let record = self.node.record(pod)?;
        let text = |name: &str| Some(record["lastError"].get(name)?.as_str()?.to_owned());
        Some((text("class")?, text("message")?))
    }

    async fn metric(&self, name: &str) -> String {
        let metrics = get(&self.node, "/metrics").await.1;
        let line = metrics.lines().find(|line| line.starts_with(&format!("svid_csi_{name}")));
        line.unwrap_or_default().rsplit(' ').next().unwrap_or_default().to_owned()
    }
}
