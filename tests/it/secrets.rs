//! Envoy's secret discovery at a volume's socket: the real plugin, asked as an Envoy asks.

use std::{collections::BTreeMap, path::Path};

use prost::Message;
use svid_csi::pki::{PrivateKey, X509Svid};
use svid_csi_proto::envoy::{
    config::core::v3::{DataSource, data_source::Specifier},
    extensions::transport_sockets::tls::v3::{Secret, TlsCertificate, secret::Type},
    service::{
        discovery::v3::{
            DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
        },
        secret::v3::secret_discovery_service_client::SecretDiscoveryServiceClient,
    },
};
use tokio::{
    sync::mpsc,
    time::{Duration, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming, transport::Channel};

use crate::{
    local_ca::{new_ca, put},
    plugin::{Node, Pod, connect, eventually, on_a_node},
    volume::checked,
};

type Client = SecretDiscoveryServiceClient<Channel>;

/// Both directions of a stream.
struct Exchange<Q, A> {
    requests: mpsc::Sender<Q>,
    responses: Streaming<A>,
}

async fn client(node: &Node, pod: &Pod) -> Client {
    let socket = node.target(pod).join("spiffe.sock");
    let channel = eventually("the socket answers", async || connect(&socket).await.ok()).await;
    SecretDiscoveryServiceClient::new(channel)
}

async fn state_of_the_world(
    client: &mut Client,
    first: DiscoveryRequest,
) -> Exchange<DiscoveryRequest, DiscoveryResponse> {
    let (requests, sent) = mpsc::channel(4);
    requests.send(first).await.unwrap();
    let answer = client.stream_secrets(ReceiverStream::new(sent)).await.unwrap();
    Exchange { requests, responses: answer.into_inner() }
}

async fn delta(
    client: &mut Client,
    first: DeltaDiscoveryRequest,
) -> Exchange<DeltaDiscoveryRequest, DeltaDiscoveryResponse> {
    let (requests, sent) = mpsc::channel(4);
    requests.send(first).await.unwrap();
    let answer = client.delta_secrets(ReceiverStream::new(sent)).await.unwrap();
    Exchange { requests, responses: answer.into_inner() }
}

impl<Q, A> Exchange<Q, A> {
    /// The next message. The deadline only ends a test that has failed.
    async fn next(&mut self) -> Result<A, Status> {
        let message = timeout(Duration::from_secs(30), self.responses.message()).await;
        Ok(message.expect("nothing came")?.expect("the stream ended"))
    }
}

fn ask(names: &[&str]) -> DiscoveryRequest {
    DiscoveryRequest { resource_names: strings(names), ..DiscoveryRequest::default() }
}

fn ack(response: &DiscoveryResponse, names: &[&str]) -> DiscoveryRequest {
    DiscoveryRequest {
        version_info: response.version_info.clone(),
        response_nonce: response.nonce.clone(),
        ..ask(names)
    }
}

fn strings(names: &[&str]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

fn secrets(resources: &[prost_types::Any]) -> BTreeMap<String, Type> {
    let read = resources.iter().map(|resource| Secret::decode(&*resource.value).unwrap());
    read.map(|secret| (secret.name, secret.r#type.unwrap())).collect()
}

fn text(source: &Option<DataSource>) -> String {
    match source.as_ref().and_then(|source| source.specifier.as_ref()) {
        Some(Specifier::InlineBytes(bytes)) => String::from_utf8(bytes.to_vec()).unwrap(),
        None => panic!("no data"),
    }
}

/// The SVID, whose key it must be.
fn svid(secret: &Type) -> X509Svid {
    let Type::TlsCertificate(TlsCertificate { certificate_chain, private_key }) = secret else {
        panic!("{secret:?}")
    };
    let svid = X509Svid::from_pem(&text(certificate_chain)).unwrap();
    let key = PrivateKey::from_pem(&text(private_key)).unwrap();
    assert_eq!(svid.leaf().spki_der(), key.spki_der());
    svid
}

fn trusted_ca(secret: &Type) -> String {
    match secret {
        Type::ValidationContext(context) => text(&context.trusted_ca),
        other => panic!("{other:?}"),
    }
}

#[test]
fn secrets_follow_the_volume_through_rotation_and_a_new_ca_until_unpublish() {
    on_a_node(async || {
        let node = Node::started(&["--ca-propagation", "2s"]).await;
        let pod = Pod::new(1).with("ttl", "10s");
        node.publish(&pod).await.unwrap();
        let mut client = client(&node, &pod).await;
        let names = ["default", "ROOTCA"];
        let mut stream = state_of_the_world(&mut client, ask(&names)).await;

        let first = stream.next().await.unwrap();
        let held = secrets(&first.resources);
        let volume = checked(&node, &pod);
        assert_eq!(svid(&held["default"]), volume.svid);
        assert_eq!(svid(&held["default"]).id().as_str(), pod.id());
        assert_eq!(trusted_ca(&held["ROOTCA"]), volume.bundle.to_pem());
        stream.requests.send(ack(&first, &names)).await.unwrap();

        // Each message is for a change, and the SVID in it verifies by the bundle in it.
        put(&node.ca_dir(), &new_ca());
        let (mut serials, mut bundles) = (vec![volume.svid.serial_hex().to_owned()], 1);
        let (mut version, mut roots) = (first.version_info, trusted_ca(&held["ROOTCA"]));
        while serials.len() < 4 || bundles < 2 {
            let message = stream.next().await.unwrap();
            assert_ne!(message.version_info, version, "a message without a change");
            let held = secrets(&message.resources);
            let (svid, bundle) = (svid(&held["default"]), trusted_ca(&held["ROOTCA"]));
            let parsed =
                svid_csi::pki::TrustBundle::from_pem("example.org".parse().unwrap(), &bundle);
            svid.verify_chain(&parsed.unwrap(), crate::local_ca::now()).unwrap();
            if *svid.serial_hex() != **serials.last().unwrap() {
                serials.push(svid.serial_hex().to_owned());
            }
            bundles += usize::from(bundle != roots);
            stream.requests.send(ack(&message, &names)).await.unwrap();
            (version, roots) = (message.version_info, bundle);
        }

        node.unpublish(&pod).await.unwrap();
        assert_eq!(stream.next().await.err().unwrap().code(), Code::Unavailable);
    });
}

#[test]
fn a_delta_client_that_comes_back_after_a_crash_is_sent_nothing_that_it_has() {
    on_a_node(async || {
        let mut node = Node::started(&[]).await;
        let pod = Pod::new(1);
        node.publish(&pod).await.unwrap();
        let subscribe = strings(&["default", "ALL"]);
        let request = DeltaDiscoveryRequest {
            resource_names_subscribe: subscribe,
            ..DeltaDiscoveryRequest::default()
        };
        let mut before = delta(&mut client(&node, &pod).await, request.clone()).await;
        let first = before.next().await.unwrap();
        let versions = first.resources.iter().map(|it| (it.name.clone(), it.version.clone()));
        let versions: std::collections::HashMap<_, _> = versions.collect();
        assert_eq!(versions.len(), 2);

        node.kill().await;
        assert!(before.next().await.is_err());
        node.start().await;
        let back = DeltaDiscoveryRequest { initial_resource_versions: versions, ..request };
        let mut after = delta(&mut client(&node, &pod).await, back).await;
        // What comes is the answer to this, so nothing came before it.
        let more = DeltaDiscoveryRequest {
            resource_names_subscribe: strings(&["ROOTCA", "spiffe://nobody.example"]),
            resource_names_unsubscribe: strings(&["default"]),
            ..DeltaDiscoveryRequest::default()
        };
        after.requests.send(more).await.unwrap();
        let message = after.next().await.unwrap();
        assert_eq!(message.resources.iter().map(|it| &*it.name).collect::<Vec<_>>(), ["ROOTCA"]);
        assert_eq!(message.removed_resources, ["spiffe://nobody.example"]);
    });
}

#[test]
fn fetch_gives_all_entries_without_names_and_refuses_unknown_ones() {
    on_a_node(async || {
        let node = Node::started(&[]).await;
        let pods = [Pod::new(1), Pod { service_account: "other".to_owned(), ..Pod::new(2) }];
        for pod in &pods {
            node.publish(pod).await.unwrap();
            let mut client = client(&node, pod).await;
            let all = client.fetch_secrets(ask(&[])).await.unwrap().into_inner();
            let all = secrets(&all.resources);
            assert_eq!(all.keys().collect::<Vec<_>>(), ["spiffe://example.org", &pod.id()]);
            assert_eq!(svid(&all[&pod.id()]), checked(&node, pod).svid);
        }
        // Each socket has its own pod's identity, and no other.
        let mut client = client(&node, &pods[0]).await;
        let other = client.fetch_secrets(ask(&[&pods[1].id()])).await.unwrap_err();
        assert_eq!(other.code(), Code::InvalidArgument);
        assert!(other.message().contains(&pods[1].id()), "{}", other.message());
        let mut stream = state_of_the_world(&mut client, ask(&["nothing"])).await;
        assert_eq!(stream.next().await.err().unwrap().code(), Code::InvalidArgument);
        // A client that says no more than it asks for still gets its answer.
        let answer = client.stream_secrets(tokio_stream::once(ask(&["default"]))).await.unwrap();
        let mut answer = answer.into_inner();
        assert_eq!(answer.message().await.unwrap().unwrap().resources.len(), 1);
        assert!(answer.message().await.unwrap().is_none());
    });
}

/// An Envoy's first message is large; a larger one is refused, and the driver stays well.
#[test]
fn an_envoy_may_say_much_of_itself_but_not_everything() {
    on_a_node(async || {
        let node = Node::started(&[]).await;
        let pod = Pod::new(1);
        node.publish(&pod).await.unwrap();
        let mut client = client(&node, &pod).await;
        for (length, code) in [(100 * 1024, None), (200 * 1024, Some(Code::OutOfRange))] {
            let mut request = ask(&["default"]);
            request.node = Some(svid_csi_proto::envoy::config::core::v3::Node {
                id: "x".repeat(length),
                ..Default::default()
            });
            let answer = client.fetch_secrets(request).await;
            assert_eq!(answer.err().map(|status| status.code()), code);
        }
        assert!(Path::new(&node.target(&pod).join("spiffe.sock")).exists());
    });
}
