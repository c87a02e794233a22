//! A CertificateRequest as a request for an identity. The driver writes its annotations; who made it is
//! what cert-manager's webhook wrote, which is proven to (`fence`). What is signed is `spec`.

use std::time::Duration;

use crate::{
    controller::{
        annotated,
        approver::{
            ApproverSettings, CertificateWish, Denial, IdentityRequest, ReasonCode, Requester,
            Uses, Wish, possible_ttls, shown,
        },
    },
    k8s::{
        CertificateRequestFacts,
        names::{NODE_UID_LABEL, USAGES, annotation},
    },
    pki::{Csr, CsrError},
    volume::duration,
};

/// Reads this version of a request.
pub fn read(
    request: &CertificateRequestFacts,
    is_default: bool,
    settings: &ApproverSettings,
) -> IdentityRequest<CertificateWish> {
    IdentityRequest {
        requester: requester(request, settings),
        pod: annotated::pod(&request.annotations),
        uses: Uses::Volume,
        wish: wish(request, is_default, settings),
    }
}

fn requester(
    request: &CertificateRequestFacts,
    settings: &ApproverSettings,
) -> Result<Requester, Denial> {
    let spec = &request.spec;
    let mut requester = annotated::requester(&spec.username, &spec.extra, settings)?;
    // The webhook tells this too, and a ServiceAccount may have been made anew meanwhile.
    if let Some(pod) = &mut requester.driver_pod {
        pod.service_account_uid = Some(spec.uid.clone());
    }
    match request.labels.get(NODE_UID_LABEL) {
        Some(label) if *label == requester.node_uid => Ok(requester),
        _ => Err(Denial::new(
            ReasonCode::NodeLabelMismatch,
            format!(
                "the label {NODE_UID_LABEL} must be the requester's node, {}",
                requester.node_uid
            ),
        )),
    }
}

fn wish(
    request: &CertificateRequestFacts,
    is_default: bool,
    settings: &ApproverSettings,
) -> Result<CertificateWish, Denial> {
    // Some issuers do what annotations say.
    let foreign = request.annotations.keys().find(|key| !key.starts_with(annotation::PREFIX));
    if let Some(key) = foreign {
        return Err(Denial::new(
            ReasonCode::UnknownAnnotation,
            format!("the annotation {} is not the driver's", shown(key)),
        ));
    }
    annotated::known(&request.annotations)?;
    let spec = &request.spec;
    let csr = spec.request.as_ref().map(|bytes| bytes.0.as_slice()).unwrap_or_default();
    let csr = std::str::from_utf8(csr).map_err(|_not_text| CsrError::Pem);
    let csr = csr.and_then(Csr::from_pem_with_dns_names);
    let names = csr.as_ref().map(|csr| csr.dns_names().to_vec()).unwrap_or_default();
    let wish = Wish::of_csr(csr, &settings.trust_domain)?;
    let mut wish = annotated::wishes(wish, &request.annotations)?;
    if wish.dns_names != names {
        return Err(Denial::new(
            ReasonCode::MalformedDnsNames,
            format!("the annotation {} and the CSR name others", annotation::DNS_NAMES),
        ));
    }
    wish.dns_names = names;
    if spec.is_ca {
        return Err(Denial::new(ReasonCode::CaRequested, "isCA must be false"));
    }
    let mut usages: Vec<&str> = spec.usages.iter().map(String::as_str).collect();
    let mut ours = USAGES;
    usages.sort_unstable();
    ours.sort_unstable();
    if usages != ours {
        return Err(Denial::new(
            ReasonCode::WrongUsages,
            format!("the usages must be exactly {}", USAGES.join(", ")),
        ));
    }
    let lifetime = lifetime(spec.duration.as_deref())?;
    Ok(CertificateWish { wish, lifetime, issuer: spec.issuer_ref.clone(), is_default })
}

fn lifetime(text: Option<&str>) -> Result<Duration, Denial> {
    let said = text.and_then(|text| duration::parse(text).ok());
    said.filter(|lifetime| possible_ttls().contains(lifetime)).ok_or_else(|| {
        let text = text.map_or("absent".to_owned(), shown);
        Denial::new(
            ReasonCode::WrongExpiration,
            format!("the duration is {text}; it must be a lifetime that a policy can give"),
        )
    })
}
