//! The object that a request becomes.

use std::{collections::BTreeMap, fmt::Write, time::Duration};

use aws_lc_rs::digest::{Context, SHA256};

use crate::{
    k8s::{
        IssuerRef, NewRequest, OwnRequest,
        names::{REQUEST_PREFIX, annotation},
    },
    signer::SignRequest,
    volume::duration,
};

/// What the object says beside its CSR, for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Terms {
    pub(super) lifetime: Duration,
    /// Whom a CertificateRequest is for.
    pub(super) issuer: Option<IssuerRef>,
}

/// How many bytes of the hash are in a name.
const NAME_BYTES: usize = 20;

/// The name of a request: the same for the same volume and key, so that a retry finds its own.
pub(super) fn name(request: &SignRequest) -> String {
    let mut hash = Context::new(&SHA256);
    hash.update(request.volume.as_str().as_bytes());
    hash.update(&[0]);
    hash.update(request.csr.spki_der());
    let mut name = REQUEST_PREFIX.to_owned();
    for byte in hash.finish().as_ref().iter().take(NAME_BYTES) {
        // Writing to a string cannot fail.
        let _ = write!(name, "{byte:02x}");
    }
    name
}

/// The object. What it says of the pod is for the controller to check; what the pod did not ask
/// for is for policy to choose.
pub(super) fn draft(
    request: &SignRequest,
    name: &str,
    node_uid: &str,
    terms: &Terms,
) -> NewRequest {
    let pod = &request.pod;
    let mut annotations = BTreeMap::from([
        (annotation::POD_NAMESPACE.to_owned(), pod.namespace.clone()),
        (annotation::POD_NAME.to_owned(), pod.name.clone()),
        (annotation::POD_UID.to_owned(), pod.uid.clone()),
    ]);
    if let Some(ttl) = request.explicit_ttl {
        annotations.insert(annotation::TTL.to_owned(), duration::format(ttl));
    }
    if let Some(algorithm) = request.explicit_key_algorithm {
        annotations.insert(annotation::KEY_ALGORITHM.to_owned(), algorithm.to_string());
    }
    if !request.dns_names.is_empty() {
        let names: Vec<&str> = request.dns_names.iter().map(|name| name.as_str()).collect();
        annotations.insert(annotation::DNS_NAMES.to_owned(), names.join(","));
    }
    NewRequest {
        name: name.to_owned(),
        node_uid: node_uid.to_owned(),
        request: request.csr.to_pem(),
        expiration_seconds: terms.lifetime.as_secs(),
        annotations,
        issuer: terms.issuer.clone(),
    }
}

/// Whether an object says the same. What a CertificateSigningRequest says of its lifetime is no more
/// than a wish.
pub(super) fn keeps_terms(object: &OwnRequest, terms: &Terms) -> bool {
    let lifetime = |text: &String| duration::parse(text).is_ok_and(|it| it == terms.lifetime);
    match (&object.issuer, &terms.issuer) {
        (None, None) => true,
        (there, wanted) => there == wanted && object.lifetime.as_ref().is_some_and(lifetime),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::signer::requests::tests::request;

    #[test]
    fn the_name_is_of_volume_and_key() {
        let one = request(1);
        let name_of_one = name(&one);
        assert_eq!(name_of_one.len(), 45);
        let hash = name_of_one.strip_prefix("svid-").unwrap();
        assert!(hash.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)));
        assert_eq!(name(&one), name_of_one);
        // Another volume, another key.
        let mut other = request(2);
        assert_ne!(name(&other), name_of_one);
        other.volume = one.volume.clone();
        assert_ne!(name(&other), name_of_one);
        other.csr = one.csr.clone();
        assert_eq!(name(&other), name_of_one);
    }

    #[test]
    fn only_what_the_pod_asked_for_is_said_to_be() {
        let mut wish = request(1);
        wish.ttl = Duration::from_secs(90);
        let keys = |draft: &NewRequest| draft.annotations.keys().cloned().collect::<Vec<_>>();
        let terms = Terms { lifetime: Duration::from_secs(600), issuer: None };
        let plain = draft(&wish, "svid-1", "node-uid", &terms);
        assert_eq!(
            keys(&plain),
            ["pod-name", "pod-namespace", "pod-uid"].map(|key| format!("csi.svid.dev/{key}"))
        );
        assert_eq!(plain.expiration_seconds, 600);
        assert!(plain.request.starts_with("-----BEGIN CERTIFICATE REQUEST-----"));
        wish.explicit_ttl = Some(Duration::from_secs(5400));
        wish.ttl = Duration::from_secs(5400);
        wish.explicit_key_algorithm = Some("ed25519".parse().unwrap());
        wish.dns_names = vec!["a.example".parse().unwrap(), "b.example".parse().unwrap()];
        let full = draft(&wish, "svid-1", "node-uid", &terms);
        for (key, value) in
            [("ttl", "1h30m"), ("key-algorithm", "ed25519"), ("dns-names", "a.example,b.example")]
        {
            assert_eq!(full.annotations[&format!("csi.svid.dev/{key}")], value);
        }
    }

    #[test]
    fn another_issuer_or_lifetime_is_told_apart() {
        let issuer: IssuerRef = "Issuer/a".parse().unwrap();
        let hour = Duration::from_secs(3600);
        let object = |lifetime: &str| OwnRequest {
            issuer: Some(issuer.clone()),
            lifetime: Some(lifetime.to_owned()),
            ..OwnRequest::default()
        };
        let terms = Terms { lifetime: hour, issuer: Some(issuer.clone()) };
        assert!(keeps_terms(&object("3600s"), &terms) && keeps_terms(&object("1h0m0s"), &terms));
        assert!(!keeps_terms(&object("1h1s"), &terms) && !keeps_terms(&object("x"), &terms));
        let other = Terms { lifetime: hour, issuer: "Issuer/b".parse().ok() };
        assert!(!keeps_terms(&object("1h"), &other));
        let neither = Terms { lifetime: hour, issuer: None };
        assert!(!keeps_terms(&object("1h"), &neither));
        assert!(keeps_terms(&OwnRequest::default(), &neither));
    }
}
