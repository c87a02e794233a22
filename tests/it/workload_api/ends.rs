//! How calls end that no client ends: with their volume, and with the process.

use std::{sync::atomic::Ordering, time::Duration};

use svid_csi_proto::workload::X509svidRequest;
use tokio::time::timeout;
use tonic::Code;

use super::{Ground, client::silent, ended, message};
use crate::plugin::{Node, Pod, on_a_node};

/// Long enough for a message that must not come.
const SILENCE: Duration = Duration::from_millis(500);

/// go-spiffe takes a reset stream for its own doing and never comes back.
#[test]
fn unpublish_ends_that_volumes_streams_as_unavailable_and_no_others() {
    on_a_node(async || {
        let ground = Ground::new();
        let (gone, mut going) = ground.pod(1).await;
        let (_stays, mut staying) = ground.pod(2).await;
        let mut ending = going.fetch_x509svid(X509svidRequest {}).await.unwrap().into_inner();
        let mut going_on = staying.fetch_x509svid(X509svidRequest {}).await.unwrap().into_inner();
        message(&mut ending).await;
        message(&mut going_on).await;
        ground.unpublish(&gone).await;
        let status = ended(&mut ending).await;
        assert_eq!(status.code(), Code::Unavailable, "{status:?}");
        assert!(status.message().contains("connect again"), "from trailers: {status:?}");
        assert!(timeout(SILENCE, going_on.message()).await.is_err());
        // The connection ends too, though its client would keep it.
        let end = timeout(Duration::from_secs(5), async {
            while let Err(status) = going.fetch_x509svid(X509svidRequest {}).await {
                assert_eq!(status.code(), Code::Unavailable, "{status:?}");
                if !status.message().contains("connect again") {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            panic!("it is served still");
        });
        end.await.expect("the connection stays open");
    });
}

#[test]
fn the_end_of_the_process_ends_streams_as_unavailable() {
    on_a_node(async || {
        let mut ground = Ground::new();
        let (pod, mut api) = ground.pod(1).await;
        let mut stream = api.fetch_x509svid(X509svidRequest {}).await.unwrap().into_inner();
        let before = message(&mut stream).await;
        let ((), status) = tokio::join!(ground.terminate(), ended(&mut stream));
        assert_eq!(status.code(), Code::Unavailable, "{status:?}");
        assert!(status.message().contains("connect again"), "from trailers: {status:?}");
        // Invariant 4: the next process answers at the same path, with the same SVID.
        ground.start();
        let mut stream = api.fetch_x509svid(X509svidRequest {}).await;
        if stream.is_err() {
            stream = api.fetch_x509svid(X509svidRequest {}).await;
        }
        let after = message(&mut stream.unwrap().into_inner()).await;
        assert_eq!(after, before);
        assert_eq!(ground.signer.signed.load(Ordering::SeqCst), 1);
        drop(pod);
    });
}

/// Invariant 4, with the real process: whoever is connected connects again at the same path.
#[test]
fn sockets_answer_again_after_sigkill_and_end_properly_on_sigterm() {
    on_a_node(async || {
        let mut node = Node::started(&[]).await;
        let pod = Pod::new(1);
        node.publish(&pod).await.unwrap();
        let socket = node.target(&pod).join("spiffe.sock");
        let mut api = super::with_header(&socket).await;
        let mut stream = api.fetch_x509svid(X509svidRequest {}).await.unwrap().into_inner();
        let before = message(&mut stream).await;
        node.kill().await;
        // Nobody was there to say why.
        ended(&mut stream).await;
        node.start().await;
        let mut stream = api.fetch_x509svid(X509svidRequest {}).await.unwrap().into_inner();
        assert_eq!(message(&mut stream).await, before);
        let (code, status) = tokio::join!(node.terminate(), ended(&mut stream));
        assert_eq!(code, Some(0));
        assert_eq!(status.code(), Code::Unavailable, "{status:?}");
        assert!(status.message().contains("connect again"), "from trailers: {status:?}");
    });
}

/// Nobody holds up the end of the process, or keeps a connection to a volume that is gone.
#[test]
fn a_client_that_never_reads_is_cut_off() {
    on_a_node(async || {
        let mut ground = Ground::new();
        let (gone, _) = ground.pod(1).await;
        let (stays, _) = ground.pod(2).await;
        let unread = silent(&ground.socket(&gone), 50).await;
        let also_unread = silent(&ground.socket(&stays), 50).await;
        let connections = || ground_metric(&ground, "svid_csi_workload_connections ");
        crate::plugin::eventually("both are open", async || (connections() == 2).then_some(()))
            .await;
        ground.unpublish(&gone).await;
        crate::plugin::eventually("the connection is closed", async || {
            (connections() == 1).then_some(())
        })
        .await;
        let end = timeout(Duration::from_secs(10), ground.terminate()).await;
        end.expect("the process waits for a client that never reads");
        drop((unread, also_unread));
    });
}

fn ground_metric(ground: &Ground, name: &str) -> u64 {
    let text = ground.metrics();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap_or_else(|| panic!("no {name} in\n{text}")).trim().parse().unwrap()
}

/// What was called and how it ended is counted, by names of ours only.
#[test]
fn calls_are_counted_by_method_and_code() {
    on_a_node(async || {
        let ground = Ground::new();
        let (pod, mut api) = ground.pod(1).await;
        let mut stream = api.fetch_x509svid(X509svidRequest {}).await.unwrap().into_inner();
        message(&mut stream).await;
        let open = "svid_csi_workload_open_calls{method=\"SpiffeWorkloadAPI/FetchX509SVID\"} ";
        assert_eq!(ground_metric(&ground, open), 1);
        drop(stream);
        let mut bare = ground.bare(&pod).await;
        bare.fetch_x509svid(X509svidRequest {}).await.unwrap_err();
        let calls = |code: &str| {
            let method = "SpiffeWorkloadAPI/FetchX509SVID";
            format!("svid_csi_workload_calls_total{{method=\"{method}\",code=\"{code}\"}} ")
        };
        crate::plugin::eventually("both have ended", async || {
            (ground_metric(&ground, open) == 0).then_some(())
        })
        .await;
        assert_eq!(ground_metric(&ground, &calls("Canceled")), 1);
        assert_eq!(ground_metric(&ground, &calls("InvalidArgument")), 1);
        let sent = "svid_csi_workload_messages_total{method=\"SpiffeWorkloadAPI/FetchX509SVID\"} ";
        assert_eq!(ground_metric(&ground, sent), 1);
    });
}
