//! `svid.issuer.v1.Issuer`: translation between its messages and what the controller decides.

use std::sync::Arc;

use svid_csi_proto::issuer::v1::{
    self as proto, IssueJwtSvidRequest, IssueJwtSvidResponse, IssueX509SvidRequest,
    IssueX509SvidResponse, Pod, issue_jwt_svid_response, issue_x509_svid_response,
    issuer_server::Issuer,
};
use tonic::{Request, Response, Status};
use tracing::{debug, error, warn};

use super::{
    proof::Driver,
    read,
    status::{of_api, of_issuance, of_token},
};
use crate::{
    class::Class,
    controller::{
        approver::{Decision, Denial, Grant, JwtGrant, ReasonCode, decide, decide_jwt},
        audit::{Entry, Outcome, Way},
        issuance::{Issuance, IssuanceError},
        tokens::{TokenClaims, Tokens},
        world::{Judgement, World},
    },
    jose::JwtSvid,
    k8s::{ApiError, PodFacts, names::APPROVED_REASON},
    pki::X509Svid,
};

/// Answers nodes.
pub(super) struct IssuerService {
    pub(super) world: Arc<World>,
    pub(super) tokens: Arc<Tokens>,
    pub(super) issuance: Arc<Issuance>,
}

/// Who asks for whom, as a call says it and as tokens prove it.
struct Asking<'a> {
    driver: &'a TokenClaims,
    requester: String,
    pod: Option<&'a Pod>,
    volume: &'a str,
}

// === impl IssuerService ===

#[tonic::async_trait]
impl Issuer for IssuerService {
    async fn issue_x509_svid(
        &self,
        request: Request<IssueX509SvidRequest>,
    ) -> Result<Response<IssueX509SvidResponse>, Status> {
        let Driver(driver) = driver(&request)?;
        let message = request.into_inner();
        let asking = Asking::new(&driver, message.pod.as_ref(), &message.volume_id);
        let token = self.pods_token(&message.pod_token, &asking).await?;
        let request = read::x509(&driver, &token, &message, self.world.settings());
        let judged = self.world.judge(&request, decide).await;
        let Judgement { decision, pod } = judged.map_err(|error| self.unread(&error))?;
        let asked = asking.entry(pod.as_deref());
        let answer = match decision {
            Decision::Approve(grant) => {
                let svid = self.issuance.sign(&grant, &asked);
                let svid = svid.map_err(|error| unsigned(&error))?;
                self.issuance.metrics.decided(Outcome::Sign, APPROVED_REASON);
                issue_x509_svid_response::Answer::Issued(issued(&grant, &svid))
            }
            Decision::Deny(denial) => {
                let wanted = request.wish.as_ref().ok().and_then(|wish| wish.id.as_ref());
                let spiffe_id = wanted.map_or("", |id| id.as_str());
                self.refuse(&denial, &Entry { spiffe_id, ..asked })?;
                issue_x509_svid_response::Answer::Denied(denied(denial))
            }
        };
        Ok(Response::new(IssueX509SvidResponse { answer: Some(answer) }))
    }

    async fn issue_jwt_svid(
        &self,
        request: Request<IssueJwtSvidRequest>,
    ) -> Result<Response<IssueJwtSvidResponse>, Status> {
        let Driver(driver) = driver(&request)?;
        let message = request.into_inner();
        let asking = Asking::new(&driver, message.pod.as_ref(), &message.volume_id);
        let token = self.pods_token(&message.pod_token, &asking).await?;
        let request = read::jwt(&driver, &token, &message, self.world.settings());
        let judged = self.world.judge(&request, decide_jwt).await;
        let Judgement { decision, pod } = judged.map_err(|error| self.unread(&error))?;
        let asked = asking.entry(pod.as_deref());
        let answer = match decision {
            Decision::Approve(grant) => {
                let svid = self.issuance.sign_jwt(&grant, &asked);
                let svid = svid.map_err(|error| unsigned(&error))?;
                self.issuance.metrics.decided(Outcome::Sign, APPROVED_REASON);
                issue_jwt_svid_response::Answer::Issued(issued_jwt(&grant, &svid))
            }
            Decision::Deny(denial) => {
                let wish = request.wish.as_ref().ok();
                self.refuse(
                    &denial,
                    &Entry {
                        spiffe_id: wish.map_or("", |wish| wish.id.as_str()),
                        audience: wish.map_or(&[], |wish| wish.audience.as_slice()),
                        ..asked
                    },
                )?;
                issue_jwt_svid_response::Answer::Denied(denied(denial))
            }
        };
        Ok(Response::new(IssueJwtSvidResponse { answer: Some(answer) }))
    }
}

impl IssuerService {
    /// What the pod's token proves. One that is no good is written down: a driver that is who it says
    /// brought it.
    async fn pods_token(
        &self,
        token: &str,
        asking: &Asking<'_>,
    ) -> Result<Arc<TokenClaims>, Status> {
        let error = match self.tokens.verify(token).await {
            Ok(claims) => return Ok(claims),
            Err(error) => error,
        };
        if error.class() != Class::Unavailable {
            let denial = Denial::new(ReasonCode::PodTokenRefused, error.to_string());
            self.refuse(&denial, &asking.entry(None))?;
        }
        Err(of_token("the pod's token", &error))
    }

    fn refuse(&self, denial: &Denial, entry: &Entry<'_>) -> Result<(), Status> {
        let written = self.issuance.refuse(Outcome::Deny, denial, entry);
        written.map_err(|error| unsigned(&error))?;
        let reason = denial.reason.as_str();
        self.issuance.metrics.decided(Outcome::Deny, reason);
        debug!(node = entry.node, pod = entry.pod, reason, why = denial.message, "refused");
        Ok(())
    }

    fn unread(&self, error: &ApiError) -> Status {
        self.issuance.metrics.api_failed(error);
        warn!(%error, "a call waits");
        of_api(error)
    }
}

fn driver<T>(request: &Request<T>) -> Result<Driver, Status> {
    let driver = request.extensions().get::<Driver>().cloned();
    driver.ok_or_else(|| Status::internal("the caller is unknown"))
}

fn unsigned(error: &IssuanceError) -> Status {
    match error {
        IssuanceError::NotReady(reason) => debug!(%reason, "a call waits"),
        error => error!(%error, "a call waits"),
    }
    of_issuance(error)
}

fn issued(grant: &Grant, svid: &X509Svid) -> proto::X509Svid {
    let certificates = svid.chain().iter().map(|one| one.der().to_vec().into());
    proto::X509Svid {
        certificates: certificates.collect(),
        decision: Some(proto::Decision {
            policy: grant.policy.clone(),
            spiffe_id: grant.id.as_str().to_owned(),
            ttl_seconds: grant.ttl.as_secs(),
            federates_with: grant.federates_with.iter().map(ToString::to_string).collect(),
        }),
    }
}

fn issued_jwt(grant: &JwtGrant, svid: &JwtSvid) -> proto::JwtSvid {
    let lifetime = svid.expires_at().duration_since(svid.issued_at()).unwrap_or_default();
    proto::JwtSvid {
        token: svid.token().to_owned(),
        decision: Some(proto::Decision {
            policy: grant.policy.clone(),
            spiffe_id: grant.id.as_str().to_owned(),
            ttl_seconds: lifetime.as_secs(),
            federates_with: Vec::new(),
        }),
    }
}

fn denied(denial: Denial) -> proto::Denial {
    proto::Denial {
        reason: denial.reason.as_str().to_owned(),
        message: denial.message,
        identity_is: denial.identity_is.map(|is| proto::IdentityIs {
            spiffe_id: is.id.as_str().to_owned(),
            key_algorithm: is.key_algorithm.as_str().to_owned(),
        }),
    }
}

// === impl Asking ===

impl<'a> Asking<'a> {
    fn new(driver: &'a TokenClaims, pod: Option<&'a Pod>, volume: &'a str) -> Self {
        Self { driver, requester: driver.username(), pod, volume }
    }

    /// The start of an audit line.
    fn entry<'b>(&'b self, facts: Option<&'b PodFacts>) -> Entry<'b> {
        let said = |of: fn(&Pod) -> &String| self.pod.map_or("", |pod| of(pod).as_str());
        Entry {
            way: Some(Way::Call),
            request: self.volume,
            requester: &self.requester,
            node: &self.driver.node_name,
            node_uid: &self.driver.node_uid,
            driver_pod: &self.driver.pod_name,
            pod_namespace: said(|pod| &pod.namespace),
            pod: said(|pod| &pod.name),
            pod_uid: said(|pod| &pod.uid),
            service_account: facts.map_or("", PodFacts::service_account),
            ..Entry::default()
        }
    }
}
