//! The nodes: their connections, their pods' keys and tokens, and when each is to be renewed.

use std::{
    cell::{Cell, RefCell},
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant, SystemTime},
};

use svid_csi::pki::{Certificate, Csr, KeyAlgorithm, PrivateKey, RenewalPolicy};
use svid_csi_proto::issuer::v1::{
    IssueX509SvidRequest, Pod as PodName, issue_x509_svid_response::Answer,
    issuer_client::IssuerClient,
};
use tokio::{sync::Semaphore, task::LocalSet};
use tonic::{Request, metadata::AsciiMetadataValue, transport::Channel};

use super::seconds::Seconds;
use crate::fleet::{Fleet, Tokens, tls::channel};

/// Calls that a node has under way at most, as the driver.
const WIDE: usize = 32;
/// How long a node waits before it asks another replica, at most; it takes any part of it.
const BACKOFF: Duration = Duration::from_millis(500);
/// Pods of the whole cluster that start at once.
const STARTING: usize = 256;
const PATIENCE: Duration = Duration::from_secs(10);

/// A node.
struct Node {
    token: AsciiMetadataValue,
    clients: RefCell<Vec<Option<IssuerClient<Channel>>>>,
    room: Semaphore,
}

/// Everything that asks.
pub struct Crowd {
    nodes: Vec<Node>,
    pods: Vec<IssueX509SvidRequest>,
    node_of: Vec<usize>,
    replicas: Vec<SocketAddr>,
    /// So many times faster than the schedule.
    faster: u32,
    due: RefCell<BinaryHeap<Reverse<(Instant, usize)>>>,
    pub seconds: RefCell<Seconds>,
    /// Authority key identifiers of what was issued, and how often each was seen.
    pub issuers: RefCell<BTreeMap<String, usize>>,
}

// === impl Crowd ===

impl Crowd {
    pub fn new(fleet: &Fleet, tokens: &Tokens, replicas: Vec<SocketAddr>, faster: u32) -> Self {
        let pods: Vec<_> = (0..fleet.pods).map(|n| fleet.pod(n)).collect();
        let nodes = (0..fleet.nodes).map(|node| Node {
            token: format!("Bearer {}", tokens.of(&fleet.driver(node), 0)).parse().unwrap(),
            clients: RefCell::new(vec![None; replicas.len()]),
            room: Semaphore::new(WIDE),
        });
        let node_of = pods.iter().map(|pod| pod.node).collect();
        let wish = |pod: &crate::fleet::Pod| {
            let id = format!("spiffe://example.org/ns/{}/sa/{}", pod.namespace, pod.account);
            let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
            let csr = Csr::create(&key, &id.parse().unwrap()).unwrap();
            let (namespace, name) = (pod.namespace.clone(), pod.name.clone());
            IssueX509SvidRequest {
                pod_token: tokens.of(pod, 0),
                pod: Some(PodName { namespace, name, uid: pod.uid.clone() }),
                csr: csr.der().to_vec().into(),
                volume_id: format!("csi-{}", pod.uid),
                ..Default::default()
            }
        };
        Self {
            nodes: nodes.collect(),
            pods: pods.iter().map(wish).collect(),
            node_of,
            replicas,
            faster,
            due: RefCell::default(),
            seconds: RefCell::new(Seconds::new()),
            issuers: RefCell::default(),
        }
    }

    /// Every pod's first SVID: how long all took.
    pub async fn first(self: &Rc<Self>) -> Duration {
        let began = Instant::now();
        self.seconds.replace(Seconds::new());
        let (all, next) = (LocalSet::new(), Rc::new(Cell::new(0)));
        for _ in 0..STARTING {
            let (crowd, next) = (self.clone(), next.clone());
            all.spawn_local(async move {
                while next.get() < crowd.pods.len() {
                    crowd.clone().issue(next.replace(next.get() + 1)).await;
                }
            });
        }
        all.await;
        began.elapsed()
    }

    /// Renewals as they fall due, for so long. `aside` runs beside them.
    pub async fn renew(self: &Rc<Self>, time: Duration, aside: impl Future<Output = ()> + 'static) {
        let ends = Instant::now() + time;
        self.seconds.replace(Seconds::new());
        let all = LocalSet::new();
        all.spawn_local(aside);
        let crowd = self.clone();
        all.spawn_local(async move {
            while Instant::now() < ends {
                while let Some(n) = crowd.next_due() {
                    let crowd = crowd.clone();
                    tokio::task::spawn_local(async move { crowd.issue(n).await });
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        all.await;
    }

    fn next_due(&self) -> Option<usize> {
        let mut due = self.due.borrow_mut();
        match due.peek() {
            Some(Reverse((at, _))) if *at <= Instant::now() => due.pop().map(|due| due.0.1),
            _ => None,
        }
    }

    /// Until it has its SVID, from whichever replica.
    async fn issue(self: Rc<Self>, n: usize) {
        let began = Instant::now();
        let node = &self.nodes[self.node_of[n]];
        let _room = node.room.acquire().await.unwrap();
        let mut retries = 0;
        let certificate = loop {
            let replica = (self.node_of[n] + retries) % self.replicas.len();
            match tokio::time::timeout(PATIENCE, self.ask(n, replica)).await {
                Ok(Ok(certificate)) => break certificate,
                _ => {
                    node.clients.borrow_mut()[replica] = None;
                    retries += 1;
                    let part = RenewalPolicy::fraction(format!("{n} {retries}").as_bytes());
                    tokio::time::sleep(BACKOFF.mul_f64(part)).await;
                }
            }
        };
        self.seconds.borrow_mut().add(began.elapsed(), retries);
        self.schedule(n, &certificate);
    }

    async fn ask(&self, n: usize, replica: usize) -> Result<Certificate, String> {
        let node = &self.nodes[self.node_of[n]];
        let known = node.clients.borrow()[replica].clone();
        let mut client = match known {
            Some(client) => client,
            None => {
                let client = IssuerClient::new(channel(self.replicas[replica]).await?);
                node.clients.borrow_mut()[replica] = Some(client.clone());
                client
            }
        };
        let mut request = Request::new(self.pods[n].clone());
        request.metadata_mut().insert("authorization", node.token.clone());
        let answer = client.issue_x509_svid(request).await.map_err(|error| error.to_string())?;
        match answer.into_inner().answer {
            Some(Answer::Issued(svid)) => {
                Certificate::from_der(&svid.certificates[0]).map_err(|error| error.to_string())
            }
            Some(Answer::Denied(denial)) => panic!("denied: {}", denial.message),
            None => Err("an empty answer".to_owned()),
        }
    }

    /// As the node does, by the volume and the certificate's serial.
    fn schedule(&self, n: usize, certificate: &Certificate) {
        let seed = format!("{}{}", self.pods[n].volume_id, certificate.serial_hex());
        let (from, until) = (certificate.not_before(), certificate.not_after());
        let at = RenewalPolicy::renew_at(from, until, seed.as_bytes());
        let wait = at.duration_since(SystemTime::now()).unwrap_or_default() / self.faster;
        self.due.borrow_mut().push(Reverse((Instant::now() + wait, n)));
        let issuer = certificate.authority_key_id_hex().unwrap_or_default();
        *self.issuers.borrow_mut().entry(issuer).or_default() += 1;
    }
}
