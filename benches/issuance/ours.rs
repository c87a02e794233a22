//! Issuances as the node makes them: its signer, a new key and CSR each time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use svid_csi::{
    k8s::Cluster,
    pki::{Csr, KeyAlgorithm, PrivateKey},
    signer::{
        SignRequest, Signer,
        requests::{RequestMetrics, RequestSigner},
    },
    volume::{PodInfo, VolumeId},
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{sample::Sample, stage::NODE};

const START: Duration = Duration::from_mins(1);

/// Dropped, it ends.
pub struct Ours {
    signer: Arc<RequestSigner>,
    stop: CancellationToken,
    following: JoinSet<()>,
}

// === impl Ours ===

impl Ours {
    /// With the cluster that KUBECONFIG names, which is the driver's.
    pub async fn new() -> Self {
        let cluster = Cluster::from_kubeconfig(None).await.unwrap();
        let signer = RequestSigner::csr(cluster, NODE.to_owned(), RequestMetrics::default());
        let (signer, stop) = (Arc::new(signer), CancellationToken::new());
        let mut following = JoinSet::new();
        following.spawn(signer.clone().run(stop.clone()));
        let began = Instant::now();
        while let Err(error) = signer.status().ready {
            assert!(began.elapsed() < START, "the signer is not ready: {error}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Self { signer, stop, following }
    }

    /// One for each pod, so many at once: how long all took, and each.
    pub async fn run(&self, label: &str, pods: &[PodInfo], wide: usize) -> (Duration, Sample) {
        // A key is made before anybody waits for it, here as on the node.
        let requests: Vec<_> = pods.iter().map(|pod| request(label, pod)).collect();
        let (requests, next) = (Arc::new(requests), Arc::new(AtomicUsize::new(0)));
        let mut tasks = JoinSet::new();
        let began = Instant::now();
        for _ in 0..wide {
            let (signer, requests, next) = (self.signer.clone(), requests.clone(), next.clone());
            tasks.spawn(async move {
                let mut took = Vec::new();
                while let Some(request) = requests.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let began = Instant::now();
                    signer.sign(request).await.unwrap();
                    took.push(began.elapsed());
                }
                took
            });
        }
        let each = tasks.join_all().await.concat();
        (began.elapsed(), each.into_iter().collect())
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn request(label: &str, pod: &PodInfo) -> SignRequest {
    let id = format!("spiffe://example.org/ns/{}/sa/{}", pod.namespace, pod.service_account);
    let id = id.parse().unwrap();
    let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
    let volume: VolumeId = format!("{label}-{}", pod.uid).parse().unwrap();
    SignRequest {
        csr: Csr::create(&key, &id).unwrap(),
        volume,
        pod: pod.clone(),
        id,
        ttl: Duration::from_hours(1),
        explicit_ttl: None,
        explicit_key_algorithm: None,
        dns_names: Vec::new(),
        pod_token: None,
        issuer: None,
    }
}
