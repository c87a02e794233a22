//! The ValidatingAdmissionPolicy that lets only a node's kubelet ask for pod certificates. A
//! PodCertificateRequest does not say who made it, so this is how its signer knows.

#[cfg(test)]
mod tests;

use std::time::SystemTime;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{
    Api,
    api::{ApiResource, GroupVersionKind},
    core::Object,
    runtime::watcher::Config,
};
use serde_json::Value;

use super::{Cache, Cluster, Following, ObjectName};

/// The fence around PodCertificateRequests for one signer name: a policy, and a binding of the same
/// name. Cheap to clone.
#[derive(Clone)]
pub struct Fence {
    cluster: Cluster,
    name: String,
    signer: String,
    policies: Cache<Half>,
    bindings: Cache<Half>,
}

/// Half of a fence: a policy or its binding.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Half {
    /// Why it holds nobody off.
    problem: Option<String>,
    /// Since when it is as it is.
    since: SystemTime,
}

const GROUP: &str = "admissionregistration.k8s.io";
const POLICY: &str = "ValidatingAdmissionPolicy";
const BINDING: &str = "ValidatingAdmissionPolicyBinding";
/// Who may ask: the kubelet of the node that the request names, by the name and the group that
/// NodeRestriction knows kubelets by.
const WHO: &str = "request.userInfo.username == 'system:node:' + object.spec.nodeName && \
                   'system:nodes' in request.userInfo.groups";

// === impl Fence ===

impl Fence {
    /// Of this name, in this cluster.
    pub fn new(cluster: &Cluster, name: &str, signer: &str) -> Self {
        Self {
            cluster: cluster.clone(),
            name: name.to_owned(),
            signer: signer.to_owned(),
            policies: Cache::default(),
            bindings: Cache::default(),
        }
    }

    /// The watches, by the plural of what they watch.
    pub fn follow(&self) -> Vec<(&'static str, Following)> {
        let signer = self.signer.clone();
        let name = self.name.clone();
        vec![
            self.half("validatingadmissionpolicies", POLICY, &self.policies, move |spec| {
                policy_problem(spec, &signer)
            }),
            self.half("validatingadmissionpolicybindings", BINDING, &self.bindings, move |spec| {
                binding_problem(spec, &name)
            }),
        ]
    }

    fn half(
        &self,
        plural: &'static str,
        kind: &str,
        cache: &Cache<Half>,
        problem: impl Fn(&Value) -> Option<String> + Send + 'static,
    ) -> (&'static str, Following) {
        let kind = GroupVersionKind::gvk(GROUP, "v1", kind);
        let resource = ApiResource::from_gvk_with_plural(&kind, plural);
        let api: Api<Object<Value, Value>> =
            Api::all_with(self.cluster.client().clone(), &resource);
        let scope = Config::default().fields(&format!("metadata.name={}", self.name));
        let keep = move |object: Object<Value, Value>| {
            let since = since(&object.metadata)?;
            Some(Half { problem: problem(&object.spec), since })
        };
        (plural, Box::pin(cache.clone().follow(plural, api, scope, keep, |_| {})))
    }

    /// Since when it stands, or why it does not, as far as is known now.
    pub fn stands_since(&self) -> Result<SystemTime, String> {
        let half = |cache: &Cache<Half>, kind| {
            let state = cache.state().borrow().clone();
            if let Some(problem) = state.problem {
                return Err(format!(
                    "nobody knows whether the {kind} {} is there: {problem}",
                    self.name
                ));
            }
            if !state.synced {
                return Err(format!("the {kind} {} has not been looked for yet", self.name));
            }
            let Some(half) = cache.get(&ObjectName::cluster_wide(&*self.name)) else {
                return Err(format!("there is no {kind} {}", self.name));
            };
            match &half.problem {
                None => Ok(half.since),
                Some(problem) => Err(format!("the {kind} {} {problem}", self.name)),
            }
        };
        Ok(half(&self.policies, POLICY)?.max(half(&self.bindings, BINDING)?))
    }
}

/// Since when a specification is as it is: from its creation on, if nobody changed it since; else from
/// the last change that the API server noted of anything but its status.
fn since(metadata: &ObjectMeta) -> Option<SystemTime> {
    let created = metadata.creation_timestamp.clone()?.0.into();
    if metadata.generation == Some(1) {
        return Some(created);
    }
    let changes = metadata.managed_fields.iter().flatten();
    let changes = changes.filter(|fields| fields.subresource.as_deref().is_none_or(str::is_empty));
    changes
        .filter_map(|fields| fields.time.clone())
        .map(|time| time.0.into())
        .chain([created])
        .max()
}

/// Why a policy's specification lets others ask too. Whatever it does beyond is not looked at, but that
/// it may make no exception.
fn policy_problem(spec: &Value, signer: &str) -> Option<String> {
    let ours = format!("object.spec.signerName == '{signer}'");
    let matched = &spec["matchConstraints"];
    let expressions = |of: &Value| -> Vec<String> {
        let all = of.as_array().into_iter().flatten();
        all.map(|one| words(one["expression"].as_str().unwrap_or_default())).collect()
    };
    let rules = matched["resourceRules"].as_array().into_iter().flatten();
    let problem = if !matches!(spec["failurePolicy"].as_str(), None | Some("Fail")) {
        "does not fail closed (failurePolicy)"
    } else if !rules.clone().any(covers) {
        "does not match the creation of podcertificaterequests of every version and name"
    } else if [&matched["excludeResourceRules"], &spec["paramKind"]].into_iter().any(is_set)
        || [&matched["namespaceSelector"], &matched["objectSelector"]].into_iter().any(selects)
        || !matches!(matched["matchPolicy"].as_str(), None | Some("Equivalent"))
    {
        "makes exceptions"
    } else if !expressions(&spec["matchConditions"]).iter().all(|one| *one == words(&ours)) {
        "has other matchConditions than the signer name"
    } else if !expressions(&spec["validations"]).contains(&words(WHO)) {
        "does not ask for the node of the request (validations)"
    } else {
        return None;
    };
    Some(format!("{problem}; it must be the chart's"))
}

/// Whether a rule matches every creation of a PodCertificateRequest.
fn covers(rule: &Value) -> bool {
    let has = |key: &str, wanted: &[&str]| {
        let all = rule[key].as_array().into_iter().flatten().filter_map(Value::as_str);
        all.into_iter().any(|one| wanted.contains(&one))
    };
    has("apiGroups", &["certificates.k8s.io", "*"])
        && has("apiVersions", &["*"])
        && has("operations", &["CREATE", "*"])
        && has("resources", &["podcertificaterequests", "*", "*/*"])
        && !is_set(&rule["resourceNames"])
        && matches!(rule["scope"].as_str(), None | Some("*" | "Namespaced"))
}

/// Why a binding does not put the policy of this name in force everywhere.
fn binding_problem(spec: &Value, name: &str) -> Option<String> {
    let actions = spec["validationActions"].as_array().into_iter().flatten();
    let matched = &spec["matchResources"];
    let problem = if spec["policyName"] != name {
        "binds another policy"
    } else if !actions.clone().any(|action| action == "Deny") {
        "does not deny (validationActions)"
    } else if [&matched["resourceRules"], &matched["excludeResourceRules"], &spec["paramRef"]]
        .into_iter()
        .any(is_set)
        || [&matched["namespaceSelector"], &matched["objectSelector"]].into_iter().any(selects)
    {
        "makes exceptions"
    } else {
        return None;
    };
    Some(format!("{problem}; it must be the chart's"))
}

/// Whether there is anything.
fn is_set(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Array(all) => !all.is_empty(),
        _ => true,
    }
}

/// Whether a selector leaves anything out.
fn selects(selector: &Value) -> bool {
    ["matchLabels", "matchExpressions"].into_iter().any(|key| match &selector[key] {
        Value::Null => false,
        Value::Array(all) => !all.is_empty(),
        Value::Object(all) => !all.is_empty(),
        _ => true,
    })
}

/// An expression without regard to how its lines are broken.
fn words(expression: &str) -> String {
    expression.split_whitespace().collect::<Vec<_>>().join(" ")
}
