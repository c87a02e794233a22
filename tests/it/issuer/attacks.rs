//! Who owns a pod, a node, or the network between, and what that is good for (DESIGN.md invariant 5).

use std::collections::BTreeMap;

use svid_csi_proto::issuer::v1::issue_x509_svid_response::Answer;
use tonic::Code;

use super::*;
use crate::controller::bundle;

/// A proof that is no good, and what is said of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_without_two_good_tokens_gets_nothing() {
    let bench = Bench::start().await;
    let client = bench.client().await;
    let (driver, pod) = (bench.driver(), bench.pod());
    let seconds = now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let changed = |claims: Value, path: &str, value: Value| {
        let mut claims = claims;
        *claims.pointer_mut(path).unwrap() = value;
        bench.authority.token(&claims)
    };
    let forged = TokenAuthority::new();
    let (with_d, with_p) = (|p, v| changed(driver_claims(), p, v), |p, v| changed(cart(), p, v));
    let api = json!(["https://kubernetes.default.svc"]);
    let unbound = |mut claims: Value, what: &str| {
        claims["kubernetes.io"].as_object_mut().unwrap().remove(what);
        bench.authority.token(&claims)
    };
    let other = "must be for the audience svid.dev and for no other";
    for (what, driver, pod, said) in [
        ("no driver's token", String::new(), pod.clone(), "no driver's token in authorization"),
        (
            "no token at all",
            "x".to_owned(),
            pod.clone(),
            "the driver's token: the token is not a JWS",
        ),
        (
            "no pod's token",
            driver.clone(),
            String::new(),
            "the pod's token: the token is not a JWS",
        ),
        (
            "the pod's as the driver's",
            pod.clone(),
            pod.clone(),
            "only system:serviceaccount:svid-csi:svid-csi may ask",
        ),
        ("the driver's API token", with_d("/aud", api.clone()), pod.clone(), other),
        ("the pod's API token", driver.clone(), with_p("/aud", api), other),
        (
            "the pod's token for vault too",
            driver.clone(),
            with_p("/aud", json!(["svid.dev", "vault"])),
            other,
        ),
        (
            "the driver's expired",
            with_d("/exp", json!(seconds - 1)),
            pod.clone(),
            "the driver's token: the token has expired",
        ),
        (
            "the pod's expired",
            driver.clone(),
            with_p("/exp", json!(seconds - 1)),
            "the pod's token: the token has expired",
        ),
        (
            "the pod's not begun",
            driver.clone(),
            with_p("/nbf", json!(seconds + 600)),
            "not valid yet",
        ),
        ("unbound from a pod", driver.clone(), unbound(cart(), "pod"), "bound to no pod"),
        ("unbound from a node", driver.clone(), unbound(cart(), "node"), "bound to no node"),
        ("the driver's unbound", unbound(driver_claims(), "pod"), pod.clone(), "bound to no pod"),
        (
            "made by somebody else",
            driver.clone(),
            forged.token(&cart()),
            "the pod's token: the token's key (kid)",
        ),
        (
            "unsigned",
            driver.clone(),
            bench.authority.signed(&json!({"alg": "none"}), &cart()),
            "the token's alg",
        ),
        (
            "with its own key",
            driver.clone(),
            bench.authority.signed(&json!({"alg": "ES256", "kid": "x", "jwk": {}}), &cart()),
            "other than alg, kid and typ",
        ),
        ("very long", driver.clone(), "x".repeat(9_000), "the token has 9000 bytes"),
    ] {
        let (message, _) = wish(ID, pod.clone());
        let refused = client.x509(&driver, message).await.expect_err(what);
        let retried = what == "made by somebody else" && refused.code() == Code::Unavailable;
        assert!(refused.code() == Code::Unauthenticated || retried, "{what}: {refused}");
        assert!(refused.message().contains(said), "{what}: {}", refused.message());
        for token in [&driver, &pod] {
            let secret = token.rsplit('.').next().unwrap();
            assert!(secret.len() < 20 || !refused.message().contains(secret), "{what}");
        }
    }
    assert!(bench.audited("sign").iter().all(|line| line["reason"] == "ControllerCertificate"));
    // Whoever was a driver and brought a bad token is written down; strangers are only counted.
    let refused = bench.audited("deny");
    assert!(refused.iter().all(|line| line["reason"] == "PodTokenRefused"), "{refused:?}");
    assert!(refused.len() >= 9, "{refused:?}");
    let log = bench.replica.log.lock().unwrap().clone();
    for token in [&driver, &pod] {
        assert!(!log.contains(token.rsplit('.').next().unwrap()), "a token is in the log");
    }
    let (message, _) = wish(ID, pod);
    assert!(client.x509(&driver, message).await.is_ok(), "who has both is served");
}

fn driver_claims() -> Value {
    driver()
}

/// Two good tokens that don't fit together, or no longer fit the world.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_reaches_no_further_than_its_pods() {
    let bench = Bench::start().await;
    let client = bench.client().await;
    let store = &bench.server.store;
    let claims = |pod: (&str, &str), node: (&str, &str)| {
        bench.authority.token(&tokens::claims("shop", ("cart", "s-1"), pod, node))
    };
    let (one, two) = (("node-1", "n-1"), ("node-2", "n-2"));
    let driver_on = |pod, node| {
        bench.authority.token(&tokens::claims("svid-csi", ("svid-csi", "s-d"), pod, node))
    };
    store.put(PODS, pod("svid-csi", "driver-2", "d-2", "svid-csi", None));
    let named = |name: &str, uid: &str| Pod {
        namespace: "shop".to_owned(),
        name: name.to_owned(),
        uid: uid.to_owned(),
    };
    let cart = named("cart-0", "p-1");
    let ask = async |driver: &str, token: String, pod: &Pod, id: &str| {
        let (mut message, _) = wish(id, token);
        message.pod = Some(pod.clone());
        match client.x509(driver, message).await.unwrap().answer {
            Some(Answer::Denied(denial)) => denial.reason,
            Some(Answer::Issued(_)) => "issued".to_owned(),
            None => "nothing".to_owned(),
        }
    };
    let driver = bench.driver();
    let good = || claims(("cart-0", "p-1"), one);
    for (what, driver, token, pod, id, reason) in [
        ("as it should be", &driver, good(), &cart, ID, "issued"),
        (
            "another pod's token",
            &driver,
            claims(("cart-1", "p-2"), one),
            &cart,
            ID,
            "PodTokenMismatch",
        ),
        (
            "its token for another pod",
            &driver,
            good(),
            &named("cart-1", "p-2"),
            ID,
            "PodTokenMismatch",
        ),
        ("another UID", &driver, good(), &named("cart-0", "p-9"), ID, "PodTokenMismatch"),
        ("no pod", &driver, good(), &named("", ""), ID, "PodNotNamed"),
        (
            "a token of another node's pod",
            &driver,
            claims(("cart-0", "p-1"), two),
            &cart,
            ID,
            "PodTokenElsewhere",
        ),
        (
            "a token of a node of that name before",
            &driver,
            claims(("cart-0", "p-1"), ("node-1", "n-0")),
            &cart,
            ID,
            "PodTokenElsewhere",
        ),
        (
            "a driver's token of another node",
            &driver_on(("driver-1", "d-1"), two),
            claims(("cart-0", "p-1"), two),
            &cart,
            ID,
            "DriverPodElsewhere",
        ),
        (
            "a driver of before",
            &driver_on(("driver-1", "d-0"), one),
            good(),
            &cart,
            ID,
            "DriverPodReplaced",
        ),
        (
            "a driver that is gone",
            &driver_on(("driver-0", "d-0"), one),
            good(),
            &cart,
            ID,
            "DriverPodMissing",
        ),
        (
            "the driver for itself",
            &driver,
            driver.clone(),
            &Pod {
                namespace: "svid-csi".to_owned(),
                name: "driver-1".to_owned(),
                uid: "d-1".to_owned(),
            },
            "spiffe://example.org/ns/svid-csi/sa/svid-csi",
            "PodWithoutVolume",
        ),
        (
            "a pod that is gone",
            &driver,
            claims(("cart-9", "p-9"), one),
            &named("cart-9", "p-9"),
            ID,
            "PodMissing",
        ),
        (
            "a pod that was replaced",
            &driver,
            claims(("cart-0", "p-0"), one),
            &named("cart-0", "p-0"),
            ID,
            "PodReplaced",
        ),
        (
            "another identity",
            &driver,
            good(),
            &cart,
            "spiffe://example.org/ns/shop/sa/admin",
            "IdentityIs",
        ),
        (
            "the controller's identity",
            &driver,
            good(),
            &cart,
            "spiffe://example.org/svid.dev/controller",
            "ReservedId",
        ),
        (
            "another trust domain",
            &driver,
            good(),
            &cart,
            "spiffe://example.com/ns/shop/sa/cart",
            "ForeignTrustDomain",
        ),
    ] {
        assert_eq!(ask(driver, token, pod, id).await, reason, "{what}");
    }

    // The world goes on, and the tokens stay.
    let old =
        bench.authority.token(&tokens::claims("shop", ("cart", "s-0"), ("cart-0", "p-1"), one));
    assert_eq!(ask(&driver, old, &cart, ID).await, "ServiceAccountReplaced");
    let mut moved = pod("shop", "cart-0", "p-1", "cart", Some("csi.svid.dev"));
    moved["spec"]["nodeName"] = json!("node-2");
    store.put(PODS, moved);
    assert_eq!(until(&ask, &driver, &good, &cart, "PodElsewhere").await, "PodElsewhere");
    let mut leaving = pod("shop", "cart-0", "p-1", "cart", Some("csi.svid.dev"));
    leaving["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    store.put(PODS, leaving);
    assert_eq!(until(&ask, &driver, &good, &cart, "PodDeleted").await, "PodDeleted");
    store.delete(PODS, "shop", "cart-0");
    assert_eq!(until(&ask, &driver, &good, &cart, "PodMissing").await, "PodMissing");
    store.delete(PODS, "svid-csi", "driver-1");
    assert_eq!(until(&ask, &driver, &good, &cart, "DriverPodMissing").await, "DriverPodMissing");

    // Each refusal has its line.
    let mut reasons = BTreeMap::<String, usize>::new();
    for line in bench.audited("deny") {
        *reasons.entry(line["reason"].as_str().unwrap().to_owned()).or_default() += 1;
        assert_eq!(line["driverPod"].as_str().map(|name| name.starts_with("driver-")), Some(true));
    }
    assert_eq!(reasons["PodTokenMismatch"], 3);
    assert_eq!(reasons["PodTokenElsewhere"], 2);
}

/// Asks again until the watch has told.
async fn until(
    ask: &impl AsyncFn(&str, String, &Pod, &str) -> String,
    driver: &str,
    token: &impl Fn() -> String,
    pod: &Pod,
    reason: &str,
) -> String {
    let mut found = String::new();
    for _ in 0..200 {
        found = ask(driver, token(), pod, ID).await;
        if found == reason {
            break;
        }
        sleep(Duration::from_millis(20)).await;
    }
    found
}

/// Whoever answers must be the controller, by TLS 1.3 and HTTP/2.
#[tokio::test(flavor = "multi_thread")]
async fn the_port_is_the_controllers_and_speaks_nothing_else() {
    use rustls::version::TLS13;
    let bench = Bench::start().await;
    let bundle = || bundle(&bench.server.store);
    let attempt = async |id: SpiffeId, alpn: &[u8]| {
        let stream = client::tls(bench.address, id, bundle(), alpn, &[&TLS13]).await?;
        let found = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
        Ok::<_, std::io::Error>(found)
    };
    assert_eq!(attempt(client::controller(), b"h2").await.unwrap(), Some(b"h2".to_vec()));
    let other = attempt(ID.parse().unwrap(), b"h2").await.unwrap_err();
    assert!(
        other.to_string().contains("it is spiffe://example.org/svid.dev/controller"),
        "{other}"
    );
    assert!(attempt(client::controller(), b"http/1.1").await.is_err(), "only HTTP/2");
    // No TLS at all.
    assert_eq!(get_raw(bench.address).await, "");
    assert!(
        bench
            .metric(r#"svid_csi_controller_issuer_connections_total{result="handshake_failed"}"#)
            .await
            >= 2.0
    );
}

/// What comes back for plain text, as text; an alert is none.
async fn get_raw(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).chars().filter(char::is_ascii_alphabetic).collect()
}

/// One driver that floods is told so, and others are served meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn connections_of_one_driver_are_limited() {
    let bench = Bench::start().await;
    let driver = bench.driver();
    let mut clients = Vec::new();
    let mut refused = None;
    for _ in 0..9 {
        let client = bench.client().await;
        let (message, _) = wish(ID, bench.pod());
        match client.x509(&driver, message).await {
            Ok(_) => clients.push(client),
            Err(status) => refused = Some(status),
        }
    }
    assert_eq!((clients.len(), refused.unwrap().code()), (8, Code::ResourceExhausted));
    bench.server.store.put(PODS, {
        let mut other = pod("svid-csi", "driver-2", "d-2", "svid-csi", None);
        other["spec"]["nodeName"] = json!("node-2");
        other
    });
    let other =
        tokens::claims("svid-csi", ("svid-csi", "s-d"), ("driver-2", "d-2"), ("node-2", "n-2"));
    let (message, _) = wish(ID, bench.pod());
    let answer = bench.client().await.x509(&bench.authority.token(&other), message).await.unwrap();
    let Some(Answer::Denied(denial)) = answer.answer else { panic!("{answer:?}") };
    assert_eq!(denial.reason, "PodTokenElsewhere");
}
