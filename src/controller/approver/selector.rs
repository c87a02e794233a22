//! Which pods a policy is for.

use std::collections::BTreeMap;

use crate::k8s::{LabelRequirement, Labels, NamespaceFacts, PodFacts, PolicySelector};

/// A selector, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Selector {
    namespaces: Vec<Requirement>,
    pods: Vec<Requirement>,
    /// Namespace, where it is said, and name. Empty means any.
    service_accounts: Vec<(Option<String>, String)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Requirement {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    DoesNotExist(String),
}

// === impl Selector ===

impl Selector {
    /// Reads a selector. What of it can't be understood is met by every pod, so that a broken policy
    /// denies where it was meant to decide; it comes back as text.
    pub(super) fn read(selector: &PolicySelector) -> (Self, Vec<String>) {
        let mut problems = Vec::new();
        let read = Self {
            namespaces: requirements("namespaces", selector.namespaces.as_ref(), &mut problems),
            pods: requirements("pods", selector.pods.as_ref(), &mut problems),
            service_accounts: selector
                .service_accounts
                .iter()
                .map(|entry| match entry.split_once('/') {
                    Some((namespace, name)) => (Some(namespace.to_owned()), name.to_owned()),
                    None => (None, entry.clone()),
                })
                .collect(),
        };
        for (namespace, name) in &read.service_accounts {
            if name.is_empty() || name.contains('/') || namespace.as_deref() == Some("") {
                problems.push(
                    "selector.serviceAccounts: each entry is name or namespace/name".to_owned(),
                );
            }
        }
        (read, problems)
    }

    /// Whether the policy is for this pod.
    pub(super) fn matches(&self, pod: &PodFacts, namespace: &NamespaceFacts) -> bool {
        let account = pod.service_account();
        let accounts = &self.service_accounts;
        let named = accounts.iter().any(|(namespace, name)| {
            name == account && namespace.as_ref().is_none_or(|wanted| *wanted == pod.namespace)
        });
        (accounts.is_empty() || named)
            && self.namespaces.iter().all(|requirement| requirement.is_met(&namespace.labels))
            && self.pods.iter().all(|requirement| requirement.is_met(&pod.labels))
    }
}

fn requirements(
    field: &str,
    labels: Option<&Labels>,
    problems: &mut Vec<String>,
) -> Vec<Requirement> {
    let Some(labels) = labels else { return Vec::new() };
    let mut read: Vec<_> = labels
        .match_labels
        .iter()
        .map(|(key, value)| Requirement::In(key.clone(), vec![value.clone()]))
        .collect();
    for wanted in &labels.match_expressions {
        match Requirement::read(wanted) {
            Ok(requirement) => read.push(requirement),
            Err(problem) => problems.push(format!("selector.{field}: {problem}")),
        }
    }
    read
}

// === impl Requirement ===

impl Requirement {
    fn read(wanted: &LabelRequirement) -> Result<Self, String> {
        let LabelRequirement { key, operator, values } = wanted;
        if key.is_empty() {
            return Err("a requirement needs a key".to_owned());
        }
        match (operator.as_str(), values.is_empty()) {
            ("In", false) => Ok(Self::In(key.clone(), values.clone())),
            ("NotIn", false) => Ok(Self::NotIn(key.clone(), values.clone())),
            ("Exists", true) => Ok(Self::Exists(key.clone())),
            ("DoesNotExist", true) => Ok(Self::DoesNotExist(key.clone())),
            ("In" | "NotIn", true) => Err(format!("{operator} needs values")),
            ("Exists" | "DoesNotExist", false) => Err(format!("{operator} has no values")),
            _ => Err(format!(
                "operator {operator:?} is unknown; use In, NotIn, Exists or DoesNotExist"
            )),
        }
    }

    fn is_met(&self, labels: &BTreeMap<String, String>) -> bool {
        let one_of = |key, values: &[String]| labels.get(key).is_some_and(|v| values.contains(v));
        match self {
            Self::In(key, values) => one_of(key, values),
            // As in Kubernetes, a label that isn't there is not in anything.
            Self::NotIn(key, values) => !one_of(key, values),
            Self::Exists(key) => labels.contains_key(key),
            Self::DoesNotExist(key) => !labels.contains_key(key),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(requirements: &[(&str, &str, &[&str])]) -> Labels {
        let requirement = |(key, operator, values): &(&str, &str, &[&str])| LabelRequirement {
            key: (*key).to_owned(),
            operator: (*operator).to_owned(),
            values: values.iter().map(|value| (*value).to_owned()).collect(),
        };
        Labels {
            match_labels: BTreeMap::new(),
            match_expressions: requirements.iter().map(requirement).collect(),
        }
    }

    fn matches(selector: &PolicySelector) -> bool {
        let labels = |key: &str| BTreeMap::from([(key.to_owned(), "yes".to_owned())]);
        let pod = PodFacts {
            namespace: "shop".to_owned(),
            name: "web-0".to_owned(),
            labels: labels("pod").into(),
            ..Default::default()
        };
        let namespace = NamespaceFacts {
            name: "shop".to_owned(),
            uid: String::new(),
            labels: labels("namespace"),
        };
        Selector::read(selector).0.matches(&pod, &namespace)
    }

    #[test]
    fn requirements_are_those_of_kubernetes() {
        for (requirement, met) in [
            (("pod", "In", ["yes", "no"].as_slice()), true),
            (("pod", "In", &["no"]), false),
            (("absent", "In", &["yes"]), false),
            (("pod", "NotIn", &["no"]), true),
            (("pod", "NotIn", &["yes"]), false),
            (("absent", "NotIn", &["yes"]), true),
            (("pod", "Exists", &[]), true),
            (("absent", "Exists", &[]), false),
            (("pod", "DoesNotExist", &[]), false),
            (("absent", "DoesNotExist", &[]), true),
        ] {
            let pods = Some(labels(&[requirement]));
            let selector = PolicySelector { pods, ..Default::default() };
            assert_eq!(matches(&selector), met, "{requirement:?}");
        }
    }

    #[test]
    fn all_parts_must_match_and_an_absent_part_does() {
        assert!(matches(&PolicySelector::default()));
        for (accounts, met) in [
            (["default"].as_slice(), true),
            (&["shop/default"], true),
            (&["other/default"], false),
            (&["other", "default"], true),
            (&["shop"], false),
        ] {
            let service_accounts = accounts.iter().map(|one| (*one).to_owned()).collect();
            let selector = PolicySelector { service_accounts, ..Default::default() };
            assert_eq!(matches(&selector), met, "{accounts:?}");
        }
        let selector = PolicySelector {
            namespaces: Some(labels(&[("namespace", "In", &["yes"])])),
            pods: Some(labels(&[("pod", "In", &["no"])])),
            ..Default::default()
        };
        assert!(!matches(&selector));
    }

    #[test]
    fn what_is_not_understood_is_met_and_said() {
        for (requirement, problem) in [
            (("pod", "Like", ["x"].as_slice()), "unknown"),
            (("pod", "In", &[]), "needs values"),
            (("pod", "Exists", &["x"]), "has no values"),
            (("", "Exists", &[]), "needs a key"),
        ] {
            let pods = Some(labels(&[requirement]));
            let selector = PolicySelector { pods, ..Default::default() };
            assert!(matches(&selector), "{requirement:?}");
            let (_, problems) = Selector::read(&selector);
            assert!(problems[0].contains(problem), "{problems:?}");
        }
        let service_accounts = vec!["a/b/c".to_owned(), "/x".to_owned(), String::new()];
        let selector = PolicySelector { service_accounts, ..Default::default() };
        assert_eq!(Selector::read(&selector).1.len(), 3);
    }
}
