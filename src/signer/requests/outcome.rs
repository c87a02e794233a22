//! What has become of a request: a pure reading of the object.

use std::time::Duration;

use crate::{
    class::Class,
    k8s::{
        ApprovalMessage, IdentityIs, LifetimeIs, OwnRequest,
        names::{IDENTITY_IS_REASON, LIFETIME_IS_REASON},
    },
    pki::X509Svid,
    signer::{Assigned, SignError, told},
};

/// What a signed request says.
#[derive(Debug)]
pub(super) struct Signed {
    pub(super) svid: X509Svid,
    /// What was decided, where it can be read; the certificate is what counts.
    pub(super) approval: Option<ApprovalMessage>,
}

/// The end of a request; `None` while nothing is decided, or decided and not signed.
pub(super) fn outcome(request: &OwnRequest) -> Option<Result<Signed, SignError>> {
    if let Some(denied) = request.condition("Denied") {
        if denied.reason == IDENTITY_IS_REASON {
            return Some(Err(identity_is(&denied.message)));
        }
        let (reason, message) = (told::reason(&denied.reason), told::message(&denied.message));
        let message = format!("the controller denied it, {reason}: {message}");
        let error = SignError::new(Class::Denied, message);
        let other = (denied.reason == LIFETIME_IS_REASON)
            .then(|| serde_json::from_str::<LifetimeIs>(&denied.message).ok())
            .flatten();
        return Some(Err(match other {
            Some(LifetimeIs { ttl_seconds }) => {
                error.with_lifetime(Duration::from_secs(ttl_seconds))
            }
            None => error,
        }));
    }
    if let Some(failed) = request.condition("Failed") {
        // Policy changed between approval and signature.
        if failed.reason == IDENTITY_IS_REASON {
            return Some(Err(identity_is(&failed.message)));
        }
        let (reason, message) = (told::reason(&failed.reason), told::message(&failed.message));
        let message = format!("it could not be signed, {reason}: {message}");
        return Some(Err(SignError::new(Class::Internal, message)));
    }
    let approved = request.condition("Approved")?;
    let certificate = request.certificate.as_deref()?;
    let approval = serde_json::from_str(&approved.message).ok();
    let svid = std::str::from_utf8(certificate)
        .map_err(|error| error.to_string())
        .and_then(|pem| X509Svid::from_pem(pem).map_err(|error| error.to_string()));
    Some(svid.map(|svid| Signed { svid, approval }).map_err(|error| {
        let name = &request.name;
        let message = format!("the certificate of request {name} is not an SVID: {error}");
        SignError::new(Class::Internal, message)
    }))
}

fn identity_is(json: &str) -> SignError {
    match serde_json::from_str::<IdentityIs>(json) {
        Ok(IdentityIs { id, key_algorithm }) => {
            SignError::identity_is(Assigned { id, key_algorithm })
        }
        Err(error) => {
            let message = format!(
                "the controller's answer {IDENTITY_IS_REASON} can't be read: {error}; driver and \
                 controller should be of one version"
            );
            SignError::new(Class::Internal, message)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::{
        id::SpiffeId,
        k8s::ConditionFacts,
        pki::{Authority, Csr, KeyAlgorithm, PrivateKey},
    };

    fn request(conditions: &[(&str, &str, &str)], certificate: Option<&str>) -> OwnRequest {
        let conditions = conditions.iter().map(|(kind, reason, message)| ConditionFacts {
            kind: (*kind).to_owned(),
            reason: (*reason).to_owned(),
            message: (*message).to_owned(),
        });
        OwnRequest {
            name: "svid-1".to_owned(),
            uid: String::new(),
            request: Vec::new(),
            conditions: conditions.collect(),
            certificate: certificate.map(|text| text.as_bytes().to_vec()),
            ..OwnRequest::default()
        }
    }

    fn chain() -> String {
        let (domain, now) = ("example.org".parse().unwrap(), UNIX_EPOCH + HOUR * 500_000);
        let authority = Authority::create(&domain, KeyAlgorithm::EcdsaP256, HOUR * 9, now).unwrap();
        let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
        let id = SpiffeId::new(&domain, "/ns/shop/sa/cart").unwrap();
        let csr = Csr::create(&key, &id).unwrap();
        authority.issue(csr.public_key(), &id, &[], HOUR, now).unwrap().chain_pem()
    }

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn an_undecided_or_unsigned_request_has_no_end() {
        let chain = chain();
        assert!(outcome(&request(&[], None)).is_none());
        assert!(outcome(&request(&[("Approved", "SvidPolicy", "{}")], None)).is_none());
        // Whatever it is: nobody approved it.
        assert!(outcome(&request(&[], Some(&chain))).is_none());
        assert!(outcome(&request(&[("Other", "", "")], Some(&chain))).is_none());
    }

    #[test]
    fn a_signed_request_gives_its_svid_and_what_was_decided() {
        let chain = chain();
        let message = r#"{"policy":"default","id":"spiffe://example.org/ns/shop/sa/cart","ttlSeconds":60,"new":1}"#;
        for (message, policy) in [(message, Some("default")), ("by hand", None), ("", None)] {
            let signed = outcome(&request(&[("Approved", "x", message)], Some(&chain)));
            let signed = signed.unwrap().unwrap();
            assert_eq!(signed.svid.id().path(), "/ns/shop/sa/cart");
            assert_eq!(signed.approval.map(|approval| approval.policy).as_deref(), policy);
        }
    }

    /// Invariant 7: each failure says what it means.
    #[test]
    fn a_refusal_has_its_class_and_its_reason() {
        let chain = chain();
        for (conditions, class, part) in [
            (
                &[("Approved", "", ""), ("Denied", "PodNotFound", "no pod shop/cart")][..],
                Class::Denied,
                "PodNotFound: no pod shop/cart",
            ),
            (&[("Denied", "", "no\nway")], Class::Denied, "without a reason: no way"),
            (
                &[("Approved", "", ""), ("Failed", "PolicyChanged", "too late")],
                Class::Internal,
                "PolicyChanged: too late",
            ),
            (&[("Denied", "IdentityIs", "{}")], Class::Internal, "one version"),
            (
                &[("Denied", "IdentityIs", r#"{"id":"x","keyAlgorithm":"rsa-2048"}"#)],
                Class::Internal,
                "one version",
            ),
        ] {
            let error = outcome(&request(conditions, Some(&chain))).unwrap().unwrap_err();
            assert_eq!(error.class(), class);
            assert!(error.to_string().contains(part), "{error}");
            assert!(error.assigned().is_none());
        }
        let long = "x".repeat(100_000);
        let error = outcome(&request(&[("Denied", &long, &long)], None)).unwrap().unwrap_err();
        assert!(error.to_string().len() < 1300);
    }

    #[test]
    fn another_identity_is_told() {
        let json = r#"{"id":"spiffe://example.org/web","keyAlgorithm":"ecdsa-p384"}"#;
        for kind in ["Denied", "Failed"] {
            let conditions = [("Approved", "", ""), (kind, "IdentityIs", json)];
            let error = outcome(&request(&conditions, None)).unwrap().unwrap_err();
            let assigned = error.assigned().unwrap();
            assert_eq!(assigned.id.path(), "/web");
            assert_eq!(assigned.key_algorithm, KeyAlgorithm::EcdsaP384);
        }
    }

    #[test]
    fn a_certificate_that_is_none_is_an_error() {
        for bad in ["", "not PEM", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
        {
            let error = outcome(&request(&[("Approved", "", "")], Some(bad))).unwrap();
            assert_eq!(error.unwrap_err().class(), Class::Internal, "{bad}");
        }
    }
}
