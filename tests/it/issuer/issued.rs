//! What a node gets, and what it costs the API server: nothing.

use svid_csi::pki::{Certificate, X509Svid};
use svid_csi_proto::issuer::v1::issue_x509_svid_response::Answer;

use super::*;
use crate::controller::bundle;

fn svid(answer: Option<Answer>) -> X509Svid {
    let Some(Answer::Issued(issued)) = answer else { panic!("not issued: {answer:?}") };
    let read = |der: &axum::body::Bytes| Certificate::from_der(der).unwrap();
    X509Svid::from_chain(issued.certificates.iter().map(read).collect()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_gets_its_svid_and_the_api_server_hears_nothing_of_it() {
    let bench = Bench::start().await;
    let client = bench.client().await;
    let driver = bench.driver();
    let (message, key) = wish(ID, bench.pod());
    let answer = client.x509(&driver, message).await.unwrap().answer;
    let svid = svid(answer);
    svid.verify(&ID.parse().unwrap(), key.spki_der(), &bundle(&bench.server.store), now()).unwrap();

    // It was written down before it left.
    let lines = bench.audited("sign");
    let line = lines.iter().find(|line| line["serial"] == svid.serial_hex()).expect("its line");
    for (field, value) in [
        ("requester", "system:serviceaccount:svid-csi:svid-csi"),
        ("node", "node-1"),
        ("nodeUid", "n-1"),
        ("driverPod", "driver-1"),
        ("podNamespace", "shop"),
        ("pod", "cart-0"),
        ("podUid", "p-1"),
        ("serviceAccount", "cart"),
        ("spiffeId", ID),
        ("policy", "default"),
        ("request", "csi-0"),
        ("way", "svid.issuer.v1"),
    ] {
        assert_eq!(line[field], value, "{field}");
    }

    // No call for any certificate, though each pod's token is one never seen before.
    let before = bench.server.store.calls().len();
    for number in 0..200 {
        let mut claims = cart();
        claims["jti"] = json!(format!("{number}"));
        let (message, _) = wish(ID, bench.authority.token(&claims));
        super::issued::svid(client.x509(&driver, message).await.unwrap().answer);
    }
    let calls = bench.server.store.calls().split_off(before);
    let background =
        ["/openid", "/.well-known", "/leases", "/secrets", "/configmaps", "/svidpolicies"];
    let of_requests: Vec<_> =
        calls.iter().filter(|call| !background.iter().any(|part| call.contains(part))).collect();
    assert!(of_requests.is_empty(), "{of_requests:?}");
    assert_eq!(bench.metric("svid_csi_controller_live_reads_total").await, 0.0);
    let memory = r#"svid_csi_controller_token_verifications_total{way="memory",result="good"}"#;
    let keys = r#"svid_csi_controller_token_verifications_total{way="keys",result="good"}"#;
    assert_eq!(bench.metric(memory).await, 200.0, "the driver's");
    assert_eq!(bench.metric(keys).await, 202.0);
    let signed = r#"svid_csi_controller_decisions_total{decision="sign",reason="SvidPolicy"}"#;
    assert_eq!(bench.metric(signed).await, 201.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_policy_gives_otherwise_is_told_and_then_given() {
    let bench = Bench::start().await;
    let client = bench.client().await;
    let policy = json!({
        "metadata": {"name": "shop", "generation": 1},
        "spec": {"priority": 5, "id": "/shop/{service-account}", "x509": {"keyAlgorithms": ["ecdsa-p384"]}},
    });
    bench.server.store.put("apis/svid.dev/v1alpha1/svidpolicies", policy);
    let denial = loop {
        let (message, _) = wish(ID, bench.pod());
        match client.x509(&bench.driver(), message).await.unwrap().answer {
            Some(Answer::Denied(denial)) => break denial,
            // The policy is on its way.
            _ => sleep(Duration::from_millis(20)).await,
        }
    };
    assert_eq!(denial.reason, "IdentityIs");
    let is = denial.identity_is.unwrap();
    assert_eq!(
        (is.spiffe_id.as_str(), is.key_algorithm.as_str()),
        ("spiffe://example.org/shop/cart", "ecdsa-p384")
    );
    assert_eq!(bench.audited("deny")[0]["reason"], "IdentityIs");
    let key = PrivateKey::generate(KeyAlgorithm::EcdsaP384).unwrap();
    let csr = Csr::create(&key, &is.spiffe_id.parse().unwrap()).unwrap();
    let (mut message, _) = wish(ID, bench.pod());
    message.csr = csr.der().to_vec().into();
    let found = svid(client.x509(&bench.driver(), message).await.unwrap().answer);
    assert_eq!(found.id().as_str(), is.spiffe_id);
}

// DESIGN.md §5: TokenReview where keys cannot be had.
#[tokio::test(flavor = "multi_thread")]
async fn without_published_keys_the_api_server_is_asked_about_tokens() {
    let authority = TokenAuthority::new();
    let server = issuing_cluster().await;
    let bench = Bench::with(server, authority).await;
    let mut reason = String::new();
    for _ in 0..400 {
        reason = get(bench.http, "/readyz").await;
        if reason.contains("TokenReview") {
            break;
        }
        sleep(Duration::from_millis(25)).await;
    }
    assert!(reason.contains("no ServiceAccount token can be verified"), "{reason}");
    let verdict = json!({"metadata": {"name": "verdict"}, "authenticated": false});
    bench.server.store.put("apis/authentication.k8s.io/v1/tokenreviews", verdict);
    bench
        .server
        .store
        .until("a bundle", |store| store.get("api/v1/configmaps", "svid-csi", "svid-csi-bundle"))
        .await;
    let client = loop {
        match Client::connect(bench.address, &bench.server.store).await {
            Ok(client) => break client,
            // Nothing can be signed yet, not even the server's own certificate.
            Err(_) => sleep(Duration::from_millis(50)).await,
        }
    };
    let (message, _) = wish(ID, bench.pod());
    let refused = client.x509(&bench.driver(), message).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unauthenticated, "{refused}");
    assert!(refused.message().contains("does not take the token"), "{refused}");
}
