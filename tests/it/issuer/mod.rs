//! Direct issuing: the controller's process, its port over real TLS, and whoever tries it.

mod attacks;
mod client;
mod ends;
mod issued;
mod jwt;
mod tokens;

use std::{
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use serde_json::{Value, json};
use svid_csi::{
    id::SpiffeId,
    pki::{Csr, KeyAlgorithm, PrivateKey},
};
use svid_csi_proto::issuer::v1::{IssueX509SvidRequest, Pod};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::sleep,
};

use self::{client::Client, tokens::TokenAuthority};
use crate::{
    api_server::ApiServer,
    controller::{Replica, cluster, pod},
};

pub const ID: &str = "spiffe://example.org/ns/shop/sa/cart";
const PODS: &str = "api/v1/pods";

/// A cluster, its tokens, and a replica that issues.
pub struct Bench {
    pub server: ApiServer,
    pub authority: TokenAuthority,
    pub replica: Replica,
    pub address: SocketAddr,
    pub http: SocketAddr,
}

impl Bench {
    /// With the keys of tokens published, ready to answer.
    pub async fn start() -> Self {
        let authority = TokenAuthority::new();
        let server = issuing_cluster().await;
        authority.publish(&server.store);
        let bench = Self::with(server, authority).await;
        bench.ready().await.expect("ready");
        bench
    }

    pub async fn with(server: ApiServer, authority: TokenAuthority) -> Self {
        let replica = Replica::start_with(&server, "a", &["--issuer-listen", "127.0.0.1:0"]);
        let (address, http) = (told(&replica, "issuer=").await, told(&replica, "http=").await);
        Self { server, authority, replica, address, http }
    }

    /// Waits until `/readyz` says so; the last reason if that takes long.
    pub async fn ready(&self) -> Result<(), String> {
        let mut answer = String::new();
        for _ in 0..200 {
            answer = get(self.http, "/readyz").await;
            if answer.starts_with("HTTP/1.1 200") {
                return Ok(());
            }
            sleep(Duration::from_millis(50)).await;
        }
        Err(answer)
    }

    /// The value of a metric with these labels.
    pub async fn metric(&self, name: &str) -> f64 {
        let page = get(self.http, "/metrics").await;
        let line = page.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("0");
        line.trim().parse().unwrap()
    }

    pub async fn client(&self) -> Client {
        Client::connect(self.address, &self.server.store).await.unwrap()
    }

    /// The driver's token on node-1.
    pub fn driver(&self) -> String {
        self.authority.token(&driver())
    }

    /// The token of the pod cart-0.
    pub fn pod(&self) -> String {
        self.authority.token(&cart())
    }

    /// The audit lines with this decision.
    pub fn audited(&self, decision: &str) -> Vec<Value> {
        let audit = self.replica.audit.lock().unwrap();
        audit.iter().filter(|line| line["decision"] == decision).cloned().collect()
    }
}

/// The cluster of the controller's tests, with UIDs that tokens name.
async fn issuing_cluster() -> ApiServer {
    let server = cluster().await;
    for (namespace, name, uid) in [("shop", "cart", "s-1"), ("svid-csi", "svid-csi", "s-d")] {
        let account = json!({"metadata": {"namespace": namespace, "name": name, "uid": uid}});
        server.store.put("api/v1/serviceaccounts", account);
    }
    server.store.put("api/v1/nodes", json!({"metadata": {"name": "node-2", "uid": "n-2"}}));
    server.store.put(PODS, pod("shop", "cart-1", "p-2", "cart", Some("csi.svid.dev")));
    server
}

/// What the driver's token on node-1 says.
pub fn driver() -> Value {
    tokens::claims("svid-csi", ("svid-csi", "s-d"), ("driver-1", "d-1"), ("node-1", "n-1"))
}

/// What the token of the pod cart-0 says.
pub fn cart() -> Value {
    tokens::claims("shop", ("cart", "s-1"), ("cart-0", "p-1"), ("node-1", "n-1"))
}

/// What the driver asks for the pod cart-0, and the key.
pub fn wish(id: &str, pod_token: String) -> (IssueX509SvidRequest, PrivateKey) {
    let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
    let csr = Csr::create(&key, &id.parse::<SpiffeId>().unwrap()).unwrap();
    let pod =
        Pod { namespace: "shop".to_owned(), name: "cart-0".to_owned(), uid: "p-1".to_owned() };
    let message = IssueX509SvidRequest {
        pod_token,
        pod: Some(pod),
        csr: csr.der().to_vec().into(),
        volume_id: "csi-0".to_owned(),
        ..Default::default()
    };
    (message, key)
}

pub fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + SystemTime::UNIX_EPOCH.elapsed().unwrap()
}

/// An address that the log tells.
async fn told(replica: &Replica, field: &str) -> SocketAddr {
    for _ in 0..400 {
        let log = replica.log.lock().unwrap().clone();
        let started = log.lines().find(|line| line.contains("started"));
        if let Some(rest) = started.and_then(|line| Some(line.split_once(field)?.1)) {
            return rest.split_whitespace().next().unwrap().parse().unwrap();
        }
        sleep(Duration::from_millis(25)).await;
    }
    panic!("the log does not tell {field}");
}

/// An answer, as it is on the wire.
async fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}
