//! Objects from files, YAML or JSON, several documents in each.

use std::{fs, path::Path};

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{
    cli::UsageError,
    k8s::{PolicyFacts, SvidPolicy, svid_policy_definition},
};

/// A kind of object that a file may hold.
#[derive(Clone, Copy, Debug)]
pub(super) enum Document {
    Pod,
    Namespace,
    Node,
    ServiceAccount,
}

/// Larger than anything that the API server takes.
const MAX_FILE: usize = 4 << 20;

/// The policies of a file; other objects in it are passed over.
pub(super) fn policies(path: &Path) -> Result<Vec<PolicyFacts>, UsageError> {
    let at = |problem: String| UsageError::new("POLICY", format!("{}: {problem}", path.display()));
    let schema = schema();
    let mut found = Vec::new();
    for document in documents(path).map_err(at)? {
        if document["kind"] != "SvidPolicy" {
            continue;
        }
        let name = document["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let at = |problem: String| at(format!("SvidPolicy {name}: {problem}"));
        if document["apiVersion"] != "svid.dev/v1alpha1" {
            return Err(at("its apiVersion is not svid.dev/v1alpha1".to_owned()));
        }
        if name.is_empty() {
            return Err(at("metadata.name is needed".to_owned()));
        }
        unknown_field(&document["spec"], &schema["spec"], "spec").map_or(Ok(()), |field| {
            // The API server would drop it without a word to most clients.
            Err(at(field))
        })?;
        let policy: SvidPolicy =
            serde_json::from_value(document).map_err(|error| at(error.to_string()))?;
        let facts = PolicyFacts::from(policy);
        // As if never read before: what a cluster says of it does not count here.
        found.push(PolicyFacts { uid: String::new(), ..facts });
    }
    match found.is_empty() {
        true => Err(at("there is no SvidPolicy in it".to_owned())),
        false => Ok(found),
    }
}

/// The first object of a kind.
pub(super) fn one<K: DeserializeOwned>(path: &Path, kind: Document) -> Result<K, UsageError> {
    let (setting, name) = match kind {
        Document::Pod => ("--pod-file", "Pod"),
        Document::Namespace => ("--namespace-file", "Namespace"),
        Document::Node => ("--node-file", "Node"),
        Document::ServiceAccount => ("--service-account-file", "ServiceAccount"),
    };
    let at = |problem: String| UsageError::new(setting, format!("{}: {problem}", path.display()));
    let mut documents = documents(path).map_err(at)?.into_iter();
    let found = documents
        .find(|document| document["kind"] == name)
        .ok_or_else(|| at(format!("there is no {name} in it")))?;
    serde_json::from_value(found).map_err(|error| at(error.to_string()))
}

fn documents(path: &Path) -> Result<Vec<Value>, String> {
    let text = fs::read_to_string(path).map_err(|error| error.to_string())?;
    if text.len() > MAX_FILE {
        return Err("it is too large".to_owned());
    }
    let documents: Vec<Value> =
        serde_saphyr::from_multiple(&text).map_err(|error| error.to_string())?;
    Ok(documents.into_iter().flat_map(items).collect())
}

/// `kubectl get -o yaml` wraps several objects into a List.
fn items(mut document: Value) -> Vec<Value> {
    match document.get_mut("items").map(Value::take) {
        Some(Value::Array(items)) => items,
        _ => vec![document],
    }
}

fn schema() -> Value {
    let definition = serde_json::to_value(svid_policy_definition()).unwrap_or_default();
    definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"].clone()
}

/// A field that the schema doesn't have, and what was meant perhaps.
fn unknown_field(value: &Value, schema: &Value, path: &str) -> Option<String> {
    match (value, schema["properties"].as_object()) {
        (Value::Object(map), Some(known)) => map.iter().find_map(|(key, value)| {
            let path = format!("{path}.{key}");
            match known.get(key) {
                Some(schema) => unknown_field(value, schema, &path),
                None => {
                    let names: Vec<&str> = known.keys().map(String::as_str).collect();
                    let hint = match names.iter().find(|name| name.eq_ignore_ascii_case(key)) {
                        Some(name) => format!("; did you mean {name}?"),
                        None => format!("; there are {}", names.join(", ")),
                    };
                    Some(format!("there is no field {path}{hint}"))
                }
            }
        }),
        (Value::Array(list), _) => {
            list.iter().find_map(|value| unknown_field(value, &schema["items"], path))
        }
        _ => None,
    }
}
