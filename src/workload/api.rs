//! `SpiffeWorkloadAPI`: the calls of SPIFFE_Workload_API.md.

use std::{pin::Pin, sync::Arc};

use futures_util::Stream;
use svid_csi_proto::workload::{
    JwtBundlesRequest, JwtBundlesResponse, JwtsvidRequest, JwtsvidResponse, ValidateJwtsvidRequest,
    ValidateJwtsvidResponse, WitBundlesRequest, WitBundlesResponse, WitsvidRequest,
    WitsvidResponse, X509BundlesRequest, X509BundlesResponse, X509svidRequest, X509svidResponse,
    spiffe_workload_api_server::SpiffeWorkloadApi,
};
use tonic::{Request, Response, Status};

use super::{bundles::BundleEncoder, entitlement::updates, jwt, status, x509};
use crate::node::Workload;

/// What a client must send with every request, so that a server that it is tricked into calling
/// for somebody else sends none (Workload Endpoint §3).
const HEADER: &str = "workload.spiffe.io";

/// Answers for every volume.
#[derive(Debug, Default)]
pub(super) struct WorkloadApi {
    bundles: Arc<BundleEncoder>,
}

/// Messages to one client.
pub(super) type Messages<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

// === impl WorkloadApi ===

#[tonic::async_trait]
impl SpiffeWorkloadApi for WorkloadApi {
    type FetchX509SVIDStream = Messages<X509svidResponse>;
    type FetchX509BundlesStream = Messages<X509BundlesResponse>;
    type FetchJWTBundlesStream = Messages<JwtBundlesResponse>;
    type FetchWITSVIDStream = Messages<WitsvidResponse>;
    type FetchWITBundlesStream = Messages<WitBundlesResponse>;

    async fn fetch_x509svid(
        &self,
        request: Request<X509svidRequest>,
    ) -> Result<Response<Self::FetchX509SVIDStream>, Status> {
        let encoder = self.bundles.clone();
        let messages = updates(workload(&request)?, move |now| x509::svids(now, &encoder));
        Ok(Response::new(Box::pin(messages)))
    }

    async fn fetch_x509_bundles(
        &self,
        request: Request<X509BundlesRequest>,
    ) -> Result<Response<Self::FetchX509BundlesStream>, Status> {
        let encoder = self.bundles.clone();
        let messages = updates(workload(&request)?, move |now| x509::bundles(now, &encoder));
        Ok(Response::new(Box::pin(messages)))
    }

    async fn fetch_jwtsvid(
        &self,
        request: Request<JwtsvidRequest>,
    ) -> Result<Response<JwtsvidResponse>, Status> {
        let workload = workload(&request)?.clone();
        Ok(Response::new(jwt::svids(&workload, request.into_inner()).await?))
    }

    async fn fetch_jwt_bundles(
        &self,
        request: Request<JwtBundlesRequest>,
    ) -> Result<Response<Self::FetchJWTBundlesStream>, Status> {
        let workload = workload(&request)?;
        workload.serves_jwt().map_err(status::of)?;
        let encoder = self.bundles.clone();
        let messages = updates(workload, move |now| jwt::bundles(now, &encoder));
        Ok(Response::new(Box::pin(messages)))
    }

    async fn validate_jwtsvid(
        &self,
        request: Request<ValidateJwtsvidRequest>,
    ) -> Result<Response<ValidateJwtsvidResponse>, Status> {
        Ok(Response::new(jwt::validate(workload(&request)?, request.get_ref())?))
    }

    async fn fetch_witsvid(
        &self,
        _request: Request<WitsvidRequest>,
    ) -> Result<Response<Self::FetchWITSVIDStream>, Status> {
        Err(no_wit_profile())
    }

    async fn fetch_wit_bundles(
        &self,
        _request: Request<WitBundlesRequest>,
    ) -> Result<Response<Self::FetchWITBundlesStream>, Status> {
        Err(no_wit_profile())
    }
}

/// Workload API §7.
fn no_wit_profile() -> Status {
    Status::unimplemented("the WIT-SVID profile is not supported")
}

/// Refuses a request without the security header, whatever it asks for (Workload Endpoint §6).
pub(super) fn check_header(request: Request<()>) -> Result<Request<()>, Status> {
    let mut values = request.metadata().get_all(HEADER).iter();
    match (values.next(), values.next()) {
        (Some(value), None) if value.as_bytes() == b"true" => Ok(request),
        _ => Err(Status::invalid_argument("security header missing from request")),
    }
}

/// Whose socket a request came through.
pub(super) fn workload<T>(request: &Request<T>) -> Result<&Workload, Status> {
    let unknown = || Status::internal("the connection belongs to no volume");
    request.extensions().get().ok_or_else(unknown)
}
