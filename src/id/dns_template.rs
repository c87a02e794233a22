//! The template that turns a pod into a DNS name of its certificate.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::template::{Part, Variable, parse_parts};
use super::{IdError, TemplateInput, TrustDomain};

/// A DNS name with variables, as in `{service-account}.{namespace}.svc`. The variables are those of
/// [`IdTemplate`](super::IdTemplate). Each but `{trust-domain}` stands for exactly one label or a
/// part of one: a dot in it would let a pod's author choose a name in another's domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DnsTemplate {
    source: String,
    parts: Vec<Part>,
}

const MAX_LENGTH: usize = 1024;

// === impl DnsTemplate ===

impl DnsTemplate {
    /// The name that this template gives to a pod. Whether it is a legal DNS name, as its length
    /// goes, is for whoever uses it to check.
    pub fn render(
        &self,
        trust_domain: &TrustDomain,
        input: &TemplateInput<'_>,
    ) -> Result<String, IdError> {
        let mut name = String::new();
        for part in &self.parts {
            match part {
                Part::Literal(text) => name.push_str(text),
                Part::Variable(variable) => {
                    let value = variable.value(trust_domain, input)?;
                    if !is_value(variable, value) {
                        return Err(IdError::DnsValue {
                            variable: variable.to_string(),
                            value: value.chars().take(256).collect(),
                        });
                    }
                    name.push_str(value);
                }
            }
        }
        Ok(name)
    }
}

fn is_value(variable: &Variable, value: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    match variable {
        Variable::TrustDomain => value.split('.').all(label),
        _ => label(value),
    }
}

impl FromStr for DnsTemplate {
    type Err = IdError;

    fn from_str(source: &str) -> Result<Self, IdError> {
        if source.is_empty() || source.len() > MAX_LENGTH {
            return Err(IdError::DnsLength { length: source.len() });
        }
        let (parts, shape) = parse_parts(source)?;
        let allowed = |c: &char| matches!(c, 'a'..='z' | '0'..='9' | '-' | '.');
        if let Some(found) = shape.chars().find(|c| !allowed(c)) {
            return Err(IdError::DnsCharacter { found });
        }
        Ok(Self { source: source.to_owned(), parts })
    }
}

impl TryFrom<String> for DnsTemplate {
    type Error = IdError;

    fn try_from(source: String) -> Result<Self, IdError> {
        source.parse()
    }
}

impl From<DnsTemplate> for String {
    fn from(template: DnsTemplate) -> Self {
        template.source
    }
}

impl fmt::Display for DnsTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn render(template: &str, pod: &str) -> Result<String, IdError> {
        let labels = BTreeMap::from([("team".to_owned(), "Red_1".to_owned())]);
        let input = TemplateInput {
            namespace: "shop",
            service_account: "web",
            pod_name: pod,
            namespace_labels: &labels,
        };
        template.parse::<DnsTemplate>()?.render(&"example.org".parse().unwrap(), &input)
    }

    #[test]
    fn templates_render() {
        for (template, name) in [
            ("web.example.org", "web.example.org"),
            ("{service-account}.{namespace}.svc", "web.shop.svc"),
            ("{pod-name}.{trust-domain}", "web-0.example.org"),
            ("a-{namespace}-b", "a-shop-b"),
        ] {
            assert_eq!(render(template, "web-0").unwrap(), name);
        }
    }

    #[test]
    fn a_value_that_is_no_label_is_refused_never_escaped() {
        for bad in ["a.b", "", "-a", "a-", "A", "a_b", "*", "a b", "ä"] {
            let error = render("{pod-name}.svc", bad).unwrap_err();
            assert!(matches!(error, IdError::DnsValue { .. }), "{bad}: {error}");
        }
        assert!(matches!(render("{namespace-label:team}", "p"), Err(IdError::DnsValue { .. })));
    }

    #[test]
    fn malformed_templates_are_refused() {
        let long = "a".repeat(MAX_LENGTH + 1);
        for (template, error) in [
            ("", IdError::DnsLength { length: 0 }),
            (long.as_str(), IdError::DnsLength { length: MAX_LENGTH + 1 }),
            ("*.example.org", IdError::DnsCharacter { found: '*' }),
            ("Web", IdError::DnsCharacter { found: 'W' }),
            ("a b", IdError::DnsCharacter { found: ' ' }),
            ("{namespace", IdError::UnbalancedBrace),
        ] {
            assert_eq!(template.parse::<DnsTemplate>(), Err(error), "{template}");
        }
    }

    proptest! {
        #[test]
        fn no_pod_name_makes_more_labels(pod in "[a-z0-9.-]{1,20}|.*") {
            if let Ok(name) = render("{pod-name}.svc", &pod) {
                prop_assert_eq!(name.split('.').count(), 2);
            }
        }
    }
}
