//! The least that a call can cost: a bare tonic server on a Unix socket, in a process of its own,
//! that answers with the bytes that the plugin answered with.

use std::{
    path::Path,
    pin::Pin,
    process::{Child, Command, Stdio},
};

use futures_util::{Stream, StreamExt, stream};
use prost::Message;
use svid_csi_proto::workload::{
    JwtBundlesRequest, JwtBundlesResponse, Jwtsvid, JwtsvidRequest, JwtsvidResponse,
    ValidateJwtsvidRequest, ValidateJwtsvidResponse, WitBundlesRequest, WitBundlesResponse,
    WitsvidRequest, WitsvidResponse, X509BundlesRequest, X509BundlesResponse, X509svidRequest,
    X509svidResponse,
    spiffe_workload_api_server::{SpiffeWorkloadApi, SpiffeWorkloadApiServer},
};
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status, transport::Server};

use crate::{client::Client, plugin::eventually};

/// `FLAG PATH` makes this program the bare server. What it answers lies beside its socket.
pub const FLAG: &str = "--bare";

/// The running server.
pub struct Bare(Child);

struct Canned {
    svid: X509svidResponse,
    token: JwtsvidResponse,
}

type Messages<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

pub fn serve(path: &str) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let bytes = std::fs::read(format!("{path}.svid")).unwrap();
        let svid = X509svidResponse::decode(&*bytes).unwrap();
        let token = std::fs::read_to_string(format!("{path}.token")).unwrap();
        let token = Jwtsvid {
            spiffe_id: svid.svids[0].spiffe_id.clone(),
            svid: token,
            hint: String::new(),
        };
        let canned = Canned { svid, token: JwtsvidResponse { svids: vec![token] } };
        let incoming = UnixListenerStream::new(UnixListener::bind(path).unwrap());
        let service = SpiffeWorkloadApiServer::new(canned);
        Server::builder().add_service(service).serve_with_incoming(incoming).await.unwrap();
    });
}

// === impl Bare ===

impl Bare {
    pub async fn start(socket: &Path, svid: &X509svidResponse, token: &str) -> Self {
        let beside = |what: &str| format!("{}.{what}", socket.display());
        std::fs::write(beside("svid"), svid.encode_to_vec()).unwrap();
        std::fs::write(beside("token"), token).unwrap();
        let program = std::env::current_exe().unwrap();
        let child = Command::new(program).arg(FLAG).arg(socket).stdin(Stdio::null()).spawn();
        eventually("the bare server answers", async || Client::connect(socket).await.ok()).await;
        Self(child.unwrap())
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

// === impl Canned ===

#[tonic::async_trait]
impl SpiffeWorkloadApi for Canned {
    type FetchX509SVIDStream = Messages<X509svidResponse>;
    type FetchX509BundlesStream = Messages<X509BundlesResponse>;
    type FetchJWTBundlesStream = Messages<JwtBundlesResponse>;
    type FetchWITSVIDStream = Messages<WitsvidResponse>;
    type FetchWITBundlesStream = Messages<WitBundlesResponse>;

    async fn fetch_x509svid(
        &self,
        _: Request<X509svidRequest>,
    ) -> Result<Response<Self::FetchX509SVIDStream>, Status> {
        let first = self.svid.clone();
        let messages = stream::once(async { Ok(first) }).chain(stream::pending());
        Ok(Response::new(Box::pin(messages)))
    }

    async fn fetch_jwtsvid(
        &self,
        _: Request<JwtsvidRequest>,
    ) -> Result<Response<JwtsvidResponse>, Status> {
        Ok(Response::new(self.token.clone()))
    }

    async fn fetch_x509_bundles(
        &self,
        _: Request<X509BundlesRequest>,
    ) -> Result<Response<Self::FetchX509BundlesStream>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn fetch_jwt_bundles(
        &self,
        _: Request<JwtBundlesRequest>,
    ) -> Result<Response<Self::FetchJWTBundlesStream>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn validate_jwtsvid(
        &self,
        _: Request<ValidateJwtsvidRequest>,
    ) -> Result<Response<ValidateJwtsvidResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn fetch_witsvid(
        &self,
        _: Request<WitsvidRequest>,
    ) -> Result<Response<Self::FetchWITSVIDStream>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn fetch_wit_bundles(
        &self,
        _: Request<WitBundlesRequest>,
    ) -> Result<Response<Self::FetchWITBundlesStream>, Status> {
        Err(Status::unimplemented(""))
    }
}
