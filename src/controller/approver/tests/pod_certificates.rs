//! PodCertificateRequests, read and decided.

use base64::{Engine, prelude::BASE64_STANDARD};
use k8s_openapi::api::core::v1::{
    PodCertificateProjection, PodSpec, ProjectedVolumeSource, Volume, VolumeProjection,
};

use super::*;
use crate::{
    controller::pod_certificates,
    k8s::{OfferedKey, PodCertificateFacts},
};

const POD_UID: &str = "8a5b0f5e-6a0d-4b8e-9a57-0d6f2c3b1a90";
// As Go makes them for a kubelet.
const P256: &str = concat!(
    "MIG5MGICAQAwADBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABLUT2H155naam8t6M6yQWz+Yd7ssAYxS9CJh",
    "+1MVg9Q6JXpe+Ulucvs5nlreIUG2Uw6u10xNl8pP3j0q/txLf/6gADAKBggqhkjOPQQDAgNHADBEAiBgN7g5",
    "d7wQE1reJKc6TVcWmw2L/zbgJYc0KwJfKTPQIAIgCLfj/fPYM0hHa0pikYhj3Ud88pBqEOH53W6Ny54pFIE=",
);
const P384: &str = concat!(
    "MIH4MH8CAQAwADB2MBAGByqGSM49AgEGBSuBBAAiA2IABJwXPqmVE8ETC59/h+J7CeC3AozEFSUat+zSmj17",
    "uRPq0TdjWx1FuKnDxx4ENq0sxeeQTG085CufJC4S4dlVNEUbb35e3lb6OZhp3wVGZKz3OgV4stZfu2Z4Yi0X",
    "fY6KP6AAMAoGCCqGSM49BAMDA2kAMGYCMQDauP0tm5PKFbQifvubiKgDHfYKI1tNi6ZEZMEv1PkmthNX70W5",
    "OFLyGZirvNXc8cwCMQC+RGOTtVzGWgo2L7cDcvXnVHpv57f8rsFvRUJJGxg7odfyqY5nxDm0bkNO5YUeLTs=",
);
const P521: &str = concat!(
    "MIIBQjCBpQIBADAAMIGbMBAGByqGSM49AgEGBSuBBAAjA4GGAAQAe1cBSwYVBe+O8iSElT3d+A3xAs7OG4iy",
    "UramaLdDTShZAsy0Qm5PPKSZNIYkQMU2zg3cXx43x3xTb4TSgu2Ny+4AfQ4KWJR/meD9Ng4rULG5TTmvc13H",
    "5+KTT6+9Dq6zOnDO4Cuhe852v+HSN9W186qmtde2u2iFDq7Y77mhjEK0kwagADAKBggqhkjOPQQDBAOBiwAw",
    "gYcCQToeP1R1wjR2H3aiAs5lcwpUba7lV8iNP+qXYuzDNwVOFzgdyr9Qow3MIMC5Lfu49LN/byx+uRpbeXE4",
    "JdDXbe4eAkIBNg0q2ORywuOr7cxFw+uDUlOQpd4CKdKkQRVBWSxAvicYmMl1JOGTyg0biVAu1mD1fcHi6AKi",
    "visJq+b08AaXQa8=",
);
const RSA3072: &str = concat!(
    "MIIDRTCCAa0CAQAwADCCAaIwDQYJKoZIhvcNAQEBBQADggGPADCCAYoCggGBALdoZ8MPzqCngcUvB3ypN0eE",
    "qVQzK6Rli8pqbskKkmpqvFYpKfVGpGXM2GBRNCyx0O3s90Y5cafMArDl7SIogKP+VWFGcVKS/EGQrT/Xdyct",
    "5C/HVlTQqSS/e6Ghedg31t/KT/oSnUFp2Ow8v9H0MAGZMpj07KfC/HXR1DBwsmoARrhj3qpVJb2/UryXTIOA",
    "PZKUlZMds6Lyx4lxzHv6nmZMdYg7aQ+iTGzV4iYWA9TY96rtM2giEfh6EBKqCtPxQM+iN8ahsYDKJsWvSeU0",
    "deOKL4EMstWXgwqQIDI9sSl4KSzHHebputgz2Myoe5md+HQpkCwH+9NZcsqrBCGriP0A6KoTBGHvUY7eekdb",
    "5afqePhc0ax6esCiCZiqHhIO46G8gYegOg/YTnMDyNgKUKivvzSq31dE55ivS6JjCXB8cLamJaYQBZXzcI59",
    "uXWa4BAMIG7Owf/qzmMcmuaVeAV+uTOoShje4sVYkNzpBf7odu3xF2qBNrJr4z92Aq42wwIDAQABoAAwDQYJ",
    "KoZIhvcNAQELBQADggGBABxuarcR0e7P7mX0/rW87G1ZaE/6fZbgj3VEe2SASZ6T6VAkJzFxGnhlI1F6uPAG",
    "n9NrtNi+CwnvMbYbfy+Wx3Ao5cv/ie1YF3tdZurURJL9M39rGIB3B4cIzMjJQnp9OByxbC7Y+r6SD8N9oFXJ",
    "u0jg1q45+n+NvyVuwjxmOooit42LzZGEAvkW7Yk8QwXKiE++0hjdALVfGBjVysbwdquPW3JQJyvIxZ2M+ENq",
    "kUyqi1Igc/OaOwo81z+8h+wr/TTz9clGo7aARbvn4BNPnGCm6Av8sw/+yr7+5toCANZK5XQ/tKn1wV0tI8OT",
    "oD+Wpuubvi6TFfKrjYL5nuqXr+KDQs/oOVDaOXYcBlbGT1yG4PM9Qsb5aZavmIchTF9IuU+qPkwzUA2KgOX9",
    "aSmqps+dSzLWKIhoj2MJJAqNaAVGoodkRkfloXb44I6beJ6/F58g4mRGVLpnGaulP1n3o/+95IiGkx6iJgSm",
    "NZHJ/C2LuftvPfKGXahzI8ZXFhYj9g==",
);
const WITH_SUBJECT: &str = concat!(
    "MIHHMG4CAQAwDDEKMAgGA1UEAxMBeDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABLUT2H155naam8t6M6yQ",
    "Wz+Yd7ssAYxS9CJh+1MVg9Q6JXpe+Ulucvs5nlreIUG2Uw6u10xNl8pP3j0q/txLf/6gADAKBggqhkjOPQQD",
    "AgNJADBGAiEAq+Oo4tYVD4JzRxcreMzJf8gBmjav6dRABp8IxT4CQj0CIQCfs6M1PPZgLxTZkoNd1oSR5pbq",
    "sNQQahWWwVSZdAYQ/g==",
);
const ED25519: &str = "MCowBQYDK2VwAyEAuTUzz0TV0JKZod647F7QtRhyIQWa4VFbx8v0DUXhtUA=";
const ED25519_PROOF: &str = concat!(
    "d9YaSm1+Yn2eOO5FlQ7RwCmXham8pFldV5higJCAw06Y9OxN5Lf0l4y/yBp4cETielj1xcp9189d5EePwsep",
    "AQ==",
);
const RSA4096: &str = concat!(
    "MIICIjANBgkqhkiG9w0BAQEFAAOCAg8AMIICCgKCAgEAxS63SSiOFtwG+MeWNOVFoPhiN71Apr6IL4bQDzgj",
    "Se5q5aidr5KHSEDDrQ0t2J8oWI85TvJS+MFu5wyhMdPxOeaeIZx3i4nRDcXpa9WS0B6a6DyXPkNo6/eOSTQW",
    "m4TQW3d8NPp0BpnWJmrLwydzZt59b0+3iP8ABJjj0+PIL5s5jnIAHjshLhggpZOF/uJafYovs28UPpj8r/IE",
    "ecrhgd/iTeje7LG5pc7PmeTjrMoV88/m6X5OQsgmGPI+WU/rcWBAFXevGRO+e8r7aH5SV68yLOp8GXAdSs3K",
    "vbYm3yuBE/ZGQuvlikrTNmTfKQiaNp/4bdn0cNkLHVf1j3eUQJsJcU7UZKF9MiRCyrIS/yhY0tJ104oQZcP7",
    "w8nOHySpm99rP4YMcQKw1sRPFBpX4hMsa3v23TGbMK+AWaV432CmS38FTezE/RaQ0sRcVMXUwDGJYSAdwSaG",
    "6/s+Cu1U3xOOJCMum59C9WM+NglF29Fa98WDRpaUo5bXZus8QDMgwo1uRQO/A9dcxVnfDu0k2UWcEkJVR5DG",
    "lPFzc0d8qFizBiFcPjJkQFGceYVZtxyw6HVw/HKh8NwQAh8wBNZP5ExDin04WZowLok8FELIGsXN5IUSbOp8",
    "f4r0PdApfIIEuuJ2PDt/zhoe4jYG4nTkh4enN2SDCwzFXOXQtu6fu+kCAwEAAQ==",
);

type Change = fn(&mut World, &mut PodCertificateFacts);

fn bytes(text: &str) -> Vec<u8> {
    BASE64_STANDARD.decode(text).unwrap()
}

fn stub(text: &str) -> OfferedKey {
    OfferedKey::StubRequest(bytes(text))
}

fn projecting(pod: &PodFacts, signer: &str) -> PodFacts {
    let certificate = PodCertificateProjection {
        signer_name: signer.to_owned(),
        key_type: "ECDSAP256".to_owned(),
        ..Default::default()
    };
    let source = VolumeProjection { pod_certificate: Some(certificate), ..Default::default() };
    let projected = ProjectedVolumeSource { sources: Some(vec![source]), ..Default::default() };
    let volume = Volume { name: "id".to_owned(), projected: Some(projected), ..Default::default() };
    let spec = PodSpec {
        node_name: Some(pod.node_name().to_owned()),
        service_account_name: Some(pod.service_account().to_owned()),
        volumes: Some(vec![volume]),
        ..Default::default()
    };
    PodFacts { spec: spec.into(), uid: POD_UID.to_owned(), ..pod.clone() }
}

/// Everything in order: the kubelet of node `a` asks for the pod `shop/web-0` there, which has no
/// volume of the driver.
fn decided(change: Change) -> Decision {
    let mut world = World::new();
    world.pod = world.pod.map(|pod| projecting(&pod, SIGNER));
    // No driver is needed.
    (world.driver_pod, world.driver_service_account) = (None, None);
    let mut request = PodCertificateFacts {
        name: ObjectName::new("shop", "req-x"),
        signer_name: SIGNER.to_owned(),
        pod_name: "web-0".to_owned(),
        pod_uid: POD_UID.to_owned(),
        service_account_name: "web".to_owned(),
        service_account_uid: "web-uid".to_owned(),
        node_name: "a".to_owned(),
        node_uid: "a-uid".to_owned(),
        max_expiration_seconds: Some(86_400),
        key: stub(P256),
        ..Default::default()
    };
    change(&mut world, &mut request);
    let request = pod_certificates::read(&request, &World::settings());
    world.ask(&request, decide)
}

fn granted(change: Change) -> Grant {
    match decided(change) {
        Decision::Approve(grant) => *grant,
        Decision::Deny(denial) => panic!("{denial:?}"),
    }
}

fn say(request: &mut PodCertificateFacts, key: &str, value: &str) {
    request.user_annotations.insert(key.to_owned(), value.to_owned());
}

#[test]
fn a_pod_gets_what_policy_gives_it() {
    let grant = granted(|_, _| {});
    assert_eq!((grant.id.as_str(), grant.ttl.as_secs()), (ID, 3600));
    assert_eq!(grant.public_key.algorithm(), Some(KeyAlgorithm::EcdsaP256));
    let older = granted(|_, request| {
        request.key = OfferedKey::Bare { spki: bytes(ED25519), proof: bytes(ED25519_PROOF) };
    });
    assert_eq!(older.public_key.algorithm(), Some(KeyAlgorithm::Ed25519));
    // The identity is not asked for, so none is wrong: also one that only policy can know.
    let other = granted(|world, _| {
        world.policies = vec![policy("p", |spec| spec.id = "/team/{service-account}".to_owned())];
    });
    assert_eq!(other.id.as_str(), "spiffe://example.org/team/web");
    // Any that the policy allows; the first is for those who ask for none.
    let allowed = granted(|world, request| {
        world.policies = vec![policy("p", |spec| {
            spec.x509.key_algorithms = vec!["ecdsa-p256".to_owned(), "ecdsa-p384".to_owned()];
        })];
        request.key = stub(P384);
    });
    assert_eq!(allowed.public_key.algorithm(), Some(KeyAlgorithm::EcdsaP384));
}

#[test]
fn a_lifetime_is_the_policys_within_what_the_api_carries() {
    for (default, max, asked, longest, given) in [
        ("1h", "24h", None, 86_400, Ok(3600)),
        ("10m", "24h", None, 86_400, Ok(3600)),
        ("12h", "24h", None, 86_400, Ok(43_200)),
        ("12h", "24h", None, 7200, Ok(7200)),
        ("10m", "1h", None, 3600, Ok(3600)),
        ("1h", "24h", Some("2h"), 86_400, Ok(7200)),
        ("1h", "24h", Some("2h"), 3600, Err("allows 1h to 1h")),
        ("1h", "24h", Some("10m"), 86_400, Err("allows 1h to 24h")),
        ("1h", "2h", Some("3h"), 86_400, Err("allows 1h to 2h")),
        ("1h", "59m59s", None, 86_400, Err("lives 1h at least")),
        ("5m", "10m", Some("5m"), 86_400, Err("lives 1h at least")),
    ] {
        let mut world = World::new();
        world.pod = world.pod.map(|pod| projecting(&pod, SIGNER));
        world.policies = vec![policy("p", |spec| {
            spec.x509.default_ttl = default.to_owned();
            spec.x509.max_ttl = max.to_owned();
        })];
        let mut wish = Wish::of_key(csr_key()).unwrap();
        wish.explicit_key = true;
        wish.carried = Duration::from_secs(3600)..=Duration::from_secs(longest);
        wish.ttl = asked.map(|text| crate::volume::duration::parse(text).unwrap());
        let mut request = world.read();
        request.pod.as_mut().unwrap().uid = POD_UID.to_owned();
        request.uses = Uses::PodCertificate;
        request.wish = Ok(wish);
        let row = format!("{default} {max} {asked:?} {longest}");
        match (world.ask(&request, decide), given) {
            (Decision::Approve(grant), Ok(seconds)) => {
                assert_eq!(grant.ttl.as_secs(), seconds, "{row}")
            }
            (Decision::Deny(denial), Err(words)) => {
                assert_eq!(denial.reason, ReasonCode::TtlNotAllowed, "{row}");
                assert!(denial.message.contains(words), "{row}: {}", denial.message);
            }
            (decision, _) => panic!("{row}: {decision:?}"),
        }
    }
}

fn csr_key() -> PublicKey {
    PublicKey::of_stub_request(&bytes(P256)).unwrap()
}

/// Each of these alone is denied, for this reason and with these words.
const DENIALS: &[(ReasonCode, &str, Change)] = &[
    (ReasonCode::WrongSigner, "example.org/other", |_, r| {
        r.signer_name = "example.org/other".to_owned();
    }),
    (ReasonCode::NodeMissing, "b does not exist", |_, r| r.node_name = "b".to_owned()),
    (ReasonCode::NodeMissing, "a does not exist", |w, _| w.driver_node = None),
    (ReasonCode::NodeReplaced, "a-uid", |_, r| r.node_uid = "other".to_owned()),
    (ReasonCode::PodMissing, "shop/web-1", |_, r| r.pod_name = "web-1".to_owned()),
    (ReasonCode::PodMissing, "bank/web-0", |_, r| r.name.namespace = "bank".to_owned()),
    (ReasonCode::PodReplaced, "other", |_, r| r.pod_uid = "other".to_owned()),
    (ReasonCode::PodElsewhere, "its own pods only", |w, _| {
        let pod = pod("shop", "web-0", "b", "web");
        w.pod = Some(projecting(&pod, SIGNER));
    }),
    (ReasonCode::MirrorPod, "mirror", |w, _| w.pod.as_mut().unwrap().mirror = true),
    (ReasonCode::PodWithoutProjection, "svid.dev/workload", |w, _| {
        let pod = pod("shop", "web-0", "a", "web");
        w.pod = Some(projecting(&pod, "example.org/other"));
    }),
    // A volume of the driver is not enough.
    (ReasonCode::PodWithoutProjection, "svid.dev/workload", |w, _| {
        w.pod = Some(PodFacts { uid: POD_UID.to_owned(), ..pod("shop", "web-0", "a", "web") });
    }),
    (ReasonCode::PodFinished, "Succeeded", |w, _| {
        w.pod.as_mut().unwrap().phase = "Succeeded".to_owned();
    }),
    (ReasonCode::PodDeleted, "minute", |w, _| {
        w.pod.as_mut().unwrap().deletion_timestamp = Some(w.now - Duration::from_secs(61));
    }),
    (ReasonCode::ServiceAccountMissing, "shop/web", |w, _| w.service_account = None),
    (ReasonCode::ServiceAccountReplaced, "is for admin", |_, r| {
        r.service_account_name = "admin".to_owned();
    }),
    (ReasonCode::ServiceAccountReplaced, "web-uid", |_, r| {
        r.service_account_uid = "an-earlier-one".to_owned();
    }),
    (ReasonCode::NamespaceMissing, "shop", |w, _| w.namespace = None),
    (ReasonCode::UnknownAnnotation, "spiffe-id", |_, r| say(r, "csi.svid.dev/spiffe-id", "/x")),
    (ReasonCode::UnknownAnnotation, "example.org/a", |_, r| say(r, "example.org/a", "")),
    (ReasonCode::MalformedCsr, "stubPKCS10Request", |_, r| r.key = OfferedKey::Unreadable),
    (ReasonCode::MalformedCsr, "PKCS#10", |_, r| r.key = OfferedKey::StubRequest(vec![0; 9])),
    (ReasonCode::BadSignature, "signature", |_, r| {
        let mut bytes = bytes(P256);
        bytes[20] ^= 1;
        r.key = OfferedKey::StubRequest(bytes);
    }),
    // Another pod's proof.
    (ReasonCode::BadSignature, "signature", |w, r| {
        r.key = OfferedKey::Bare { spki: bytes(ED25519), proof: bytes(ED25519_PROOF) };
        r.pod_uid = "another".to_owned();
        w.pod.as_mut().unwrap().uid = "another".to_owned();
    }),
    (ReasonCode::ForbiddenAttribute, "must be empty", |_, r| r.key = stub(WITH_SUBJECT)),
    (ReasonCode::WeakKey, "use one of ecdsa-p256", |_, r| r.key = stub(P521)),
    (ReasonCode::WeakKey, "use one of ecdsa-p256", |_, r| r.key = stub(RSA3072)),
    (ReasonCode::WeakKey, "ECDSAP256", |_, r| {
        r.key = OfferedKey::Bare { spki: bytes(RSA4096), proof: vec![1; 512] };
    }),
    (ReasonCode::WrongExpiration, "3600 at least", |_, r| r.max_expiration_seconds = None),
    (ReasonCode::WrongExpiration, "3600 at least", |_, r| r.max_expiration_seconds = Some(3599)),
    (ReasonCode::MalformedTtl, "1 day", |_, r| say(r, "csi.svid.dev/ttl", "1 day")),
    (ReasonCode::MalformedDnsNames, "twice", |_, r| {
        say(r, "csi.svid.dev/dns-names", "a.example, a.example");
    }),
    (ReasonCode::NoPolicy, "shop/web-0", |w, _| w.policies.clear()),
    (ReasonCode::DnsNameNotAllowed, "a.example", |_, r| {
        say(r, "csi.svid.dev/dns-names", "a.example");
    }),
    (ReasonCode::KeyAlgorithmNotAllowed, "allows ed25519", |w, _| {
        w.policies = vec![policy("p", |spec| {
            spec.x509.key_algorithms = vec!["ed25519".to_owned()];
        })];
    }),
];

/// Invariant 5: a node reaches no further than its pods, in this way either.
#[test]
fn each_fault_alone_is_denied() {
    for (at, (reason, words, change)) in DENIALS.iter().enumerate() {
        match decided(*change) {
            Decision::Deny(denial) => {
                assert_eq!(denial.reason, *reason, "row {at}: {}", denial.message);
                assert!(denial.message.contains(words), "row {at}: {}", denial.message);
            }
            Decision::Approve(grant) => panic!("row {at}, {reason:?}: {grant:?}"),
        }
    }
}
