//! Calls as kubelet makes them.

use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use svid_csi_proto::csi::v1::{
    NodePublishVolumeRequest, NodeUnpublishVolumeRequest, node_client::NodeClient,
};
use tokio::task::JoinSet;
use tonic::transport::Channel;

use crate::{
    plugin::{Node, Pod, connect},
    sample::Sample,
};

/// How many calls are under way at once where many are.
pub const WIDTH: usize = 32;

/// A call that only waits to be sent.
#[derive(Clone)]
pub enum Call {
    Publish(Box<NodePublishVolumeRequest>),
    Unpublish(NodeUnpublishVolumeRequest),
}

// === impl Call ===

impl Call {
    /// A publish, after everything that kubelet does before it.
    pub fn publish(node: &Node, pod: &Pod) -> Self {
        node.prepare(pod);
        Self::Publish(Box::new(node.request(pod)))
    }

    pub fn unpublish(node: &Node, pod: &Pod) -> Self {
        Self::Unpublish(NodeUnpublishVolumeRequest {
            volume_id: pod.volume_id(),
            target_path: node.target(pod).display().to_string(),
        })
    }

    /// Sends it; how long the answer took.
    pub async fn send(self, client: &mut NodeClient<Channel>) -> Duration {
        let started = Instant::now();
        match self {
            Self::Publish(request) => drop(client.node_publish_volume(*request).await.unwrap()),
            Self::Unpublish(request) => drop(client.node_unpublish_volume(request).await.unwrap()),
        }
        started.elapsed()
    }

    /// Sends it over a connection of its own, as kubelet does.
    pub async fn send_anew(self, node: &Node) -> Duration {
        let started = Instant::now();
        self.send(&mut node.csi().await).await;
        started.elapsed()
    }
}

/// The pods of these numbers, spread over ServiceAccounts as on a real node.
pub fn pods(numbers: Range<usize>) -> Vec<Pod> {
    let pod = |n| Pod { service_account: format!("cart-{}", n % 50), ..Pod::new(n) };
    numbers.map(pod).collect()
}

/// Sends all calls, [`WIDTH`] at once over as many connections: how long all took, and each.
pub async fn send_wide(node: &Node, calls: Vec<Call>) -> (Duration, Sample) {
    let mut clients = Vec::new();
    for _ in 0..WIDTH {
        let channel = connect(&node.csi_socket()).await.unwrap();
        clients.push(NodeClient::new(channel));
    }
    let (calls, next) = (Arc::new(calls), Arc::new(AtomicUsize::new(0)));
    let mut tasks = JoinSet::new();
    let started = Instant::now();
    for mut client in clients {
        let (calls, next) = (calls.clone(), next.clone());
        tasks.spawn(async move {
            let mut took = Vec::new();
            while let Some(call) = calls.get(next.fetch_add(1, Ordering::Relaxed)) {
                took.push(call.clone().send(&mut client).await);
            }
            took
        });
    }
    let each = tasks.join_all().await.concat();
    (started.elapsed(), each.into_iter().collect())
}

pub async fn publish_all(node: &Node, pods: &[Pod]) -> (Duration, Sample) {
    let calls = pods.iter().map(|pod| Call::publish(node, pod)).collect();
    send_wide(node, calls).await
}

pub async fn unpublish_all(node: &Node, pods: &[Pod]) -> (Duration, Sample) {
    let calls = pods.iter().map(|pod| Call::unpublish(node, pod)).collect();
    send_wide(node, calls).await
}
