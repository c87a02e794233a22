//! `--signer controller`: the node plugin's process, in front of replicas that the test holds.

mod crash;
mod far_side;
mod impostors;
mod leaks;
mod real;
mod replicas;
mod tokens;

use std::{fs, net::SocketAddr, sync::Arc};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::json;
use svid_csi_proto::csi::v1::NodePublishVolumeRequest;
use tonic::{Code, Status};

use self::far_side::{ASSIGNED, Behaviour, Replica, Shared, Shown};
use crate::{
    api_server::ApiServer,
    plugin::{Node, Pod, assert_status, on_a_node},
    volume::{Set, checked},
};

const TOKENS: &str = "csi.storage.k8s.io/serviceAccount.tokens";
/// As long as any test.
const LATER: &str = "2099-01-01T00:00:00Z";

/// A node and what it needs of a cluster.
pub struct Cluster {
    server: ApiServer,
    pub node: Node,
    pub shared: Arc<Shared>,
    pub replicas: Vec<Replica>,
    sequence: u64,
}

// === impl Cluster ===

impl Cluster {
    /// A node in front of this many replicas, with these arguments besides.
    async fn start(replicas: usize, extra: &[&str]) -> Self {
        let shared = Shared::new();
        let shown = Shown::controller(&shared.authority());
        let mut running = Vec::new();
        for _ in 0..replicas {
            running.push(Replica::start(&shared, any_port(), &shown).await);
        }
        Self::start_with(shared, running, &["--signer", "controller"], extra).await
    }

    async fn start_with(
        shared: Arc<Shared>,
        replicas: Vec<Replica>,
        signer: &[&str],
        extra: &[&str],
    ) -> Self {
        let server = ApiServer::start().await;
        let mut node = Node::without_ca();
        let addresses: Vec<_> = replicas.iter().map(|it| it.address.to_string()).collect();
        let (addresses, token) = (addresses.join(","), node.path("driver-token"));
        let token = token.display().to_string();
        let mut settings = vec!["--controller-address", &addresses];
        settings.extend([
            "--controller-token-file",
            &token,
            "--kubeconfig",
            "--log-level",
            "debug",
        ]);
        node.set_extra(&[signer, &settings, extra].concat());
        fs::write(node.path("kubeconfig"), server.kubeconfig("svid-csi")).unwrap();
        let mut cluster = Self { server, node, shared, replicas, sequence: 0 };
        cluster.write_driver_token("first");
        cluster.publish_bundle(&[&cluster.shared.authority()]);
        cluster.node.start().await;
        cluster
    }

    /// Publishes the roots of these CAs.
    fn publish_bundle(&mut self, authorities: &[&far_side::Ca]) {
        self.sequence += 1;
        let first = authorities.first().unwrap().bundle();
        let bundle = authorities.iter().fold(first, |all, one| all.merged(&one.bundle()));
        let bundle = bundle
            .with_jwt_authorities(vec![self.shared.jwt_key.authority().clone()])
            .with_sequence(Some(self.sequence));
        self.server.store.put(
            "api/v1/configmaps",
            json!({
                "apiVersion": "v1", "kind": "ConfigMap",
                "metadata": { "namespace": "svid-csi", "name": "svid-csi-bundle" },
                "data": { "bundle.json": bundle.to_jwks() },
            }),
        );
    }

    /// As kubelet writes it; the last part is what tests tell tokens apart by.
    fn write_driver_token(&self, part: &str) {
        fs::write(self.node.path("driver-token"), driver_token(part)).unwrap();
    }

    /// The next start has X.509-SVIDs from another signer.
    fn use_csr(&mut self) {
        self.node.replace_extra("controller", "csr");
    }

    async fn restart(&mut self) {
        self.node.kill().await;
        self.node.start().await;
    }

    async fn publish(&self, pod: &Pod, token: &str) -> Result<(), Status> {
        self.node.prepare(pod);
        self.node.publish_raw(self.request(pod, token, LATER)).await
    }

    /// What kubelet sends, with the pod's token in `secrets`.
    fn request(&self, pod: &Pod, token: &str, expires: &str) -> NodePublishVolumeRequest {
        let mut request = self.node.request(pod);
        request.secrets.insert(TOKENS.to_owned(), tokens(token, expires));
        request
    }
}

fn any_port() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn tokens(token: &str, expires: &str) -> String {
    json!({
        "": { "token": "for-the-API-server", "expirationTimestamp": expires },
        "svid.dev": { "token": token, "expirationTimestamp": expires },
    })
    .to_string()
}

fn driver_token(part: &str) -> String {
    let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let header = encode(r#"{"alg":"RS256","kid":"k"}"#);
    format!("{header}.{}.{}", encode(r#"{"aud":["svid.dev"],"exp":4102444800}"#), encode(part))
}

#[test]
fn a_pod_is_asked_for_with_both_proofs_and_what_it_wishes() {
    on_a_node(async || {
        let cluster = Cluster::start(1, &[]).await;
        let pod = Pod::new(1).with("ttl", "20m").with("dns-names", "cart.example");
        cluster.shared.behave(Behaviour::Issues);
        cluster.publish(&pod, "pod.token.1").await.unwrap();
        checked(&cluster.node, &pod);
        // An older kubelet has them among the attributes; that is the same request.
        let plain = Pod::new(2);
        cluster.node.prepare(&plain);
        let mut request = cluster.node.request(&plain);
        request.volume_context.insert(TOKENS.to_owned(), tokens("pod.token.2", LATER));
        cluster.node.publish_raw(request.clone()).await.unwrap();
        request.volume_context.insert(TOKENS.to_owned(), tokens("pod.token.3", LATER));
        cluster.node.publish_raw(request).await.unwrap();
        checked(&cluster.node, &plain);

        let seen = cluster.shared.seen();
        assert_eq!(seen.len(), 2, "{seen:?}");
        for (seen, pod, token) in
            [(&seen[0], &pod, "pod.token.1"), (&seen[1], &plain, "pod.token.2")]
        {
            assert_eq!(seen.authorization, format!("Bearer {}", driver_token("first")));
            assert_eq!(seen.pod_token, token);
            assert_eq!((&seen.pod.name, &seen.pod.uid), (&pod.name, &pod.uid));
            assert_eq!((&*seen.pod.namespace, &seen.volume_id), ("shop", &pod.volume_id()));
        }
        let [wish, plain_wish] = [&seen[0], &seen[1]].map(|seen| seen.x509.clone().unwrap());
        assert_eq!((wish.ttl_seconds, &*wish.dns_names), (1200, &["cart.example".to_owned()][..]));
        assert_eq!((plain_wish.ttl_seconds, plain_wish.dns_names.len()), (0, 0));
        assert!(wish.key_algorithm.is_empty() && plain_wish.key_algorithm.is_empty());
        for pod in [&pod, &plain] {
            cluster.node.unpublish(pod).await.unwrap();
        }
    });
}

/// DESIGN.md §5, and invariant 7.
#[test]
fn what_policy_decides_is_obeyed() {
    on_a_node(async || {
        let cluster = Cluster::start(1, &[]).await;
        let pod = Pod::new(1);
        cluster.shared.behave(Behaviour::Denies);
        let parts = ["NoPolicy", "no policy matches the pod"];
        let denied = cluster.publish(&pod, "pod.token.1").await;
        assert_status(denied, Code::PermissionDenied, &parts);
        assert!(!cluster.node.target(&pod).exists() && cluster.node.mounts().is_empty());
        cluster.shared.behave(Behaviour::Assigns);
        cluster.publish(&pod, "pod.token.1").await.unwrap();
        let set = Set::read(&cluster.node.target(&pod)).unwrap();
        set.check(ASSIGNED).unwrap();
        assert_eq!(cluster.node.record(&pod).unwrap()["assignedId"], ASSIGNED);
        cluster.node.unpublish(&pod).await.unwrap();
        // What is no answer of policy is none.
        for (code, status, part) in [
            (Code::InvalidArgument, Code::Internal, "one version"),
            (Code::Unimplemented, Code::FailedPrecondition, "one version"),
            (Code::Unauthenticated, Code::FailedPrecondition, "a proof"),
            (Code::Unavailable, Code::Unavailable, "tried for 20 s"),
        ] {
            cluster.shared.behave(Behaviour::Fails(code));
            let failed = cluster.publish(&Pod::new(2), "pod.token.2").await;
            assert_status(failed, status, &[part, "as the test wants it"]);
        }
        cluster.node.unpublish(&Pod::new(2)).await.unwrap();
    });
}
