//! The object that a request becomes.

use std::{collections::BTreeMap, fmt::Write};

use aws_lc_rs::digest::{Context, SHA256};

use crate::{
    k8s::{
        NewRequest, OwnRequest,
        names::{MIN_EXPIRATION_SECONDS, REQUEST_PREFIX, annotation},
    },
    pki::Csr,
    signer::SignRequest,
    volume::duration,
};

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
pub(super) fn draft(request: &SignRequest, name: &str, node_uid: &str) -> NewRequest {
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
        expiration_seconds: request.ttl.as_secs().max(MIN_EXPIRATION_SECONDS),
        annotations,
    }
}

/// Whether an object of the right name asks for what this request does. One from before a restart
/// may ask for another identity.
pub(super) fn asks_for(object: &OwnRequest, request: &SignRequest) -> bool {
    let pem = std::str::from_utf8(&object.request).ok();
    let csr = pem.and_then(|pem| Csr::from_pem(pem).ok());
    csr.is_some_and(|csr| csr.id() == &request.id && csr.spki_der() == request.csr.spki_der())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::signer::csr::tests::request;

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
        let plain = draft(&wish, "svid-1", "node-uid");
        assert_eq!(
            keys(&plain),
            ["pod-name", "pod-namespace", "pod-uid"].map(|key| format!("csi.svid.dev/{key}"))
        );
        // The API server takes no less.
        assert_eq!(plain.expiration_seconds, 600);
        assert!(plain.request.starts_with("-----BEGIN CERTIFICATE REQUEST-----"));
        wish.explicit_ttl = Some(Duration::from_secs(5400));
        wish.ttl = Duration::from_secs(5400);
        wish.explicit_key_algorithm = Some("ed25519".parse().unwrap());
        wish.dns_names = vec!["a.example".parse().unwrap(), "b.example".parse().unwrap()];
        let full = draft(&wish, "svid-1", "node-uid");
        assert_eq!(full.expiration_seconds, 5400);
        for (key, value) in
            [("ttl", "1h30m"), ("key-algorithm", "ed25519"), ("dns-names", "a.example,b.example")]
        {
            assert_eq!(full.annotations[&format!("csi.svid.dev/{key}")], value);
        }
    }

    #[test]
    fn an_object_for_another_identity_is_told_apart() {
        let wish = request(1);
        let object = |pem: String| OwnRequest { request: pem.into_bytes(), ..Default::default() };
        assert!(asks_for(&object(wish.csr.to_pem()), &wish));
        assert!(!asks_for(&object(request(1).csr.to_pem()), &wish), "another key");
        assert!(!asks_for(&object(String::new()), &wish));
        let mut other = request(1);
        other.csr = wish.csr.clone();
        other.id = "spiffe://example.org/other".parse().unwrap();
        assert!(!asks_for(&object(wish.csr.to_pem()), &other), "another identity");
    }
}
