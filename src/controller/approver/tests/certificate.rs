//! CertificateRequests: the checks of a CSR, and that what policy gives stands in the request.

use super::{reasons::CASES as CSR_CASES, *};
use crate::k8s::IssuerRef;

/// What a node asks cert-manager for, in order.
pub(super) struct Asked {
    issuer: IssuerRef,
    is_default: bool,
    lifetime: Duration,
    world: World,
}

type Change = fn(&mut Asked);

impl Asked {
    fn of(change: impl FnOnce(&mut Self)) -> Self {
        let mut asked = Self {
            issuer: "ClusterIssuer/a".parse().unwrap(),
            is_default: true,
            lifetime: Duration::from_secs(3600),
            world: World::new(),
        };
        change(&mut asked);
        asked
    }

    /// As a pod that names it.
    fn chooses(&mut self, issuer: &str) {
        (self.issuer, self.is_default) = (issuer.parse().unwrap(), false);
    }

    fn spec(&mut self) -> &mut SvidPolicySpec {
        &mut self.world.policies[0].spec
    }

    fn decide(&self) -> Decision {
        let read = self.world.read();
        let asked = |wish| CertificateWish {
            wish,
            lifetime: self.lifetime,
            issuer: self.issuer.clone(),
            is_default: self.is_default,
        };
        let request = IdentityRequest {
            requester: read.requester,
            pod: read.pod,
            uses: read.uses,
            wish: read.wish.map(asked),
        };
        self.world.ask(&request, decide_certificate)
    }

    fn denied(&self) -> Denial {
        match self.decide() {
            Decision::Approve(grant) => panic!("{grant:?}"),
            Decision::Deny(denial) => denial,
        }
    }
}

pub(super) const CASES: &[(ReasonCode, &str, Change)] = &[
    (ReasonCode::IssuerNotAllowed, "the installation's and no other", |asked| {
        asked.chooses("ClusterIssuer/b");
    }),
    (ReasonCode::IssuerNotAllowed, "Issuer/a, ClusterIssuer.x.io/a", |asked| {
        // The same name is another issuer.
        asked.chooses("ClusterIssuer/a");
        asked.spec().issuers = ["Issuer/a", "ClusterIssuer.x.io/a"].map(str::to_owned).into();
    }),
    (ReasonCode::PolicyInvalid, "issuers", |asked| asked.spec().issuers = vec!["a".to_owned()]),
    (ReasonCode::LifetimeIs, "gives a lifetime of 30m; the request is for 1h", |asked| {
        asked.spec().x509.default_ttl = "30m".to_owned();
    }),
    (ReasonCode::LifetimeIs, "the request is for 59m59s", |asked| {
        asked.lifetime = Duration::from_secs(3599);
    }),
    (ReasonCode::LifetimeIs, "gives a lifetime of 10m", |asked| {
        asked.world.annotate(annotation::TTL, "10m");
        asked.world.request.expiration_seconds = Some(600);
    }),
    (ReasonCode::TtlNotAllowed, "allows 10s to 30m", |asked| {
        asked.world.annotate(annotation::TTL, "1h");
        asked.spec().x509.max_ttl = "30m".to_owned();
    }),
];

#[test]
fn what_the_request_says_is_what_policy_gives() {
    for (number, (reason, text, change)) in CASES.iter().enumerate() {
        let denial = Asked::of(change).denied();
        assert_eq!(denial.reason, *reason, "case {number}: {}", denial.message);
        assert!(denial.message.contains(text), "case {number}: {}", denial.message);
    }
    let told = Asked::of(|asked| asked.spec().x509.default_ttl = "30m".to_owned()).denied();
    assert_eq!(told.condition_message(), r#"{"ttlSeconds":1800}"#);
}

#[test]
fn the_installations_issuer_needs_no_policy_and_another_one_does() {
    assert!(matches!(Asked::of(|_| {}).decide(), Decision::Approve(_)));
    let chosen = Asked::of(|asked| {
        asked.chooses("Issuer/b");
        asked.spec().issuers = vec!["Issuer/b".to_owned()];
    });
    assert!(matches!(chosen.decide(), Decision::Approve(_)));
}

/// One policy over every way: what is denied to a CSR object is denied here for the same reason.
#[test]
fn a_certificate_request_gets_no_further_than_a_csr() {
    for (number, (reason, _, change)) in CSR_CASES.iter().enumerate() {
        let denial = Asked::of(|asked| change(&mut asked.world)).denied();
        assert_eq!(denial.reason, *reason, "case {number}: {}", denial.message);
    }
}
