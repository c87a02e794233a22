//! What must be true of cert-manager before anything is approved: that its webhook overwrites who made
//! a request, and that nobody else known approves for our issuers.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use crate::{
    controller::world::World,
    id::{SpiffeId, TrustDomain},
    k8s::{
        ApiError, CertificateRequestDecisions, CertificateRequestSpec, IssuerRef, ObjectName,
        Subject,
    },
    pki::{Csr, CsrError, KeyAlgorithm, PrivateKey},
    signer::{SignError, cert_manager::Issuers},
};

/// Looks again and again.
pub struct Fence {
    decisions: CertificateRequestDecisions,
    issuers: Arc<Issuers>,
    world: Arc<World>,
    /// Who must not approve.
    others: Vec<Subject>,
    state: Mutex<State>,
}

/// What was found last, and when.
#[derive(Debug)]
struct State {
    found: Result<(), String>,
    at: Instant,
}

/// Why nothing may be approved.
#[derive(Debug, thiserror::Error)]
enum Gap {
    #[error(
        "cert-manager's webhook leaves the {what} of a forged CertificateRequest as it is: every \
         node could ask as another; install its MutatingWebhookConfiguration and run its webhook"
    )]
    Forgeable { what: &'static str },
    #[error(
        "{who} may approve requests for {signer}, and so may cert-manager's own approver, which \
         approves everything: install cert-manager with disableAutoApproval: true, or take the verb \
         approve on signers.cert-manager.io away from it"
    )]
    Approver { who: Subject, signer: String },
    #[error("cannot find out who made a CertificateRequest: {0}")]
    Api(#[from] ApiError),
    #[error("{0}")]
    Issuer(#[from] SignError),
    #[error("{0}")]
    Csr(#[from] CsrError),
}

/// How often it looks while all is well, and while it is not.
const LOOK: Duration = Duration::from_secs(20);
const LOOK_AGAIN: Duration = Duration::from_secs(3);
/// For how long what was found counts.
const OLD: Duration = Duration::from_secs(60);
/// Policies may name more issuers; their approvers are looked at in turn no further.
const MOST_ISSUERS: usize = 64;
/// Nobody's: what a request says is overwritten.
const FORGED: &str = "system:serviceaccount:forged:forged";
const FORGED_KEY: &str = "authentication.kubernetes.io/pod-name";

// === impl Fence ===

impl Fence {
    /// `others` are ServiceAccounts that must not be able to approve.
    pub fn new(
        decisions: CertificateRequestDecisions,
        issuers: Arc<Issuers>,
        world: Arc<World>,
        others: Vec<ObjectName>,
    ) -> Self {
        let driver = world.settings().driver_service_account.clone();
        let accounts = others.into_iter().chain([driver]).map(Subject::Account);
        let others = accounts.chain([Subject::EveryAccount]).collect();
        let found = Err("not looked at yet: cert-manager's webhook".to_owned());
        let state = Mutex::new(State { found, at: Instant::now() });
        Self { decisions, issuers, world, others, state }
    }

    /// Why nothing may be approved now.
    pub fn ready(&self) -> Result<(), String> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match state.at.elapsed() <= OLD {
            true => state.found.clone(),
            false => Err("cert-manager's webhook has not been looked at for a minute".to_owned()),
        }
    }

    /// Looks for ever.
    pub async fn keep(&self) {
        loop {
            let began = Instant::now();
            let found = self.look().await.map_err(|gap| gap.to_string());
            let pause = if found.is_ok() { LOOK } else { LOOK_AGAIN };
            self.note(found, began);
            sleep(pause).await;
        }
    }

    fn note(&self, found: Result<(), String>, at: Instant) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.found != found {
            match &found {
                Ok(()) => info!("cert-manager tells who asks, and leaves approving to us"),
                Err(problem) => warn!(problem, "no CertificateRequest is approved"),
            }
        }
        *state = State { found, at };
    }

    async fn look(&self) -> Result<(), Gap> {
        let default = self.issuers.choose(None)?;
        self.webhook_tells_who(&default).await?;
        let policies = self.world.policies();
        let named = policies.iter().flat_map(|policy| policy.issuers().iter().cloned());
        let mut issuers: Vec<IssuerRef> = std::iter::once(default).chain(named).collect();
        issuers.sort_unstable();
        issuers.dedup();
        for issuer in issuers.iter().take(MOST_ISSUERS) {
            for signer in signers(issuer, self.decisions.namespace()) {
                for who in &self.others {
                    if self.decisions.cluster().may_approve(who, &signer).await? {
                        return Err(Gap::Approver { who: who.clone(), signer });
                    }
                }
            }
        }
        Ok(())
    }

    /// Makes a request as somebody else, without keeping it: admission is what it is for a real one.
    async fn webhook_tells_who(&self, issuer: &IssuerRef) -> Result<(), Gap> {
        let spec = forged(issuer, &self.world.settings().trust_domain)?;
        let kept = self.decisions.forge("svid-csi-forged", spec).await?;
        match () {
            () if kept.username.is_empty() || kept.username == FORGED => {
                Err(Gap::Forgeable { what: "username" })
            }
            () if kept.uid == FORGED => Err(Gap::Forgeable { what: "uid" }),
            () if kept.extra.values().flatten().any(|value| value == FORGED) => {
                Err(Gap::Forgeable { what: "extra" })
            }
            () => Ok(()),
        }
    }
}

fn forged(
    issuer: &IssuerRef,
    trust_domain: &TrustDomain,
) -> Result<CertificateRequestSpec, CsrError> {
    let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256)?;
    let id = SpiffeId::new(trust_domain, "/svid.dev/forged")?;
    let csr = Csr::create(&key, &id)?;
    Ok(CertificateRequestSpec {
        username: FORGED.to_owned(),
        uid: FORGED.to_owned(),
        extra: BTreeMap::from([(FORGED_KEY.to_owned(), vec![FORGED.to_owned()])]),
        ..CertificateRequestDecisions::spec(csr.to_pem(), issuer)
    })
}

/// What cert-manager calls an issuer when it asks who may approve. Whether one of a kind that isn't
/// its own is in a namespace is not known here, so that both are asked for.
fn signers(issuer: &IssuerRef, namespace: &str) -> [String; 3] {
    let IssuerRef { group, kind, name } = issuer;
    let plural = format!("{}s", kind.to_ascii_lowercase());
    let names = ["*".to_owned(), name.clone(), format!("{namespace}.{name}")];
    names.map(|name| format!("{plural}.{group}/{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_to_allow_an_approver_is_asked_for() {
        let issuer = "ClusterIssuer/spiffe-ca".parse().unwrap();
        assert_eq!(
            signers(&issuer, "svid"),
            [
                "clusterissuers.cert-manager.io/*",
                "clusterissuers.cert-manager.io/spiffe-ca",
                "clusterissuers.cert-manager.io/svid.spiffe-ca",
            ]
        );
    }

    #[test]
    fn a_forged_request_is_one_that_cert_manager_takes() {
        let issuer: IssuerRef = "Issuer/a".parse().unwrap();
        let spec = forged(&issuer, &"example.org".parse().unwrap()).unwrap();
        let pem = String::from_utf8(spec.request.unwrap().0).unwrap();
        assert!(Csr::from_pem(&pem).is_ok());
        assert!(!spec.is_ca && spec.issuer_ref == issuer && spec.username == FORGED);
    }
}
