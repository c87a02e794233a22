//! `kill -9` at any step of a publish that asks the controller (invariant 4).

use super::Cluster;
use crate::{
    plugin::{Pod, on_a_node},
    steps::{Steps, Stop, Then},
    volume::checked,
};

#[test]
fn a_publish_that_is_killed_at_any_step_is_finished_with_the_next_token() {
    on_a_node(async || {
        let mut cluster = Cluster::start(1, &[]).await;
        let (mut n, mut published) = (1, false);
        while !published {
            let pod = Pod::new(1_000 + n);
            cluster.node.prepare(&pod);
            let dir = cluster.node.kubelet().join("pods").join(&pod.uid);
            let pid = cluster.node.pid();
            let mut steps = Steps::watch(pid, &dir, Stop::Before(n), Then::Kill).await;
            published = cluster.publish(&pod, "cG9kLXRva2Vu.a.b").await.is_ok();
            let seen = if published {
                steps.release().await
            } else {
                assert!(steps.stopped().await, "{:?}", steps.seen);
                cluster.restart().await;
                cluster.publish(&pod, "cG9kLXRva2Vu.c.d").await.unwrap();
                steps.seen
            };
            checked(&cluster.node, &pod);
            let pending = cluster.node.target(&pod).join(".svid/pending.key");
            assert!(!pending.exists(), "after {seen:#?}");
            let record = cluster.node.record(&pod).unwrap().to_string();
            assert!(!record.contains("cG9k"), "{record}");
            cluster.node.unpublish(&pod).await.unwrap();
            n += 1;
        }
        assert!(n > 15, "{n} steps");
    });
}
