//! JWT-SVIDs: the checks of X.509 and their own.

use super::{reasons::CASES as X509_CASES, *};
use crate::volume::MAX_AUDIENCES;

const API: &str = "https://api.example.org";

/// What a node asks for, and a policy that would allow it.
pub(super) struct Jwt {
    id: String,
    audience: Vec<String>,
    ttl: Option<Duration>,
    world: World,
}

type Change = fn(&mut Jwt);

impl Jwt {
    fn new() -> Self {
        let mut world = World::new();
        world.policies[0].spec.jwt.audiences = vec![API.to_owned(), "vault".to_owned()];
        Self { id: ID.to_owned(), audience: vec![API.to_owned()], ttl: None, world }
    }

    fn of(change: impl FnOnce(&mut Self)) -> Self {
        let mut jwt = Self::new();
        change(&mut jwt);
        jwt
    }

    fn spec(&mut self) -> &mut SvidPolicySpec {
        &mut self.world.policies[0].spec
    }

    fn decide(&self) -> Decision<JwtGrant> {
        let own = World::settings().trust_domain;
        let read = self.world.read();
        let request = IdentityRequest {
            requester: read.requester,
            pod: read.pod,
            uses: read.uses,
            wish: JwtWish::new(&self.id, self.audience.clone(), self.ttl, &own),
        };
        self.world.ask(&request, decide_jwt)
    }

    fn granted(&self) -> JwtGrant {
        match self.decide() {
            Decision::Approve(grant) => *grant,
            Decision::Deny(denial) => panic!("{denial:?}"),
        }
    }

    fn denied(&self) -> Denial {
        match self.decide() {
            Decision::Approve(grant) => panic!("{grant:?}"),
            Decision::Deny(denial) => denial,
        }
    }
}

pub(super) const CASES: &[(ReasonCode, &str, Change)] = &[
    (ReasonCode::NotASpiffeId, "", |jwt| jwt.id = "https://example.org/a".to_owned()),
    (ReasonCode::ForeignTrustDomain, "other.org", |jwt| {
        jwt.id = "spiffe://other.org/ns/shop/sa/web".to_owned();
    }),
    (ReasonCode::ReservedId, "reserved", |jwt| {
        jwt.id = "spiffe://example.org/svid.dev/controller".to_owned();
    }),
    (ReasonCode::MalformedAudience, "at least one", |jwt| jwt.audience.clear()),
    (ReasonCode::MalformedAudience, "empty", |jwt| jwt.audience = vec![String::new()]),
    (ReasonCode::MalformedAudience, "at most", |jwt| {
        jwt.audience = (0..=MAX_AUDIENCES).map(|n| n.to_string()).collect();
    }),
    (ReasonCode::MalformedAudience, "bytes", |jwt| jwt.audience = vec!["x".repeat(5_000)]),
    (ReasonCode::NoPolicy, "no SvidPolicy", |jwt| jwt.world.policies.clear()),
    (ReasonCode::PolicyInvalid, "stands alone", |jwt| {
        jwt.spec().jwt.audiences = vec!["*".to_owned(), API.to_owned()];
    }),
    (ReasonCode::PolicyInvalid, "an audience is empty", |jwt| {
        jwt.spec().jwt.audiences = vec![String::new()];
    }),
    (ReasonCode::PolicyInvalid, "jwt.maxTTL", |jwt| jwt.spec().jwt.max_ttl = "25h".to_owned()),
    (ReasonCode::PolicyInvalid, "unknown variable", |jwt| {
        jwt.spec().jwt.claims = strings([("team", "{pod-label:team}")]);
    }),
    (ReasonCode::PolicyInvalid, "not a policy's to set", |jwt| {
        jwt.spec().jwt.claims = strings([("sub", "spiffe://example.org/admin")]);
    }),
    (ReasonCode::NoIdentity, "no label", |jwt| {
        jwt.spec().id = "/{namespace-label:no}".to_owned();
    }),
    (ReasonCode::OtherIdentity, "gives this pod spiffe://example.org/ns/shop/sa/web", |jwt| {
        jwt.id = "spiffe://example.org/ns/shop/sa/admin".to_owned();
    }),
    (ReasonCode::AudienceNotAllowed, "spec.jwt.audiences, or [\"*\"] for any", |jwt| {
        jwt.spec().jwt.audiences.clear();
    }),
    (ReasonCode::AudienceNotAllowed, "\"https://other.org\"; the policy default allows", |jwt| {
        jwt.audience = vec![API.to_owned(), "https://other.org".to_owned()];
    }),
    // No patterns: neither the node's word nor the policy's is one.
    (ReasonCode::AudienceNotAllowed, "to the letter", |jwt| jwt.audience = vec!["*".to_owned()]),
    (ReasonCode::AudienceNotAllowed, "to the letter", |jwt| {
        jwt.spec().jwt.audiences = vec!["https://*".to_owned()];
    }),
    (ReasonCode::AudienceNotAllowed, "to the letter", |jwt| {
        jwt.audience = vec![API.to_uppercase()]
    }),
    (ReasonCode::TtlNotAllowed, "allows 10s to 5m", |jwt| {
        jwt.ttl = Some(Duration::from_secs(9));
    }),
    (ReasonCode::NoClaim, "no claim team", |jwt| {
        jwt.spec().jwt.claims = strings([("team", "{namespace-label:no}")]);
    }),
    (ReasonCode::RuleNotMet, "the-rule", |jwt| {
        jwt.spec().rules = vec![PolicyRule {
            name: "the-rule".to_owned(),
            expression: "request.audience.all(a, a != 'https://api.example.org')".to_owned(),
            message: String::new(),
        }];
    }),
];

#[test]
fn each_check_of_a_jwt_alone_is_enough_to_deny() {
    for (number, (reason, text, change)) in CASES.iter().enumerate() {
        let denial = Jwt::of(change).denied();
        assert_eq!(denial.reason, *reason, "case {number}: {}", denial.message);
        assert!(denial.message.contains(text), "case {number}: {}", denial.message);
        assert!(denial.message.len() < 600, "case {number}: {}", denial.message);
    }
}

/// Invariant 5: who asks and for whom is checked for a JWT-SVID as for a certificate.
#[test]
fn whoever_gets_no_certificate_gets_no_token() {
    let of_pod = |reason: &ReasonCode| *reason < ReasonCode::UnknownAnnotation;
    for (reason, _, change) in X509_CASES.iter().filter(|(reason, ..)| of_pod(reason)) {
        let denial = Jwt::of(|jwt| change(&mut jwt.world)).denied();
        assert_eq!(denial.reason, *reason, "{}", denial.message);
    }
}

#[test]
fn what_is_in_order_is_granted() {
    let grant = Jwt::new().granted();
    assert_eq!((grant.policy.as_str(), grant.id.as_str()), ("default", ID));
    assert_eq!((grant.audience, grant.ttl), (vec![API.to_owned()], Duration::from_secs(300)));
    assert!(grant.claims.is_empty());

    let grant = Jwt::of(|jwt| {
        let vault = "vault".to_owned();
        jwt.audience = vec![vault.clone(), API.to_owned(), vault];
        jwt.spec().jwt.claims =
            strings([("https://example.org/team", "{namespace-label:team}-{pod-name}")]);
    })
    .granted();
    assert_eq!(grant.audience, [API, "vault"], "each once");
    assert_eq!(grant.claims, strings([("https://example.org/team", "red-web-0")]));

    let any = Jwt::of(|jwt| {
        jwt.spec().jwt.audiences = vec!["*".to_owned()];
        jwt.audience = vec!["whatever".to_owned()];
    });
    assert_eq!(any.granted().audience, ["whatever"]);
}

/// The node cannot know the policy: what it wants is a bound.
#[test]
fn a_token_lives_as_long_as_policy_and_wish_both_allow_and_an_hour_at_most() {
    for (max, wanted, given) in [
        ("5m", None, 300),
        ("5m", Some(3600), 300),
        ("5m", Some(60), 60),
        ("24h", Some(86_400), 3600),
        ("24h", None, 3600),
        ("10s", None, 10),
    ] {
        let grant = Jwt::of(|jwt| {
            jwt.spec().jwt.max_ttl = max.to_owned();
            jwt.ttl = wanted.map(Duration::from_secs);
        })
        .granted();
        assert_eq!(grant.ttl, Duration::from_secs(given), "{max} {wanted:?}");
    }
}

#[test]
fn claims_that_say_what_a_token_is_are_nobodys_to_choose() {
    for name in [
        "iss",
        "sub",
        "Sub",
        "aud",
        "exp",
        "nbf",
        "iat",
        "jti",
        "cnf",
        "act",
        "may_act",
        "spiffe_id",
        "",
        "a b",
        "ä",
        "x\"y",
    ] {
        let denial = Jwt::of(|jwt| jwt.spec().jwt.claims = strings([(name, "x")])).denied();
        assert_eq!(denial.reason, ReasonCode::PolicyInvalid, "{name}");
    }
    let many = (0..17).map(|n| (format!("c{n}"), "x".to_owned())).collect();
    let denial = Jwt::of(|jwt| jwt.spec().jwt.claims = many).denied();
    assert!(denial.message.contains("more than 16 claims"), "{}", denial.message);
}

/// Rules see a certificate's request with no audience, and a token's with no key.
#[test]
fn a_rule_can_tell_a_token_from_a_certificate() {
    let rule = |expression: &str| PolicyRule {
        name: "r".to_owned(),
        expression: expression.to_owned(),
        message: String::new(),
    };
    let certificates = rule("request.audience == [] && request.keyAlgorithm == 'ecdsa-p256'");
    let tokens = rule(
        "request.audience == ['https://api.example.org'] && request.keyAlgorithm == '' && request.dnsNames == [] && request.ttl == 300",
    );
    let with = |rule: &PolicyRule| Jwt::of(|jwt| jwt.spec().rules = vec![rule.clone()]);
    with(&certificates).world.granted();
    assert_eq!(with(&certificates).denied().reason, ReasonCode::RuleNotMet);
    with(&tokens).granted();
    assert_eq!(with(&tokens).world.denied().reason, ReasonCode::RuleNotMet);
}
