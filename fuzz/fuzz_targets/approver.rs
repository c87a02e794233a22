//! Hostile requests and policies. Before the first 0xff: a policy's `spec` as JSON, or else the
//! expression of a rule. After it: a CSR in DER.

#![no_main]

use std::time::{Duration, SystemTime};

use base64::{Engine, engine::general_purpose::STANDARD};
use k8s_openapi::api::core::v1::Pod;
use libfuzzer_sys::fuzz_target;
use serde_json::json;
use svid_csi::{
    controller::{
        approver::{ApproverSettings, Decision, PolicySet, Question, decide},
        requests::read,
    },
    k8s::{
        NamespaceFacts, NodeFacts, PodFacts, PolicyFacts, PolicyRule, RequestFacts,
        ServiceAccountFacts, SvidPolicySpec, names,
    },
};

fn pod(namespace: &str, name: &str, account: &str) -> PodFacts {
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"namespace": namespace, "name": name, "uid": name, "labels": {"app": "web"}},
        "spec": {
            "nodeName": "a", "serviceAccountName": account,
            "containers": [{"name": "web", "image": "web:1"}],
            "volumes": [{"name": "svid", "csi": {"driver": "csi.svid.dev"}}],
        },
    }))
    .expect("a pod");
    pod.into()
}

fn request(csr: &[u8]) -> RequestFacts {
    let label = "CERTIFICATE REQUEST";
    let body = STANDARD.encode(csr);
    let bound = [
        (names::extra::NODE_NAME, "a"),
        (names::extra::NODE_UID, "a"),
        (names::extra::POD_NAME, "driver"),
        (names::extra::POD_UID, "driver"),
    ];
    let wishes = [
        (names::annotation::POD_NAMESPACE, "shop"),
        (names::annotation::POD_NAME, "web-0"),
        (names::annotation::POD_UID, "web-0"),
    ];
    RequestFacts {
        username: "system:serviceaccount:driver:driver".to_owned(),
        extra: bound.map(|(key, value)| (key.to_owned(), vec![value.to_owned()])).into(),
        signer_name: names::SIGNER.to_owned(),
        request: format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n").into_bytes(),
        usages: names::USAGES.map(str::to_owned).into(),
        expiration_seconds: Some(3600),
        labels: [(names::NODE_UID_LABEL.to_owned(), "a".to_owned())].into(),
        annotations: wishes.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        ..RequestFacts::default()
    }
}

fn policy(text: &str) -> SvidPolicySpec {
    serde_json::from_str(text).unwrap_or_else(|_| SvidPolicySpec {
        rules: vec![PolicyRule {
            name: "rule".to_owned(),
            expression: text.to_owned(),
            message: String::new(),
        }],
        ..SvidPolicySpec::default()
    })
}

fuzz_target!(|data: &[u8]| {
    let cut = data.iter().position(|byte| *byte == 0xff).unwrap_or(data.len());
    let (text, csr) = data.split_at(cut);
    let Ok(text) = std::str::from_utf8(text) else {
        return;
    };
    let facts = PolicyFacts { name: "p".to_owned(), spec: policy(text), ..PolicyFacts::default() };
    let policies = PolicySet::compile([&facts], None);
    let namespace = NamespaceFacts {
        name: "shop".to_owned(),
        labels: [("team".to_owned(), "red".to_owned())].into(),
        ..NamespaceFacts::default()
    };
    let service_account = ServiceAccountFacts {
        namespace: "shop".to_owned(),
        name: "web".to_owned(),
        ..ServiceAccountFacts::default()
    };
    let node = NodeFacts { name: "a".to_owned(), uid: "a".to_owned(), ..NodeFacts::default() };
    let domain = "example.org".parse().expect("a trust domain");
    let settings = ApproverSettings::for_trial(domain, "csi.svid.dev".to_owned());
    let request = read(&request(csr.get(1..).unwrap_or_default()), &settings);
    let (driver, pod) = (pod("driver", "driver", "driver"), pod("shop", "web-0", "web"));
    let question = Question {
        request: &request,
        driver_pod: Some(&driver),
        driver_service_account: None,
        node: Some(&node),
        pod: Some(&pod),
        service_account: Some(&service_account),
        namespace: Some(&namespace),
        policies: &policies,
        settings: &settings,
        now: SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000),
    };
    let decision = decide(&question);
    assert_eq!(decision, decide(&question), "the same question, another answer");
    match decision {
        Decision::Approve(grant) => {
            let asked = request.wish.as_ref().ok().and_then(|wish| wish.id.as_ref());
            assert_eq!(Some(&grant.id), asked, "another ID than the request's");
            assert_eq!(grant.id.trust_domain().as_str(), "example.org");
            assert!(grant.id.is_workload() && !grant.id.path().starts_with("/svid.dev/"));
            assert!((10..=86_400).contains(&grant.ttl.as_secs()));
            assert!(grant.dns_names.is_empty(), "names that nobody asked for");
        }
        Decision::Deny(denial) => assert!(denial.message.len() < 8192, "{}", denial.message.len()),
    }
});
