//! A Workload API over real gRPC that says what a test wants, for what our own never says.

use std::{collections::HashMap, path::PathBuf, pin::Pin, time::Duration};

use futures_util::{Stream, StreamExt, stream};
use svid_csi::{
    clock::{Clock, SystemClock},
    jose::{JwtClaims, JwtKey, JwtKeyAlgorithm},
    pki::{Authority, Csr, KeyAlgorithm, PrivateKey},
};
use svid_csi_proto::workload::{
    JwtBundlesRequest, JwtBundlesResponse, Jwtsvid, JwtsvidRequest, JwtsvidResponse,
    ValidateJwtsvidRequest, ValidateJwtsvidResponse, WitBundlesRequest, WitBundlesResponse,
    WitsvidRequest, WitsvidResponse, X509BundlesRequest, X509BundlesResponse, X509svid,
    X509svidRequest, X509svidResponse,
    spiffe_workload_api_server::{SpiffeWorkloadApi, SpiffeWorkloadApiServer},
};
use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status, transport::Server};

pub const ID: &str = "spiffe://example.org/ns/shop/sa/cart";

/// What the server says to each call. A stream stays open after its messages, as a good one does.
#[derive(Clone)]
pub struct Said {
    pub x509: Vec<Result<X509svidResponse, Status>>,
    pub jwt: Result<JwtsvidResponse, Status>,
    pub jwt_bundles: Result<JwtBundlesResponse, Status>,
    pub validation: Result<ValidateJwtsvidResponse, Status>,
}

type Messages<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;
type Answer<T> = Result<Response<T>, Status>;

/// Serves at a path longer than a socket's address, until it is dropped.
pub struct Workload {
    pub socket: PathBuf,
    _directory: TempDir,
    _runtime: tokio::runtime::Runtime,
}

// === impl Workload ===

impl Workload {
    pub fn saying(said: Said) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("d".repeat(120)).join("spiffe.sock");
        std::fs::create_dir(socket.parent().unwrap()).unwrap();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.unwrap();
        let listener: UnixListener = {
            let _inside = runtime.enter();
            svid_csi::sys::socket::bind_private(&socket, 0o666).unwrap()
        };
        let server = Server::builder().add_service(SpiffeWorkloadApiServer::new(said));
        runtime.spawn(server.serve_with_incoming(UnixListenerStream::new(listener)));
        Self { socket, _directory: directory, _runtime: runtime }
    }
}

// === impl Said ===

impl Said {
    /// One good SVID, and a JWT-SVID.
    pub fn well() -> Self {
        let svid = good_svid();
        let (token, jwks) = good_token();
        Self {
            x509: vec![Ok(X509svidResponse { svids: vec![svid], ..X509svidResponse::default() })],
            jwt: Ok(JwtsvidResponse { svids: vec![token] }),
            jwt_bundles: Ok(JwtBundlesResponse {
                bundles: HashMap::from([("spiffe://example.org".to_owned(), jwks.into())]),
            }),
            validation: Err(Status::invalid_argument("the token has expired")),
        }
    }
}

/// A new key and certificate, of a CA of its own.
pub fn good_svid() -> X509svid {
    let (trust_domain, now) = ("example.org".parse().unwrap(), SystemClock.now());
    let day = Duration::from_secs(86_400);
    let ca = Authority::create(&trust_domain, KeyAlgorithm::EcdsaP256, day, now).unwrap();
    let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
    let id = ID.parse().unwrap();
    let csr = Csr::create(&key, &id).unwrap();
    let svid = ca.issue(csr.public_key(), &id, &[], Duration::from_secs(3600), now).unwrap();
    X509svid {
        spiffe_id: ID.to_owned(),
        x509_svid: svid.leaf().der().to_vec().into(),
        x509_svid_key: key.pkcs8_der().to_vec().into(),
        bundle: ca.certificate().der().to_vec().into(),
        hint: "internal".to_owned(),
    }
}

/// A token for `bank`, and the JWK Set with its key.
fn good_token() -> (Jwtsvid, String) {
    let key = JwtKey::generate(JwtKeyAlgorithm::Es256).unwrap();
    let claims = JwtClaims {
        id: ID.parse().unwrap(),
        audience: vec!["bank".to_owned()],
        issued_at: SystemClock.now(),
        expires_at: SystemClock.now() + Duration::from_secs(300),
        issuer: None,
        jti: false,
        extra: Default::default(),
    };
    let token = key.sign(&claims).unwrap();
    let keys = [key.authority().to_jwk(None)];
    let token =
        Jwtsvid { spiffe_id: ID.into(), svid: token.token().to_owned(), hint: String::new() };
    (token, serde_json::json!({ "keys": keys }).to_string())
}

fn checked<T>(request: &Request<T>) -> Result<(), Status> {
    match request.metadata().get("workload.spiffe.io") {
        Some(value) if value == "true" => Ok(()),
        _ => Err(Status::invalid_argument("security header missing from request")),
    }
}

fn open<T: Send + 'static>(messages: Vec<Result<T, Status>>) -> Messages<T> {
    let end = messages.iter().any(Result::is_err);
    let messages = stream::iter(messages);
    if end { Box::pin(messages) } else { Box::pin(messages.chain(stream::pending())) }
}

#[tonic::async_trait]
impl SpiffeWorkloadApi for Said {
    type FetchX509SVIDStream = Messages<X509svidResponse>;
    type FetchX509BundlesStream = Messages<X509BundlesResponse>;
    type FetchJWTBundlesStream = Messages<JwtBundlesResponse>;
    type FetchWITSVIDStream = Messages<WitsvidResponse>;
    type FetchWITBundlesStream = Messages<WitBundlesResponse>;

    async fn fetch_x509svid(
        &self,
        request: Request<X509svidRequest>,
    ) -> Answer<Messages<X509svidResponse>> {
        checked(&request)?;
        Ok(Response::new(open(self.x509.clone())))
    }

    async fn fetch_x509_bundles(
        &self,
        request: Request<X509BundlesRequest>,
    ) -> Answer<Messages<X509BundlesResponse>> {
        checked(&request)?;
        let svid = self.x509.first().cloned().unwrap()?;
        let bundles =
            svid.svids.into_iter().map(|svid| ("spiffe://example.org".into(), svid.bundle));
        let bundles = bundles.chain(svid.federated_bundles).collect();
        Ok(Response::new(open(vec![Ok(X509BundlesResponse { bundles, ..Default::default() })])))
    }

    async fn fetch_jwtsvid(&self, request: Request<JwtsvidRequest>) -> Answer<JwtsvidResponse> {
        checked(&request)?;
        self.jwt.clone().map(Response::new)
    }

    async fn fetch_jwt_bundles(
        &self,
        request: Request<JwtBundlesRequest>,
    ) -> Answer<Messages<JwtBundlesResponse>> {
        checked(&request)?;
        Ok(Response::new(open(vec![Ok(self.jwt_bundles.clone()?)])))
    }

    async fn validate_jwtsvid(
        &self,
        request: Request<ValidateJwtsvidRequest>,
    ) -> Answer<ValidateJwtsvidResponse> {
        checked(&request)?;
        self.validation.clone().map(Response::new)
    }

    async fn fetch_witsvid(&self, _: Request<WitsvidRequest>) -> Answer<Messages<WitsvidResponse>> {
        Err(Status::unimplemented(""))
    }

    async fn fetch_wit_bundles(
        &self,
        _: Request<WitBundlesRequest>,
    ) -> Answer<Messages<WitBundlesResponse>> {
        Err(Status::unimplemented(""))
    }
}
