//! What a request object says in its annotations, which prove nothing, and what the API server wrote
//! into it about its creator.

use std::{collections::BTreeMap, time::Duration};

use super::approver::{ApproverSettings, Denial, NamedPod, ReasonCode, Requester, Wish, shown};
use crate::{
    k8s::{
        ObjectName,
        names::{annotation, extra},
    },
    pki::{Csr, CsrError},
    volume::duration,
};

/// All the annotations that the driver writes.
const KNOWN: [&str; 6] = [
    annotation::POD_NAMESPACE,
    annotation::POD_NAME,
    annotation::POD_UID,
    annotation::TTL,
    annotation::KEY_ALGORITHM,
    annotation::DNS_NAMES,
];
/// An RSA-4096 request has less than 2 KiB.
const MAX_CSR: usize = 16 << 10;

type Texts = BTreeMap<String, String>;

/// The driver's pod and node that the creator's token is bound to.
pub(super) fn requester(
    username: &str,
    extra: &BTreeMap<String, Vec<String>>,
    settings: &ApproverSettings,
) -> Result<Requester, Denial> {
    let account = &settings.driver_service_account;
    let driver = format!("system:serviceaccount:{}:{}", account.namespace, account.name);
    if username != driver {
        return Err(Denial::new(
            ReasonCode::NotTheDriver,
            format!("{username} made the request; only {driver} may"),
        ));
    }
    let bound = |key: &'static str| match extra.get(key).map(Vec::as_slice) {
        Some([value]) if !value.is_empty() => Ok(value.as_str()),
        _ => Err(Denial::new(
            ReasonCode::UnboundToken,
            format!(
                "the requester's token does not say {key}; it must be bound to the driver's pod, \
                 by Kubernetes 1.30 or later"
            ),
        )),
    };
    Ok(Requester {
        node: ObjectName::cluster_wide(bound(extra::NODE_NAME)?),
        node_uid: bound(extra::NODE_UID)?.to_owned(),
        driver_pod: Some(NamedPod {
            name: ObjectName::new(&account.namespace, bound(extra::POD_NAME)?),
            uid: bound(extra::POD_UID)?.to_owned(),
            // The API server checked the token that the creator used.
            service_account_name: None,
            service_account_uid: None,
        }),
    })
}

/// The pod that the annotations name.
pub(super) fn pod(annotations: &Texts) -> Result<NamedPod, Denial> {
    let named = |key| annotations.get(key).filter(|value| !value.is_empty());
    let names = (|| {
        let namespace = named(annotation::POD_NAMESPACE)?;
        let name = ObjectName::new(namespace, named(annotation::POD_NAME)?);
        let uid = named(annotation::POD_UID)?.clone();
        Some(NamedPod { name, uid, service_account_name: None, service_account_uid: None })
    })();
    names.ok_or_else(|| {
        Denial::new(
            ReasonCode::PodNotNamed,
            format!(
                "the annotations {}, {} and {} must name the pod",
                annotation::POD_NAMESPACE,
                annotation::POD_NAME,
                annotation::POD_UID
            ),
        )
    })
}

/// What the CSR (PEM) and the annotations beside it ask for.
pub(super) fn wish(
    csr: &[u8],
    annotations: &Texts,
    settings: &ApproverSettings,
) -> Result<Wish, Denial> {
    let text = std::str::from_utf8(csr).ok().filter(|text| text.len() <= MAX_CSR);
    let csr = text.map_or(Err(CsrError::Pem), Csr::from_pem);
    known(annotations)?;
    wishes(Wish::of_csr(csr, &settings.trust_domain)?, annotations)
}

/// What the annotations ask for beside the CSR.
pub(super) fn wishes(mut wish: Wish, annotations: &Texts) -> Result<Wish, Denial> {
    wish.ttl = ttl(annotations)?;
    let said = |key: &str| format!("the annotation {key}");
    if let Some(name) = annotations.get(annotation::KEY_ALGORITHM) {
        wish = wish.asking_for_key(name, &said(annotation::KEY_ALGORITHM))?;
    }
    if let Some(names) = annotations.get(annotation::DNS_NAMES) {
        let names = names.split(',').map(str::trim);
        wish = wish.asking_for_names(names, &said(annotation::DNS_NAMES))?;
    }
    Ok(wish)
}

/// Refuses annotations of ours that the driver does not write.
pub(super) fn known(annotations: &Texts) -> Result<(), Denial> {
    let unknown = annotations
        .keys()
        .find(|key| key.starts_with(annotation::PREFIX) && !KNOWN.contains(&key.as_str()));
    if let Some(key) = unknown {
        return Err(Denial::new(
            ReasonCode::UnknownAnnotation,
            format!(
                "the annotation {} is unknown; the driver may be newer than the controller",
                shown(key)
            ),
        ));
    }
    Ok(())
}

fn ttl(annotations: &Texts) -> Result<Option<Duration>, Denial> {
    let Some(text) = annotations.get(annotation::TTL) else { return Ok(None) };
    duration::parse(text).map(Some).map_err(|error| {
        Denial::new(
            ReasonCode::MalformedTtl,
            format!("the annotation {} is {}: {error}", annotation::TTL, shown(text)),
        )
    })
}
