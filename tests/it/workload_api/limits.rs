//! What goes beyond a volume's limits is answered as the standard has it, and its neighbours do not
//! feel it.

use svid_csi::node::WorkloadLimits;
use svid_csi_proto::workload::X509svidRequest;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest,
};

use super::{Ground, message};
use crate::plugin::{connect, on_a_node};

#[test]
fn one_stream_too_many_is_unavailable_to_its_pod_alone() {
    on_a_node(async || {
        let ground = Ground::new();
        let (pod, _) = ground.pod(1).await;
        let (_neighbour, mut neighbour) = ground.pod(2).await;
        let mut streams = Vec::new();
        // A connection holds 100.
        let status = 'full: loop {
            let mut api = ground.api(&pod).await;
            for _ in 0..90 {
                match api.fetch_x509svid(X509svidRequest {}).await {
                    Ok(stream) => streams.push(stream.into_inner()),
                    Err(status) => break 'full status,
                }
            }
        };
        assert_eq!(status.code(), Code::Unavailable, "{status:?}");
        assert!(status.message().contains("too many calls"), "{status:?}");
        assert_eq!(streams.len(), WorkloadLimits::default().streams as usize);
        for stream in &mut streams {
            message(stream).await;
        }
        let stream = neighbour.fetch_x509svid(X509svidRequest {}).await.unwrap();
        message(&mut stream.into_inner()).await;
        // One that ends makes room.
        streams.pop();
        crate::plugin::eventually("there is room", async || {
            let mut api = ground.api(&pod).await;
            api.fetch_x509svid(X509svidRequest {}).await.ok()
        })
        .await;
    });
}

/// A call is no way around the limit of messages.
#[test]
fn a_conversation_that_says_too_much_ends_as_unavailable() {
    on_a_node(async || {
        let ground = Ground::new();
        let (pod, _) = ground.pod(1).await;
        let channel = connect(&ground.socket(&pod)).await.unwrap();
        let ask = ServerReflectionRequest {
            host: String::new(),
            message_request: Some(MessageRequest::ListServices(String::new())),
        };
        // One after the other: h2 itself ends the connection of who does not wait for answers.
        let (asks, asked) = mpsc::channel(1);
        let asked = ReceiverStream::new(asked);
        let mut client = ServerReflectionClient::new(channel);
        let mut answers = client.server_reflection_info(asked).await.unwrap().into_inner();
        let status = loop {
            let _ = asks.send(ask.clone()).await;
            match answers.message().await {
                Ok(answer) => assert!(answer.is_some(), "it ended by itself"),
                Err(status) => break status,
            }
        };
        assert_eq!(status.code(), Code::Unavailable, "{status:?}");
        assert!(status.message().contains("too often"), "{status:?}");
        let refused = "svid_csi_workload_refused_total{limit=\"calls\"}";
        assert!(ground.metrics().contains(refused), "it is counted");
    });
}
