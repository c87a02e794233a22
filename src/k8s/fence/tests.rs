//! What holds nobody off is seen.

use serde_json::json;

use super::*;

const SIGNER: &str = "svid.dev/workload";
const CHART: &str =
    include_str!("../../../deploy/charts/svid-csi/templates/controller/podcertificates.yaml");

/// As the API server gives the chart's back.
fn policy() -> Value {
    json!({
        "failurePolicy": "Fail",
        "matchConstraints": {
            "matchPolicy": "Equivalent",
            "namespaceSelector": {},
            "objectSelector": {},
            "resourceRules": [{
                "apiGroups": ["certificates.k8s.io"],
                "apiVersions": ["*"],
                "operations": ["CREATE"],
                "resources": ["podcertificaterequests"],
                "scope": "*",
            }],
        },
        "matchConditions": [
            {"name": "our-signer", "expression": format!("object.spec.signerName == '{SIGNER}'")},
        ],
        "validations": [{
            "expression": "request.userInfo.username == 'system:node:' + object.spec.nodeName\n  && \
                           'system:nodes' in request.userInfo.groups",
            "message": "only the kubelet",
        }],
    })
}

fn binding() -> Value {
    json!({"policyName": "fence", "validationActions": ["Deny"]})
}

#[test]
fn the_charts_fence_is_one() {
    assert_eq!(policy_problem(&policy(), SIGNER), None);
    assert_eq!(binding_problem(&binding(), "fence"), None);
    assert!(words(CHART).contains(WHO), "the chart has another expression than {WHO}");
    assert!(CHART.contains("object.spec.signerName == '{{ $signer }}'"));
}

/// The fence is who asks: with a hole in it anybody could ask in a kubelet's name (invariant 5).
#[test]
fn a_policy_with_a_hole_is_none() {
    let rule = "/matchConstraints/resourceRules/0";
    for (at, value, words) in [
        ("/failurePolicy", json!("Ignore"), "fail closed"),
        ("/matchConstraints/resourceRules", json!([]), "does not match"),
        (&format!("{rule}/apiVersions"), json!(["v1"]), "does not match"),
        (&format!("{rule}/operations"), json!(["UPDATE"]), "does not match"),
        (&format!("{rule}/resources"), json!(["pods"]), "does not match"),
        (&format!("{rule}/scope"), json!("Cluster"), "does not match"),
        ("/matchConstraints/matchPolicy", json!("Exact"), "exceptions"),
        ("/matchConstraints/namespaceSelector", json!({"matchLabels": {"a": "b"}}), "exceptions"),
        (
            "/matchConstraints/objectSelector",
            json!({"matchExpressions": [{"key": "a", "operator": "Exists"}]}),
            "exceptions",
        ),
        (
            "/matchConditions/0/expression",
            json!("object.spec.signerName == 'a/b'"),
            "matchConditions",
        ),
        ("/validations/0/expression", json!("true"), "node of the request"),
        ("/validations", json!([]), "node of the request"),
    ] {
        let mut policy = policy();
        *policy.pointer_mut(at).unwrap() = value;
        let problem = policy_problem(&policy, SIGNER).unwrap_or_default();
        assert!(problem.contains(words), "{at}: {problem:?}");
    }
    for (under, key, value) in [
        ("/matchConstraints", "excludeResourceRules", json!([{"resources": ["*"]}])),
        (rule, "resourceNames", json!(["one"])),
        ("", "paramKind", json!({"kind": "ConfigMap", "apiVersion": "v1"})),
    ] {
        let mut policy = policy();
        policy.pointer_mut(under).unwrap()[key] = value;
        assert!(policy_problem(&policy, SIGNER).is_some(), "{under} {key}");
    }
    let mut policy = policy();
    let more = json!({"name": "not-mine", "expression": "request.userInfo.username != 'me'"});
    policy["matchConditions"].as_array_mut().unwrap().push(more);
    assert!(policy_problem(&policy, SIGNER).is_some());
    assert!(policy_problem(&json!({}), SIGNER).is_some());
}

#[test]
fn a_binding_with_a_hole_is_none() {
    for (key, value) in [
        ("policyName", json!("other")),
        ("validationActions", json!(["Audit", "Warn"])),
        ("paramRef", json!({"name": "a"})),
        ("matchResources", json!({"namespaceSelector": {"matchLabels": {"a": "b"}}})),
        ("matchResources", json!({"resourceRules": [{"resources": ["pods"]}]})),
    ] {
        let mut binding = binding();
        binding[key] = value;
        assert!(binding_problem(&binding, "fence").is_some(), "{key}");
    }
}

#[test]
fn a_fence_that_was_changed_stands_since_then() {
    let metadata = |value: Value| serde_json::from_value::<ObjectMeta>(value).unwrap();
    let at = |text: &str| {
        let time = json!({"creationTimestamp": text});
        since(&metadata(time)).unwrap()
    };
    let changes = json!([
        {"manager": "helm", "time": "2026-11-22T13:00:00Z"},
        {"manager": "kube-apiserver", "time": "2026-11-22T14:00:00Z", "subresource": "status"},
    ]);
    for (generation, stood_since) in [(1, "2026-11-22T12:00:00Z"), (2, "2026-11-22T13:00:00Z")] {
        let metadata = metadata(json!({
            "creationTimestamp": "2026-11-22T12:00:00Z",
            "generation": generation,
            "managedFields": changes,
        }));
        assert_eq!(since(&metadata), Some(at(stood_since)), "{generation}");
    }
    assert_eq!(since(&ObjectMeta::default()), None);
}
