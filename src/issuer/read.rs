//! A call as a request for an identity: what its two tokens prove, and what it says. Pure, so that a
//! table can test it.

use std::time::Duration;

use svid_csi_proto::issuer::v1::{IssueJwtSvidRequest, IssueX509SvidRequest, Pod};

use crate::{
    controller::{
        approver::{
            ApproverSettings, Denial, IdentityRequest, JwtWish, NamedPod, ReasonCode, Requester,
            Uses, Wish,
        },
        tokens::TokenClaims,
    },
    k8s::ObjectName,
    pki::Csr,
};

/// What a call for an X.509-SVID asks for, with what the tokens of the driver and the pod prove.
pub(super) fn x509(
    driver: &TokenClaims,
    pod: &TokenClaims,
    message: &IssueX509SvidRequest,
    settings: &ApproverSettings,
) -> IdentityRequest {
    IdentityRequest {
        requester: requester(driver, settings),
        pod: named(driver, pod, message.pod.as_ref()),
        uses: Uses::Volume,
        wish: x509_wish(message, settings),
    }
}

/// The same for a JWT-SVID.
pub(super) fn jwt(
    driver: &TokenClaims,
    pod: &TokenClaims,
    message: &IssueJwtSvidRequest,
    settings: &ApproverSettings,
) -> IdentityRequest<JwtWish> {
    let (audience, ttl) = (message.audience.clone(), ttl(message.ttl_seconds));
    IdentityRequest {
        requester: requester(driver, settings),
        pod: named(driver, pod, message.pod.as_ref()),
        uses: Uses::Volume,
        wish: JwtWish::new(&message.spiffe_id, audience, ttl, &settings.trust_domain),
    }
}

/// The driver's pod and node that its token is bound to.
pub(super) fn requester(
    driver: &TokenClaims,
    settings: &ApproverSettings,
) -> Result<Requester, Denial> {
    let account = &settings.driver_service_account;
    if driver.namespace != account.namespace || driver.service_account != account.name {
        return Err(Denial::new(
            ReasonCode::NotTheDriver,
            format!(
                "the token in authorization is of {}; only system:serviceaccount:{}:{} may ask",
                driver.username(),
                account.namespace,
                account.name
            ),
        ));
    }
    Ok(Requester {
        node: ObjectName::cluster_wide(&driver.node_name),
        node_uid: driver.node_uid.clone(),
        driver_pod: Some(bound_to(driver)),
    })
}

/// The pod that the call names, if it is the very one that its token is bound to, and that was on the
/// driver's node when it got the token: a node that stole a token elsewhere has no use for it.
fn named(driver: &TokenClaims, pod: &TokenClaims, named: Option<&Pod>) -> Result<NamedPod, Denial> {
    let named = named.filter(|pod| {
        [&pod.namespace, &pod.name, &pod.uid].into_iter().all(|name| !name.is_empty())
    });
    let Some(named) = named else {
        let message = "the call must name the pod: its namespace, name and UID";
        return Err(Denial::new(ReasonCode::PodNotNamed, message));
    };
    let name = ObjectName::new(&named.namespace, &named.name);
    if name != pod.pod() || named.uid != pod.pod_uid {
        return Err(Denial::new(
            ReasonCode::PodTokenMismatch,
            format!(
                "the pod's token is of {} (UID {}), the call is for {name} (UID {})",
                pod.pod(),
                pod.pod_uid,
                named.uid
            ),
        ));
    }
    if pod.node_uid != driver.node_uid || pod.node_name != driver.node_name {
        return Err(Denial::new(
            ReasonCode::PodTokenElsewhere,
            format!(
                "the pod's token was made for node {}, the driver's for {}, which gets identities \
                 of its own pods only",
                pod.node_name, driver.node_name
            ),
        ));
    }
    Ok(bound_to(pod))
}

fn bound_to(claims: &TokenClaims) -> NamedPod {
    NamedPod {
        name: claims.pod(),
        uid: claims.pod_uid.clone(),
        service_account_name: Some(claims.service_account.clone()),
        service_account_uid: Some(claims.service_account_uid.clone()),
    }
}

fn x509_wish(message: &IssueX509SvidRequest, settings: &ApproverSettings) -> Result<Wish, Denial> {
    let mut wish = Wish::of_csr(Csr::parse(&message.csr), &settings.trust_domain)?;
    wish.ttl = ttl(message.ttl_seconds);
    if !message.key_algorithm.is_empty() {
        wish = wish.asking_for_key(&message.key_algorithm, "key_algorithm")?;
    }
    wish.asking_for_names(message.dns_names.iter().map(String::as_str), "dns_names")
}

/// 0 stands for no wish.
fn ttl(seconds: u64) -> Option<Duration> {
    (seconds > 0).then(|| Duration::from_secs(seconds))
}
