//! Replicas of a controller, as a node sees them: TLS and gRPC, a CA, and any behaviour.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use hyper::server::conn::http2;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    service::TowerToHyperService,
};
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivatePkcs8KeyDer},
    version::TLS13,
};
use svid_csi::{
    clock::{Clock, SystemClock},
    id::SpiffeId,
    jose::{JwtClaims, JwtKey, JwtKeyAlgorithm},
    pki::{Authority, Csr, KeyAlgorithm, PrivateKey},
};
use svid_csi_proto::issuer::v1::{
    self as proto, issue_jwt_svid_response, issue_x509_svid_response,
    issuer_server::{Issuer, IssuerServer},
};
use tokio::{net::TcpListener, sync::Notify, task::JoinSet};
use tokio_rustls::TlsAcceptor;
use tonic::{Code, Request, Response, Status};

use crate::plugin::TRUST_DOMAIN;

/// A CA.
pub type Ca = Arc<Authority>;

pub const CONTROLLER: &str = "spiffe://example.org/svid.dev/controller";
/// What policy gives instead of the default, where it does.
pub const ASSIGNED: &str = "spiffe://example.org/assigned";

const HOUR: Duration = Duration::from_secs(3600);

/// What every replica knows.
pub struct Shared {
    pub authority: Mutex<Ca>,
    pub jwt_key: JwtKey,
    pub behaviour: Mutex<Behaviour>,
    /// Every request that was answered or left hanging.
    pub seen: Mutex<Vec<Seen>>,
    pub news: Notify,
}

#[derive(Clone, Copy, Debug)]
pub enum Behaviour {
    Issues,
    /// The replica with this port takes requests and never answers.
    Hangs(u16),
    Denies,
    Assigns,
    Fails(Code),
    /// Refuses this very token of the pod's.
    Distrusts(&'static str),
}

/// A request.
#[derive(Clone, Debug)]
pub struct Seen {
    pub replica: u16,
    pub authorization: String,
    pub pod_token: String,
    pub pod: proto::Pod,
    pub volume_id: String,
    pub x509: Option<proto::IssueX509SvidRequest>,
}

/// One replica, while it runs.
pub struct Replica {
    pub address: SocketAddr,
    tasks: Mutex<JoinSet<()>>,
}

/// The certificate that a replica shows, with its key.
pub struct Shown {
    pub chain: Vec<Vec<u8>>,
    pub key: PrivateKey,
}

#[derive(Clone)]
struct Service {
    shared: Arc<Shared>,
    replica: u16,
}

pub fn authority() -> Ca {
    let (domain, now) = (TRUST_DOMAIN.parse().unwrap(), SystemClock.now());
    Arc::new(
        Authority::create(&domain, KeyAlgorithm::EcdsaP256, HOUR * 24, now - HOUR * 3).unwrap(),
    )
}

// === impl Shown ===

impl Shown {
    /// An SVID of this ID, valid from `now` for an hour.
    pub fn svid(authority: &Authority, id: &str, now: SystemTime) -> Self {
        let id: SpiffeId = id.parse().unwrap();
        let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
        let csr = Csr::create(&key, &id).unwrap();
        let svid = authority.issue(csr.public_key(), &id, &[], HOUR, now).unwrap();
        Self { chain: svid.chain().iter().map(|it| it.der().to_vec()).collect(), key }
    }

    /// The controller's own.
    pub fn controller(authority: &Authority) -> Self {
        Self::svid(authority, CONTROLLER, SystemClock.now())
    }

    fn config(&self) -> Arc<ServerConfig> {
        let chain = self.chain.iter().map(|der| CertificateDer::from(der.clone())).collect();
        let key = PrivatePkcs8KeyDer::from(self.key.pkcs8_der().to_vec());
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider);
        let builder = builder.with_protocol_versions(&[&TLS13]).unwrap().with_no_client_auth();
        let mut config = builder.with_single_cert(chain, key.into()).unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        Arc::new(config)
    }
}

// === impl Shared ===

impl Shared {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            authority: Mutex::new(authority()),
            jwt_key: JwtKey::generate(JwtKeyAlgorithm::Es256).unwrap(),
            behaviour: Mutex::new(Behaviour::Issues),
            seen: Mutex::default(),
            news: Notify::new(),
        })
    }

    pub fn authority(&self) -> Ca {
        self.authority.lock().unwrap().clone()
    }

    pub fn behave(&self, behaviour: Behaviour) {
        *self.behaviour.lock().unwrap() = behaviour;
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// Waits until something was asked.
    pub async fn until(&self, mut so: impl FnMut(&[Seen]) -> bool) {
        loop {
            let news = self.news.notified();
            if so(&self.seen()) {
                return;
            }
            news.await;
        }
    }
}

// === impl Replica ===

impl Replica {
    /// Serves at this address, a port of 0 meaning any.
    pub async fn start(shared: &Arc<Shared>, address: SocketAddr, shown: &Shown) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = Service { shared: shared.clone(), replica: address.port() };
        let acceptor = TlsAcceptor::from(shown.config());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (acceptor, service) = (acceptor.clone(), service.clone());
                connections.spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = TowerToHyperService::new(IssuerServer::new(service));
                    let connection = http2::Builder::new(TokioExecutor::new());
                    let _ = connection.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { address, tasks: Mutex::new(tasks) }
    }
}

impl Replica {
    /// Ends it as a crash does: connections are reset, calls are lost.
    pub fn kill(&self) {
        self.tasks.lock().unwrap().abort_all();
    }
}

// === impl Service ===

impl Service {
    async fn asked(&self, seen: Seen) -> Result<(), Status> {
        let pod_token = seen.pod_token.clone();
        self.shared.seen.lock().unwrap().push(seen);
        self.shared.news.notify_waiters();
        let behaviour = *self.shared.behaviour.lock().unwrap();
        match behaviour {
            Behaviour::Hangs(port) if port == self.replica => std::future::pending().await,
            Behaviour::Fails(code) => Err(Status::new(code, "as the test wants it")),
            Behaviour::Distrusts(token) if pod_token == token => {
                Err(Status::unauthenticated("the pod's token: it has expired"))
            }
            _ => Ok(()),
        }
    }

    fn denial(&self) -> Option<proto::Denial> {
        let behaviour = *self.shared.behaviour.lock().unwrap();
        matches!(behaviour, Behaviour::Denies).then(|| proto::Denial {
            reason: "NoPolicy".to_owned(),
            message: "no policy matches the pod".to_owned(),
            identity_is: None,
        })
    }
}

fn bearer<T>(request: &Request<T>) -> String {
    let value = request.metadata().get("authorization").unwrap();
    value.to_str().unwrap().to_owned()
}

#[tonic::async_trait]
impl Issuer for Service {
    async fn issue_x509_svid(
        &self,
        request: Request<proto::IssueX509SvidRequest>,
    ) -> Result<Response<proto::IssueX509SvidResponse>, Status> {
        use issue_x509_svid_response::Answer;
        let authorization = bearer(&request);
        let message = request.into_inner();
        self.asked(Seen {
            replica: self.replica,
            authorization,
            pod_token: message.pod_token.clone(),
            pod: message.pod.clone().unwrap(),
            volume_id: message.volume_id.clone(),
            x509: Some(message.clone()),
        })
        .await?;
        let csr = Csr::parse(&message.csr).unwrap();
        let assigns = matches!(*self.shared.behaviour.lock().unwrap(), Behaviour::Assigns);
        let answer = if let Some(denial) = self.denial() {
            Answer::Denied(denial)
        } else if assigns && csr.id().as_str() != ASSIGNED {
            let (spiffe_id, key_algorithm) = (ASSIGNED.to_owned(), "ecdsa-p384".to_owned());
            let identity_is = Some(proto::IdentityIs { spiffe_id, key_algorithm });
            Answer::Denied(proto::Denial { identity_is, ..proto::Denial::default() })
        } else {
            let ttl = if message.ttl_seconds == 0 { 3600 } else { message.ttl_seconds };
            let (authority, ttl) = (self.shared.authority(), Duration::from_secs(ttl));
            let key = csr.public_key();
            let svid = authority.issue(key, csr.id(), &[], ttl, SystemClock.now()).unwrap();
            let certificates = svid.chain().iter().map(|it| it.der().to_vec().into()).collect();
            Answer::Issued(proto::X509Svid { certificates, decision: None })
        };
        Ok(Response::new(proto::IssueX509SvidResponse { answer: Some(answer) }))
    }

    async fn issue_jwt_svid(
        &self,
        request: Request<proto::IssueJwtSvidRequest>,
    ) -> Result<Response<proto::IssueJwtSvidResponse>, Status> {
        use issue_jwt_svid_response::Answer;
        let authorization = bearer(&request);
        let message = request.into_inner();
        self.asked(Seen {
            replica: self.replica,
            authorization,
            pod_token: message.pod_token.clone(),
            pod: message.pod.clone().unwrap(),
            volume_id: message.volume_id.clone(),
            x509: None,
        })
        .await?;
        let answer = match self.denial() {
            Some(denial) => Answer::Denied(denial),
            None => {
                let now = SystemClock.now();
                let claims = JwtClaims {
                    id: message.spiffe_id.parse().unwrap(),
                    audience: message.audience,
                    issued_at: now,
                    expires_at: now + Duration::from_secs(300),
                    issuer: None,
                    jti: true,
                    extra: Default::default(),
                };
                let token = self.shared.jwt_key.sign(&claims).unwrap().token().to_owned();
                Answer::Issued(proto::JwtSvid { token, decision: None })
            }
        };
        Ok(Response::new(proto::IssueJwtSvidResponse { answer: Some(answer) }))
    }
}
