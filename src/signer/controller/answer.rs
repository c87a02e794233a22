//! What the controller answers: a pure reading of its messages.

use svid_csi_proto::issuer::v1::{
    self as proto, issue_jwt_svid_response, issue_x509_svid_response,
};

use crate::{
    class::Class,
    jose::JwtSvid,
    pki::{Certificate, X509Svid},
    signer::{Assigned, SignError, told},
};

/// More certificates than a chain has.
const MAX_CHAIN: usize = 10;

/// The SVID, or why there is none.
pub(super) fn x509(response: proto::IssueX509SvidResponse) -> Result<X509Svid, SignError> {
    use issue_x509_svid_response::Answer;
    let issued = match response.answer {
        Some(Answer::Issued(issued)) => issued,
        Some(Answer::Denied(denial)) => return Err(denied(&denial)),
        None => return Err(unreadable("it is empty")),
    };
    if issued.certificates.len() > MAX_CHAIN {
        return Err(unreadable("its chain is too long"));
    }
    let read = issued.certificates.iter().map(|der| Certificate::from_der(der));
    let chain = read.collect::<Result<Vec<_>, _>>();
    let svid = chain
        .map_err(|error| unreadable(&error.to_string()))
        .and_then(|chain| X509Svid::from_chain(chain).map_err(|it| unreadable(&it.to_string())))?;
    let policy = issued.decision.map(|decision| decision.policy).unwrap_or_default();
    tracing::debug!(spiffe_id = %svid.id(), policy, "the controller signed");
    Ok(svid)
}

/// The JWT-SVID, or why there is none.
pub(super) fn jwt(response: proto::IssueJwtSvidResponse) -> Result<JwtSvid, SignError> {
    use issue_jwt_svid_response::Answer;
    match response.answer {
        Some(Answer::Issued(issued)) => {
            let token = zeroize::Zeroizing::new(issued.token);
            JwtSvid::parse(&token).map_err(|error| unreadable(&error.to_string()))
        }
        Some(Answer::Denied(denial)) => Err(denied(&denial)),
        None => Err(unreadable("it is empty")),
    }
}

fn denied(denial: &proto::Denial) -> SignError {
    if let Some(proto::IdentityIs { spiffe_id, key_algorithm }) = &denial.identity_is {
        return match (spiffe_id.parse(), key_algorithm.parse()) {
            (Ok(id), Ok(key_algorithm)) => SignError::identity_is(Assigned { id, key_algorithm }),
            (Err(error), _) => unreadable(&error.to_string()),
            (_, Err(error)) => unreadable(&error.to_string()),
        };
    }
    let (reason, message) = (told::reason(&denial.reason), told::message(&denial.message));
    SignError::new(Class::Denied, format!("the controller denied it, {reason}: {message}"))
}

fn unreadable(reason: &str) -> SignError {
    let message = format!(
        "the controller's answer can't be used: {reason}; driver and controller should be of one \
         version"
    );
    SignError::new(Class::Internal, message)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::{
        id::SpiffeId,
        jose::{JwtClaims, JwtKey, JwtKeyAlgorithm},
        pki::{Authority, Csr, KeyAlgorithm, PrivateKey},
    };

    const HOUR: Duration = Duration::from_secs(3600);

    fn id() -> SpiffeId {
        "spiffe://example.org/ns/shop/sa/cart".parse().unwrap()
    }

    fn issued(certificates: Vec<Vec<u8>>) -> proto::IssueX509SvidResponse {
        let certificates = certificates.into_iter().map(Into::into).collect();
        let issued = proto::X509Svid { certificates, decision: None };
        let answer = Some(issue_x509_svid_response::Answer::Issued(issued));
        proto::IssueX509SvidResponse { answer }
    }

    fn denial(denial: proto::Denial) -> SignError {
        let answer = Some(issue_x509_svid_response::Answer::Denied(denial.clone()));
        let x509 = x509(proto::IssueX509SvidResponse { answer }).unwrap_err();
        let answer = Some(issue_jwt_svid_response::Answer::Denied(denial));
        let jwt = jwt(proto::IssueJwtSvidResponse { answer }).unwrap_err();
        assert_eq!(x509.to_string(), jwt.to_string());
        x509
    }

    #[test]
    fn what_was_signed_is_read() {
        let (domain, now) = ("example.org".parse().unwrap(), UNIX_EPOCH + HOUR * 500_000);
        let authority = Authority::create(&domain, KeyAlgorithm::EcdsaP256, HOUR * 9, now).unwrap();
        let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
        let csr = Csr::create(&key, &id()).unwrap();
        let svid = authority.issue(csr.public_key(), &id(), &[], HOUR, now).unwrap();
        let chain: Vec<Vec<u8>> = svid.chain().iter().map(|it| it.der().to_vec()).collect();
        assert_eq!(x509(issued(chain.clone())).unwrap(), svid);
        for bad in [vec![], vec![vec![]], vec![b"no DER".to_vec()], vec![chain[0].clone(); 11]] {
            assert_eq!(x509(issued(bad)).unwrap_err().class(), Class::Internal);
        }
        let empty = proto::IssueX509SvidResponse { answer: None };
        assert_eq!(x509(empty).unwrap_err().class(), Class::Internal);

        let key = JwtKey::generate(JwtKeyAlgorithm::Es256).unwrap();
        let claims = JwtClaims {
            id: id(),
            audience: vec!["db".to_owned()],
            issued_at: now,
            expires_at: now + HOUR,
            issuer: None,
            jti: false,
            extra: Default::default(),
        };
        let token = key.sign(&claims).unwrap().token().to_owned();
        let answer = |token: &str| proto::IssueJwtSvidResponse {
            answer: Some(issue_jwt_svid_response::Answer::Issued(proto::JwtSvid {
                token: token.to_owned(),
                decision: None,
            })),
        };
        assert_eq!(jwt(answer(&token)).unwrap().token(), token);
        let error = jwt(answer("c2VjcmV0.c2VjcmV0.c2VjcmV0")).unwrap_err();
        assert!(error.class() == Class::Internal && !error.to_string().contains("c2Vj"), "{error}");
    }

    /// Invariant 7: each refusal says what it means, in bounds.
    #[test]
    fn a_denial_has_its_reason_or_what_to_ask_for_instead() {
        let (reason, message) = ("PodNotFound".to_owned(), "no pod\nshop/cart".to_owned());
        let error = denial(proto::Denial { reason, message, identity_is: None });
        assert_eq!(error.class(), Class::Denied);
        assert!(error.to_string().contains("PodNotFound: no pod shop/cart"), "{error}");
        let long = "x".repeat(100_000);
        let error =
            denial(proto::Denial { reason: long.clone(), message: long, identity_is: None });
        assert!(error.to_string().len() < 1300);
        let other = |spiffe_id: &str, key_algorithm: &str| proto::Denial {
            identity_is: Some(proto::IdentityIs {
                spiffe_id: spiffe_id.to_owned(),
                key_algorithm: key_algorithm.to_owned(),
            }),
            ..proto::Denial::default()
        };
        let error = denial(other("spiffe://example.org/web", "ecdsa-p384"));
        let assigned = error.assigned().unwrap();
        assert_eq!(assigned.id.path(), "/web");
        assert_eq!(assigned.key_algorithm, KeyAlgorithm::EcdsaP384);
        for (id, algorithm) in [("x", "ecdsa-p384"), ("spiffe://example.org/web", "md5")] {
            let error = denial(other(id, algorithm));
            assert_eq!(error.class(), Class::Internal, "{error}");
        }
    }
}
