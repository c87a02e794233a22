//! gRPC health: whether the pod at this socket has an identity now.
//!
//! No security header is asked for: those who probe send none.

use tonic::{Request, Response, Status};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus,
    health_server::Health,
};

use super::{
    api::{Messages, workload},
    entitlement::{Entitlement, updates},
};

/// Answers for every volume.
#[derive(Debug)]
pub(super) struct HealthService {
    /// What else is served; the empty name is all of it.
    pub(super) services: Vec<&'static str>,
}

// === impl HealthService ===

impl HealthService {
    fn knows(&self, name: &str) -> bool {
        name.is_empty() || self.services.contains(&name)
    }
}

#[tonic::async_trait]
impl Health for HealthService {
    type WatchStream = Messages<HealthCheckResponse>;

    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        if !self.knows(&request.get_ref().service) {
            return Err(Status::not_found("no such service is served here"));
        }
        Ok(Response::new(health(&Entitlement::of(workload(&request)?))))
    }

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let known = self.knows(&request.get_ref().service);
        let messages = updates(workload(&request)?, move |now| match known {
            true => Ok(health(now)),
            // As the health protocol has it: the service may be there one day.
            false => Ok(response(ServingStatus::ServiceUnknown)),
        });
        Ok(Response::new(Box::pin(messages)))
    }
}

fn health(entitlement: &Entitlement) -> HealthCheckResponse {
    response(match entitlement.pair() {
        Ok(_) => ServingStatus::Serving,
        Err(_) => ServingStatus::NotServing,
    })
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}
