//! The same with cert-manager's CertificateRequests.

use super::*;
use crate::signer::cert_manager::Issuers;

/// A driver whose requests go to cert-manager, and what becomes of one is what the test says.
async fn asking(rig: &mut Rig, issuer: &str) -> Arc<RequestSigner> {
    rig.switch_controller(false);
    let issuers = Issuers::new(Some(issuer.parse().unwrap()), None);
    let (name, metrics) = ("worker-1".to_owned(), RequestMetrics::default());
    let signer =
        RequestSigner::cert_manager(rig.cluster.clone(), "svid-csi", issuers, name, metrics);
    let signer = Arc::new(signer);
    rig.tasks.spawn(signer.clone().run(CancellationToken::new()));
    until("the signer is ready", || signer.status().ready.is_ok()).await;
    signer
}

fn condition(kind: &str, status: &str, reason: &str, message: &str) -> serde_json::Value {
    json!({ "type": kind, "status": status, "reason": reason, "message": message })
}

/// As cert-manager does it: approved by somebody, then ready with a certificate.
fn issue(api: &FakeApi, name: &str) {
    let object = api.object(name).unwrap();
    let pem = STANDARD.decode(object["spec"]["request"].as_str().unwrap()).unwrap();
    let csr = Csr::from_pem_with_dns_names(std::str::from_utf8(&pem).unwrap()).unwrap();
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let (domain, day) = ("example.org".parse().unwrap(), Duration::from_secs(86_400));
    let ca = Authority::create(&domain, KeyAlgorithm::EcdsaP256, day, now).unwrap();
    let key = csr.public_key();
    let svid = ca.issue(key, csr.id(), csr.dns_names(), Duration::from_secs(600), now).unwrap();
    api.decide(name, json!({
        "conditions": [condition("Approved", "True", "SvidPolicy", "{}"), condition("Ready", "True", "Issued", "")],
        "certificate": STANDARD.encode(svid.chain_pem()),
        "ca": STANDARD.encode("nobody's"),
    }));
}

#[tokio::test(start_paused = true)]
async fn cert_manager_is_asked_for_what_is_signed() {
    let mut rig = Rig::new();
    let signer = asking(&mut rig, "ClusterIssuer/a").await;
    assert!(signer.has_issuers() && signer.is_remote());
    let wish = request(1);
    let answer = async {
        until("it is made", || rig.api.count("POST") == 1).await;
        let name = rig.api.names()[0].clone();
        let object = rig.api.object(&name).unwrap();
        assert_eq!(object["spec"]["duration"], "3600s");
        assert_eq!(object["spec"]["isCA"], false);
        assert_eq!(object["spec"]["issuerRef"]["name"], "a");
        assert_eq!(object["metadata"]["labels"]["csi.svid.dev/node-uid"], "n1");
        issue(&rig.api, &name);
    };
    let (signed, ()) = tokio::join!(signer.sign(&wish), answer);
    assert_eq!(signed.unwrap().leaf().spki_der(), wish.csr.spki_der());
    until("it is deleted", || rig.api.names().is_empty()).await;
}

/// Invariant 7: an answer that says which lifetime to ask for costs one request more, once.
#[tokio::test(start_paused = true)]
async fn the_lifetime_of_policy_is_asked_for_and_remembered() {
    let mut rig = Rig::new();
    let signer = asking(&mut rig, "ClusterIssuer/a").await;
    for (round, requests) in [(1, 2), (2, 3)] {
        // Each renewal has a key of its own.
        let wish = request(1);
        let answer = async {
            if round == 1 {
                until("it is made", || rig.api.count("POST") == 1).await;
                let name = rig.api.names()[0].clone();
                let told = condition("Denied", "True", "LifetimeIs", r#"{"ttlSeconds":900}"#);
                rig.api.decide(&name, json!({ "conditions": [told] }));
            }
            until("it is made again", || rig.api.count("POST") == requests).await;
            let waits = |name: &String| {
                rig.api.object(name).is_some_and(|object| object["status"].is_null())
            };
            let name = rig.api.names().into_iter().find(waits).unwrap();
            assert_eq!(rig.api.object(&name).unwrap()["spec"]["duration"], "900s");
            issue(&rig.api, &name);
        };
        let (signed, ()) = tokio::join!(signer.sign(&wish), answer);
        signed.unwrap();
    }
}

/// The issuer may be another one after a restart: a request that names the old one is of no use.
#[tokio::test(start_paused = true)]
async fn a_request_to_another_issuer_is_replaced() {
    let mut rig = Rig::new();
    let wish = request(1);
    asking(&mut rig, "ClusterIssuer/a").await.sign(&wish).await.unwrap_err();
    let signer = asking(&mut rig, "ClusterIssuer/b").await;
    let answer = async {
        until("it is made again", || rig.api.count("POST") == 2).await;
        let name = rig.api.names()[0].clone();
        assert_eq!(rig.api.object(&name).unwrap()["spec"]["issuerRef"]["name"], "b");
        issue(&rig.api, &name);
    };
    let (signed, ()) = tokio::join!(signer.sign(&wish), answer);
    signed.unwrap();
}

#[tokio::test(start_paused = true)]
async fn each_end_of_a_certificate_request_says_why() {
    let mut rig = Rig::new();
    let signer = asking(&mut rig, "ClusterIssuer/a").await;
    let pending = condition("Ready", "False", "Pending", "issuer a not found");
    for (made, (conditions, class, part)) in [
        (
            json!([condition("Denied", "True", "PodMissing", "no pod")]),
            Class::Denied,
            "PodMissing: no pod",
        ),
        (json!([condition("Ready", "False", "Failed", "bad CA")]), Class::Internal, "bad CA"),
        (json!([condition("InvalidRequest", "True", "", "no")]), Class::Internal, "no"),
        (json!([pending]), Class::Unavailable, "its issuer says: issuer a not found"),
    ]
    .into_iter()
    .enumerate()
    {
        let wish = request(made);
        let answer = async {
            until("it is made", || rig.api.count("POST") == made + 1).await;
            let waits = |name: &String| {
                rig.api.object(name).is_some_and(|object| object["status"].is_null())
            };
            let name = rig.api.names().into_iter().find(waits).unwrap();
            rig.api.decide(&name, json!({ "conditions": conditions }));
        };
        let (signed, ()) = tokio::join!(signer.sign(&wish), answer);
        let error = signed.unwrap_err();
        assert_eq!(error.class(), class, "{error}");
        assert!(error.to_string().contains(part), "{error}");
    }
}
