//! The floor: a server that answers each call with bytes of the same size, over the same TLS, in a
//! process of its own. It checks nothing and signs nothing.

use std::{
    env,
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    service::TowerToHyperService,
};
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer},
};
use svid_csi_proto::issuer::v1::{
    Decision, IssueJwtSvidRequest, IssueJwtSvidResponse, IssueX509SvidRequest,
    IssueX509SvidResponse, X509Svid,
    issue_x509_svid_response::Answer,
    issuer_server::{Issuer, IssuerServer},
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;
use tonic::{Request, Response, Status};

pub const PART: &str = "SVID_CSI_BENCH_BARE";
const PORT: u16 = 9891;
/// A P-256 certificate with a SPIFFE ID.
const CERTIFICATE: usize = 520;

/// The server's process. Killed when it is dropped.
pub struct Bare {
    child: Child,
    pub address: SocketAddr,
}

/// Answers always the same.
#[derive(Clone)]
struct Same(IssueX509SvidResponse);

// === impl Bare ===

impl Bare {
    pub async fn start() -> Self {
        let child = Command::new(env::current_exe().unwrap())
            .env(PART, "1")
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], PORT));
        while TcpStream::connect(address).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Self { child, address }
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub async fn serve() {
    let acceptor = TlsAcceptor::from(Arc::new(tls()));
    let decision = Decision {
        policy: "default".to_owned(),
        spiffe_id: "spiffe://example.org/ns/team-001/sa/app-0001".to_owned(),
        ttl_seconds: 3600,
        ..Default::default()
    };
    let issued =
        X509Svid { certificates: vec![vec![7; CERTIFICATE].into()], decision: Some(decision) };
    let same = Same(IssueX509SvidResponse { answer: Some(Answer::Issued(issued)) });
    let listener = TcpListener::bind(("127.0.0.1", PORT)).await.unwrap();
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (acceptor, same) = (acceptor.clone(), same.clone());
        connections.spawn(async move {
            // The first one only asks whether somebody listens.
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let service = TowerToHyperService::new(IssuerServer::new(same));
            let http2 = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            drop(http2.serve_connection(TokioIo::new(stream), service).await);
        });
    }
}

fn tls() -> ServerConfig {
    let pair = rcgen::generate_simple_self_signed(["controller".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(pair.signing_key.serialize_der()).unwrap();
    let certificate = CertificateDer::from(pair.cert.der().to_vec());
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

#[tonic::async_trait]
impl Issuer for Same {
    async fn issue_x509_svid(
        &self,
        _: Request<IssueX509SvidRequest>,
    ) -> Result<Response<IssueX509SvidResponse>, Status> {
        Ok(Response::new(self.0.clone()))
    }

    async fn issue_jwt_svid(
        &self,
        _: Request<IssueJwtSvidRequest>,
    ) -> Result<Response<IssueJwtSvidResponse>, Status> {
        Err(Status::unimplemented("certificates only"))
    }
}
