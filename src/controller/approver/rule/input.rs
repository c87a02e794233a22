//! What a rule sees. Nothing that a node can write: no annotations, no status, no other labels of a
//! Node than the restricted ones. A taint is the nearest to an exception: a kubelet can choose it when
//! it registers, and never after (docs/policy.md).

use std::{collections::HashMap, sync::Arc};

use cel::Value;
use serde_json::{Value as Json, json};

use super::Asked;
use crate::controller::approver::whom::Subject;

/// All variables, as one map.
pub(super) fn variables(subject: &Subject<'_>, asked: &Asked<'_>) -> Json {
    let Subject { pod, service_account, namespace, node } = subject;
    let taints: Vec<_> = node
        .taints
        .iter()
        .map(|taint| json!({"key": taint.key, "value": taint.value, "effect": taint.effect}))
        .collect();
    let names: Vec<_> = asked.dns_names.iter().map(|name| name.as_str()).collect();
    json!({
        "pod": {
            "namespace": pod.namespace,
            "name": pod.name,
            "uid": pod.uid,
            "labels": *pod.labels,
            "spec": pod.spec.to_json(),
        },
        "serviceAccount": {
            "namespace": service_account.namespace,
            "name": service_account.name,
            "uid": service_account.uid,
            "labels": service_account.labels,
        },
        "namespaceObject": {
            "name": namespace.name,
            "uid": namespace.uid,
            "labels": namespace.labels,
        },
        "node": {
            "name": node.name,
            "uid": node.uid,
            "labels": node.labels,
            "taints": taints,
        },
        "request": {
            "id": asked.id.as_str(),
            "ttl": asked.ttl.as_secs(),
            "keyAlgorithm": asked.key.map(|key| key.as_str()).unwrap_or_default(),
            "dnsNames": names,
            "audience": asked.audience,
        },
    })
}

/// As CEL sees it. Whole numbers are `int`, whatever their sign.
pub(super) fn value(json: &Json) -> Value {
    match json {
        Json::Null => Value::Null,
        Json::Bool(yes) => Value::Bool(*yes),
        Json::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => Value::Int(whole),
            (None, Some(float)) => Value::Float(float),
            (None, None) => Value::Null,
        },
        Json::String(text) => Value::String(Arc::new(text.clone())),
        Json::Array(list) => Value::List(Arc::new(list.iter().map(value).collect())),
        Json::Object(map) => Value::Map(
            map.iter()
                .map(|(key, json)| (key.clone(), value(json)))
                .collect::<HashMap<String, Value>>()
                .into(),
        ),
    }
}
