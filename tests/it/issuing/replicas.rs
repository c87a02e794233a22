//! A replica that dies costs a retry, not a pod.

use std::time::Duration;

use tokio::time::{Instant, timeout};
use tonic::Code;

use super::{Behaviour, Cluster, Replica, Shown};
use crate::{
    plugin::{Pod, assert_status, eventually, on_a_node},
    process::get,
    volume::checked,
};

/// How many replicas the node is connected to.
async fn connected(cluster: &Cluster) -> usize {
    let metrics = get(&cluster.node, "/metrics").await.1;
    let is_up = |line: &&str| line.contains("replica_connected{") && line.ends_with(" 1");
    metrics.lines().filter(is_up).count()
}

async fn until_connected(cluster: &Cluster, replicas: usize) {
    eventually("all replicas are connected", async || {
        (connected(cluster).await == replicas).then_some(())
    })
    .await;
}

#[test]
fn a_replica_that_is_killed_mid_request_costs_a_retry() {
    on_a_node(async || {
        let cluster = Cluster::start(2, &[]).await;
        until_connected(&cluster, 2).await;
        for n in 1..=4 {
            let victim = cluster.replicas[0].address;
            cluster.shared.seen.lock().unwrap().clear();
            cluster.shared.behave(Behaviour::Hangs(victim.port()));
            let pod = Pod::new(n);
            let mut publish = Box::pin(cluster.publish(&pod, "pod.token"));
            let at_victim =
                cluster.shared.until(|seen| seen.iter().any(|seen| seen.replica == victim.port()));
            tokio::select! {
                // It may have gone to the other one at once.
                done = &mut publish => { done.unwrap(); continue }
                () = at_victim => {}
            }
            let began = Instant::now();
            cluster.replicas[0].kill();
            publish.await.unwrap();
            // No timeout was waited for.
            assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
            checked(&cluster.node, &pod);
            assert!(get(&cluster.node, "/metrics").await.1.contains("controller_retries_total 1"));
            return;
        }
        panic!("the replica was never asked");
    });
}

#[test]
fn a_replica_that_answers_nothing_is_given_up_for_another() {
    on_a_node(async || {
        let cluster = Cluster::start(2, &[]).await;
        until_connected(&cluster, 2).await;
        cluster.shared.behave(Behaviour::Hangs(cluster.replicas[0].address.port()));
        for n in 1..=4 {
            timeout(Duration::from_secs(15), cluster.publish(&Pod::new(n), "pod.token"))
                .await
                .expect("it waits for the one")
                .unwrap();
        }
        // Once known to be silent, it is asked last.
        let silent = cluster.replicas[0].address.port();
        let asked = cluster.shared.seen().iter().filter(|seen| seen.replica == silent).count();
        assert_eq!(asked, 1);
        for n in 1..=4 {
            cluster.node.unpublish(&Pod::new(n)).await.unwrap();
        }
    });
}

/// Invariant 3.
#[test]
fn without_any_replica_volumes_live_on_and_new_ones_wait() {
    on_a_node(async || {
        let mut cluster = Cluster::start(2, &[]).await;
        until_connected(&cluster, 2).await;
        let pod = Pod::new(1);
        cluster.publish(&pod, "pod.token").await.unwrap();
        let addresses: Vec<_> = cluster.replicas.drain(..).map(|it| it.address).collect();
        eventually("it is noticed", async || {
            let (status, reason) = get(&cluster.node, "/readyz").await;
            (status == 503 && reason.contains(&addresses[0].to_string())).then_some(())
        })
        .await;
        checked(&cluster.node, &pod);
        cluster.publish(&pod, "pod.token").await.unwrap();
        let refused = cluster.publish(&Pod::new(2), "pod.token").await;
        let parts = ["no replica of the controller", "--issuer-listen", "Connection refused"];
        assert_status(refused, Code::Unavailable, &parts);

        // One comes back while a publish waits for it.
        let publish = async {
            cluster.publish(&Pod::new(2), "pod.token").await.unwrap();
        };
        let shown = Shown::controller(&cluster.shared.authority());
        let (_replica, ()) =
            tokio::join!(Replica::start(&cluster.shared, addresses[1], &shown), publish);
        checked(&cluster.node, &Pod::new(2));
        for n in [1, 2] {
            cluster.node.unpublish(&Pod::new(n)).await.unwrap();
        }
    });
}
