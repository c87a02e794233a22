//! JWT-SVIDs: for a pod's own identity, for the audiences that policy allows.

use svid_csi::jose;
use svid_csi_proto::issuer::v1::{IssueJwtSvidRequest, JwtSvid, issue_jwt_svid_response::Answer};

use super::*;
use crate::controller::bundle;

fn asking(id: &str, audience: &[&str], pod_token: String) -> IssueJwtSvidRequest {
    let (message, _) = wish(ID, pod_token);
    IssueJwtSvidRequest {
        pod_token: message.pod_token,
        pod: message.pod,
        spiffe_id: id.to_owned(),
        audience: audience.iter().map(|one| (*one).to_owned()).collect(),
        ttl_seconds: 0,
        volume_id: message.volume_id,
    }
}

/// Asks until the policy has come and there is a key.
async fn issued(bench: &Bench, client: &Client, audience: &[&str]) -> JwtSvid {
    let mut last = String::new();
    for _ in 0..400 {
        match client.jwt(&bench.driver(), asking(ID, audience, bench.pod())).await {
            Ok(Some(Answer::Issued(issued))) => return issued,
            other => last = format!("{other:?}"),
        }
        sleep(Duration::from_millis(25)).await;
    }
    panic!("{last}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_gets_tokens_for_its_own_identity_and_for_what_policy_allows() {
    let bench = Bench::start().await;
    let client = bench.client().await;
    let policy = json!({
        "metadata": {"name": "default", "generation": 2},
        "spec": {"jwt": {"audiences": ["vault", "reports"]}},
    });
    bench.server.store.put("apis/svid.dev/v1alpha1/svidpolicies", policy);
    let issued = issued(&bench, &client, &["vault"]).await;
    let bundle = bundle(&bench.server.store);
    let of = |_: &_| Some(bundle.jwt_authorities().to_vec().into());
    let verified = jose::verify(&issued.token, "vault", of, now()).unwrap();
    assert_eq!(verified.id.as_str(), ID);
    assert!(jose::verify(&issued.token, "reports", of, now()).is_err());
    let decision = issued.decision.unwrap();
    assert_eq!((decision.policy.as_str(), decision.spiffe_id.as_str()), ("default", ID));

    let lines = bench.audited("sign");
    let line = lines.iter().find(|line| line["audience"] == json!(["vault"])).expect("its line");
    assert_eq!((&line["pod"], &line["spiffeId"]), (&json!("cart-0"), &json!(ID)));
    let secret = issued.token.rsplit('.').next().unwrap();
    assert!(lines.iter().all(|line| !line.to_string().contains(secret)));

    let elsewhere = tokens::claims("shop", ("cart", "s-1"), ("cart-0", "p-1"), ("node-2", "n-2"));
    let another = tokens::claims("shop", ("cart", "s-1"), ("cart-1", "p-2"), ("node-1", "n-1"));
    let token = |claims| bench.authority.token(&claims);
    for (message, reason) in [
        (asking("spiffe://example.org/ns/shop/sa/admin", &["vault"], bench.pod()), "OtherIdentity"),
        (asking("spiffe://example.org/svid.dev/controller", &["vault"], bench.pod()), "ReservedId"),
        (asking(ID, &["payments"], bench.pod()), "AudienceNotAllowed"),
        (asking(ID, &["vault", "payments"], bench.pod()), "AudienceNotAllowed"),
        (asking(ID, &[], bench.pod()), "MalformedAudience"),
        (asking(ID, &["vault"], token(elsewhere)), "PodTokenElsewhere"),
        (asking(ID, &["vault"], token(another)), "PodTokenMismatch"),
    ] {
        let answer = client.jwt(&bench.driver(), message).await.unwrap();
        let Some(Answer::Denied(denial)) = answer else { panic!("{reason}: {answer:?}") };
        assert_eq!(denial.reason, reason, "{}", denial.message);
    }
    for (driver, pod) in
        [(bench.pod(), bench.pod()), (bench.driver(), String::new()), (String::new(), bench.pod())]
    {
        let status = client.jwt(&driver, asking(ID, &["vault"], pod)).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::Unauthenticated, "{status}");
    }
}
