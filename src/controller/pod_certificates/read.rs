//! A PodCertificateRequest as a request for an identity. What it says of pod, ServiceAccount and node
//! is what its kubelet says; that it is that node's kubelet, the fence makes sure of.

use std::time::Duration;

use crate::{
    controller::approver::{
        ApproverSettings, Denial, IdentityRequest, NamedPod, ReasonCode, Requester, Uses, Wish,
        shown, unreadable,
    },
    k8s::{ObjectName, OfferedKey, PodCertificateFacts},
    pki::PublicKey,
    volume::duration,
};

/// The shortest life of a certificate that the API server takes.
pub(super) const SHORTEST: Duration = Duration::from_secs(3600);
/// What a pod may say to its signer in `userAnnotations`, as it would in a volume's attributes.
const TTL: &str = "csi.svid.dev/ttl";
const DNS_NAMES: &str = "csi.svid.dev/dns-names";

/// Reads a request.
pub fn read(request: &PodCertificateFacts, settings: &ApproverSettings) -> IdentityRequest {
    IdentityRequest {
        requester: requester(request, settings),
        pod: Ok(NamedPod {
            name: ObjectName::new(&request.name.namespace, &request.pod_name),
            uid: request.pod_uid.clone(),
            service_account_name: Some(request.service_account_name.clone()),
            service_account_uid: Some(request.service_account_uid.clone()),
        }),
        uses: Uses::PodCertificate,
        wish: wish(request),
    }
}

fn requester(
    request: &PodCertificateFacts,
    settings: &ApproverSettings,
) -> Result<Requester, Denial> {
    let own = settings.pod_certificate_signer.as_deref().unwrap_or_default();
    if own.is_empty() || request.signer_name != own {
        return Err(Denial::new(
            ReasonCode::WrongSigner,
            format!("the request is for signer {}, not for {own}", request.signer_name),
        ));
    }
    Ok(Requester {
        node: ObjectName::cluster_wide(&*request.node_name),
        node_uid: request.node_uid.clone(),
        driver_pod: None,
    })
}

fn wish(request: &PodCertificateFacts) -> Result<Wish, Denial> {
    let annotations = &request.user_annotations;
    if let Some(key) = annotations.keys().find(|key| ![TTL, DNS_NAMES].contains(&key.as_str())) {
        return Err(Denial::new(
            ReasonCode::UnknownAnnotation,
            format!(
                "the user annotation {} is unknown; {TTL} and {DNS_NAMES} are known",
                shown(key)
            ),
        ));
    }
    // The keyType of a podCertificate projection has no default: the pod asks for it.
    let mut wish = Wish { explicit_key: true, ..Wish::of_key(key(request)?)? };
    let longest = request.max_expiration_seconds.map(Duration::from_secs);
    let Some(longest) = longest.filter(|longest| *longest >= SHORTEST) else {
        return Err(Denial::new(
            ReasonCode::WrongExpiration,
            format!("maxExpirationSeconds must be {} at least", SHORTEST.as_secs()),
        ));
    };
    wish.carried = SHORTEST..=longest;
    if let Some(text) = annotations.get(TTL) {
        wish.ttl = Some(duration::parse(text).map_err(|error| {
            let message = format!("the user annotation {TTL} is {}: {error}", shown(text));
            Denial::new(ReasonCode::MalformedTtl, message)
        })?);
    }
    if let Some(names) = annotations.get(DNS_NAMES) {
        let said = format!("the user annotation {DNS_NAMES}");
        wish = wish.asking_for_names(names.split(',').map(str::trim), &said)?;
    }
    Ok(wish)
}

/// The key, once more proven to be the kubelet's.
fn key(request: &PodCertificateFacts) -> Result<PublicKey, Denial> {
    match &request.key {
        OfferedKey::StubRequest(der) => PublicKey::of_stub_request(der).map_err(unreadable),
        OfferedKey::Bare { spki, proof } => {
            PublicKey::of_proof(spki, request.pod_uid.as_bytes(), proof).map_err(unreadable)
        }
        OfferedKey::Unreadable => Err(Denial::new(
            ReasonCode::MalformedCsr,
            "the request must have stubPKCS10Request, or pkixPublicKey and proofOfPossession",
        )),
    }
}
