//! How long a decision takes: every check of the approver, and the CSR's signature, which is most
//! of it. Without arguments 2,000 decisions of each kind.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    missing_docs,
    reason = "a benchmark is nobody's interface"
)]

use std::{
    fs,
    hint::black_box,
    path::Path,
    time::{Duration, Instant, SystemTime},
};

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use svid_csi::{
    controller::{
        approver::{ApproverSettings, Decision, PolicySet, Question, decide},
        requests::read,
    },
    k8s::{
        NamespaceFacts, NodeFacts, PodFacts, PolicyFacts, PolicyRule, RequestFacts,
        ServiceAccountFacts, SvidPolicySpec, names,
    },
    pki::{Csr, KeyAlgorithm, PrivateKey},
};

/// DESIGN.md's aim for P-256.
const AIM: Duration = Duration::from_micros(200);
const ID: &str = "spiffe://example.org/ns/shop/sa/web";
const RULES: [&str; 2] = [
    "pod.spec.containers.all(c, c.image.startsWith('registry.example/'))",
    "node.taints.all(t, t.key != 'forbidden') && request.ttl <= 3600",
];

fn main() {
    let count = std::env::args().filter_map(|argument| argument.parse().ok()).next_back();
    let count: usize = count.unwrap_or(2000);
    println!("{:<44} {:>9} {:>9} {:>11}", "decision", "p50", "p99", "a second");
    let mut results = Vec::new();
    for (algorithm, policies, rules) in [
        (KeyAlgorithm::EcdsaP256, 1, 0),
        (KeyAlgorithm::EcdsaP256, 50, 0),
        (KeyAlgorithm::EcdsaP256, 1, 2),
        (KeyAlgorithm::EcdsaP384, 1, 0),
        (KeyAlgorithm::Ed25519, 1, 0),
        (KeyAlgorithm::Rsa2048, 1, 0),
    ] {
        let name = format!("{algorithm}, {policies} policies, {rules} rules");
        let times = measure(algorithm, policies, rules, count);
        let at = |percent: usize| times[(times.len() - 1) * percent / 100];
        let total: Duration = times.iter().sum();
        let rate = times.len() as f64 / total.as_secs_f64();
        println!("{name:<44} {:>9.1?} {:>9.1?} {rate:>11.0}", at(50), at(99));
        results.push(json!({
            "decision": name, "p50_us": micros(at(50)), "p99_us": micros(at(99)), "per_second": rate,
        }));
        if (algorithm, policies, rules) == (KeyAlgorithm::EcdsaP256, 1, 0) {
            let verdict = if at(50) <= AIM { "met" } else { "MISSED" };
            println!("{:<44} {:>9.1?} {verdict}", "  aim, P-256", AIM);
        }
    }
    write(&results);
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn measure(algorithm: KeyAlgorithm, policies: usize, rules: usize, count: usize) -> Vec<Duration> {
    // The one that applies comes last.
    let policies: Vec<_> = (0..policies).rev().map(|n| policy(n, algorithm, rules)).collect();
    let policies = PolicySet::compile(&policies, None);
    let settings =
        ApproverSettings::for_trial("example.org".parse().unwrap(), "csi.svid.dev".to_owned());
    let (driver, pod) = (pod("driver", "driver", "driver"), pod("shop", "web-0", "web"));
    let node = NodeFacts { name: "a".to_owned(), uid: "a".to_owned(), ..Default::default() };
    let namespace = NamespaceFacts { name: "shop".to_owned(), ..Default::default() };
    let service_account = ServiceAccountFacts {
        namespace: "shop".to_owned(),
        name: "web".to_owned(),
        ..Default::default()
    };
    let requests: Vec<_> = (0..32.min(count)).map(|_| request(algorithm)).collect();
    let mut times: Vec<_> = (0..count)
        .map(|turn| {
            let facts = &requests[turn % requests.len()];
            let started = Instant::now();
            let question = Question {
                request: &read(facts, &settings),
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
            let decision = decide(black_box(&question));
            let took = started.elapsed();
            assert!(matches!(decision, Decision::Approve(_)), "{decision:?}");
            took
        })
        .collect();
    times.sort_unstable();
    times
}

fn policy(number: usize, algorithm: KeyAlgorithm, rules: usize) -> PolicyFacts {
    let mut spec = SvidPolicySpec::default();
    spec.x509.key_algorithms = vec![algorithm.to_string()];
    if number > 0 {
        spec.priority = 1;
        spec.selector.service_accounts = vec![format!("other-{number}")];
    }
    spec.rules = RULES[..rules]
        .iter()
        .enumerate()
        .map(|(n, expression)| PolicyRule {
            name: format!("rule-{n}"),
            expression: (*expression).to_owned(),
            message: String::new(),
        })
        .collect();
    PolicyFacts { name: format!("policy-{number}"), spec, ..Default::default() }
}

/// As large as pods are: three containers with twenty variables each.
fn pod(namespace: &str, name: &str, account: &str) -> PodFacts {
    let env: Vec<Value> =
        (0..20).map(|n| json!({"name": format!("NAME_{n}"), "value": "some value"})).collect();
    let containers: Vec<Value> = (0..3)
        .map(|n| json!({"name": format!("c{n}"), "image": "registry.example/app:1", "env": env}))
        .collect();
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"namespace": namespace, "name": name, "uid": name, "labels": {"app": "web"}},
        "spec": {
            "nodeName": "a", "serviceAccountName": account, "containers": containers,
            "volumes": [{"name": "svid", "csi": {"driver": "csi.svid.dev"}}],
        },
    }))
    .unwrap();
    pod.into()
}

fn request(algorithm: KeyAlgorithm) -> RequestFacts {
    let key = PrivateKey::generate(algorithm).unwrap();
    let csr = Csr::create(&key, &ID.parse().unwrap()).unwrap();
    let bound = [
        (names::extra::NODE_NAME, "a"),
        (names::extra::NODE_UID, "a"),
        (names::extra::POD_NAME, "driver"),
        (names::extra::POD_UID, "driver"),
    ];
    let pod = [
        (names::annotation::POD_NAMESPACE, "shop"),
        (names::annotation::POD_NAME, "web-0"),
        (names::annotation::POD_UID, "web-0"),
    ];
    RequestFacts {
        username: "system:serviceaccount:driver:driver".to_owned(),
        extra: bound.map(|(key, value)| (key.to_owned(), vec![value.to_owned()])).into(),
        signer_name: names::SIGNER.to_owned(),
        request: csr.to_pem().into_bytes(),
        usages: names::USAGES.map(str::to_owned).into(),
        expiration_seconds: Some(3600),
        labels: [(names::NODE_UID_LABEL.to_owned(), "a".to_owned())].into(),
        annotations: pod.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        ..Default::default()
    }
}

fn write(results: &[Value]) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench-results");
    let text = serde_json::to_string_pretty(results).unwrap();
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("approver.json"), text + "\n").unwrap();
}
