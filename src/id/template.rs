//! The template that turns a pod into a SPIFFE ID.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::spiffe_id::{check_path, check_segment, is_reserved};
use super::{IdError, SpiffeId, TrustDomain, nearest};

/// A path with variables, as in `/ns/{namespace}/sa/{service-account}` (the default). Variables:
/// `{trust-domain}`, `{namespace}`, `{service-account}`, `{pod-name}` and `{namespace-label:KEY}`.
///
/// A pod's own labels and annotations are not among them: their author could choose a foreign ID.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct IdTemplate {
    source: String,
    parts: Vec<Part>,
}

/// What a template may say about a pod.
#[derive(Clone, Copy, Debug)]
pub struct TemplateInput<'a> {
    /// The pod's namespace.
    pub namespace: &'a str,
    /// The pod's ServiceAccount.
    pub service_account: &'a str,
    /// The pod's name.
    pub pod_name: &'a str,
    /// The labels of the namespace.
    pub namespace_labels: &'a BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Literal(String),
    Variable(Variable),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Variable {
    TrustDomain,
    Namespace,
    ServiceAccount,
    PodName,
    NamespaceLabel(String),
}

const DEFAULT: &str = "/ns/{namespace}/sa/{service-account}";
const LABEL: &str = "namespace-label:KEY";
const KNOWN: [&str; 5] = ["trust-domain", "namespace", "service-account", "pod-name", LABEL];

// === impl IdTemplate ===

impl IdTemplate {
    /// The ID that this template gives to a pod. Every value must be a legal path segment as it is.
    pub fn render(
        &self,
        trust_domain: &TrustDomain,
        input: &TemplateInput<'_>,
    ) -> Result<SpiffeId, IdError> {
        let mut path = String::with_capacity(self.source.len() + 64);
        for part in &self.parts {
            match part {
                Part::Literal(text) => path.push_str(text),
                Part::Variable(variable) => {
                    let value = variable.value(trust_domain, input)?;
                    if check_segment(value).is_err() {
                        return Err(IdError::Value {
                            variable: variable.to_string(),
                            value: value.chars().take(256).collect(),
                        });
                    }
                    path.push_str(value);
                }
            }
        }
        refuse_reserved(&path)?;
        SpiffeId::new(trust_domain, &path)
    }
}

/// The parts of a template; and the template with every variable replaced by a letter, whose shape
/// must be legal.
pub(super) fn parse_parts(source: &str) -> Result<(Vec<Part>, String), IdError> {
    let (mut parts, mut shape) = (Vec::new(), String::new());
    let mut rest = source;
    while !rest.is_empty() {
        let (literal, tail) = rest.split_at(rest.find(['{', '}']).unwrap_or(rest.len()));
        if !literal.is_empty() {
            shape.push_str(literal);
            parts.push(Part::Literal(literal.to_owned()));
        }
        if tail.is_empty() {
            break;
        }
        let (name, after) = tail
            .strip_prefix('{')
            .and_then(|inner| inner.split_once('}'))
            .ok_or(IdError::UnbalancedBrace)?;
        shape.push('x');
        parts.push(Part::Variable(name.parse()?));
        rest = after;
    }
    Ok((parts, shape))
}

fn refuse_reserved(path: &str) -> Result<(), IdError> {
    if is_reserved(path) { Err(IdError::Reserved) } else { Ok(()) }
}

impl Default for IdTemplate {
    fn default() -> Self {
        Self {
            source: DEFAULT.to_owned(),
            parts: vec![
                Part::Literal("/ns/".to_owned()),
                Part::Variable(Variable::Namespace),
                Part::Literal("/sa/".to_owned()),
                Part::Variable(Variable::ServiceAccount),
            ],
        }
    }
}

impl FromStr for IdTemplate {
    type Err = IdError;

    fn from_str(source: &str) -> Result<Self, IdError> {
        if source.len() > SpiffeId::MAX_LENGTH {
            return Err(IdError::TooLong { length: source.len() });
        }
        if !source.starts_with('/') {
            return Err(IdError::RelativePath);
        }
        let (parts, shape) = parse_parts(source)?;
        check_path(&shape)?;
        refuse_reserved(&shape)?;
        Ok(Self { source: source.to_owned(), parts })
    }
}

impl TryFrom<String> for IdTemplate {
    type Error = IdError;

    fn try_from(source: String) -> Result<Self, IdError> {
        source.parse()
    }
}

impl From<IdTemplate> for String {
    fn from(template: IdTemplate) -> Self {
        template.source
    }
}

impl fmt::Display for IdTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)
    }
}

// === impl Variable ===

impl Variable {
    pub(super) fn value<'v>(
        &self,
        trust_domain: &'v TrustDomain,
        input: &TemplateInput<'v>,
    ) -> Result<&'v str, IdError> {
        match self {
            Self::TrustDomain => Ok(trust_domain.as_str()),
            Self::Namespace => Ok(input.namespace),
            Self::ServiceAccount => Ok(input.service_account),
            Self::PodName => Ok(input.pod_name),
            Self::NamespaceLabel(key) => input
                .namespace_labels
                .get(key)
                .map(String::as_str)
                .ok_or_else(|| IdError::MissingLabel { key: key.clone() }),
        }
    }
}

impl FromStr for Variable {
    type Err = IdError;

    fn from_str(name: &str) -> Result<Self, IdError> {
        match name {
            "trust-domain" => Ok(Self::TrustDomain),
            "namespace" => Ok(Self::Namespace),
            "service-account" => Ok(Self::ServiceAccount),
            "pod-name" => Ok(Self::PodName),
            _ => match name.strip_prefix("namespace-label:") {
                Some("") => Err(IdError::EmptyLabelKey),
                Some(key) => Ok(Self::NamespaceLabel(key.to_owned())),
                None => Err(IdError::UnknownVariable {
                    name: name.to_owned(),
                    nearest: match name.contains(':') {
                        true => LABEL,
                        false => nearest(name, KNOWN).unwrap_or(LABEL),
                    },
                }),
            },
        }
    }
}

impl fmt::Display for Variable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TrustDomain => f.write_str("trust-domain"),
            Self::Namespace => f.write_str("namespace"),
            Self::ServiceAccount => f.write_str("service-account"),
            Self::PodName => f.write_str("pod-name"),
            Self::NamespaceLabel(key) => write!(f, "namespace-label:{key}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn td() -> TrustDomain {
        "example.org".parse().unwrap()
    }

    fn render(template: &str, namespace: &str, labels: &[(&str, &str)]) -> Result<String, IdError> {
        let namespace_labels =
            labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let input = TemplateInput {
            namespace,
            service_account: "web",
            pod_name: "web-0",
            namespace_labels: &namespace_labels,
        };
        let template: IdTemplate = template.parse()?;
        Ok(template.render(&td(), &input)?.to_string())
    }

    #[test]
    fn templates_render() {
        for (template, expected) in [
            (DEFAULT, "/ns/shop/sa/web"),
            ("/{trust-domain}/{pod-name}", "/example.org/web-0"),
            ("/fixed", "/fixed"),
            ("/t/{namespace-label:example.com/team}", "/t/red"),
            ("/a-{namespace}.{service-account}_b", "/a-shop.web_b"),
        ] {
            assert_eq!(
                render(template, "shop", &[("example.com/team", "red")]).unwrap(),
                format!("spiffe://example.org{expected}")
            );
        }
    }

    #[test]
    fn the_default_is_what_its_text_says() {
        let parsed: IdTemplate = DEFAULT.parse().unwrap();
        assert_eq!(parsed, IdTemplate::default());
        assert_eq!(parsed.to_string(), DEFAULT);
        let json = serde_json::to_string(&parsed).unwrap();
        assert_eq!(serde_json::from_str::<IdTemplate>(&json).unwrap(), parsed);
    }

    #[test]
    fn an_unknown_variable_names_the_nearest_known_one() {
        for (written, expected) in [
            ("namspace", "namespace"),
            ("service_account", "service-account"),
            ("podname", "pod-name"),
            ("namespace-label", LABEL),
            ("pod-label:x", LABEL),
            ("", "pod-name"),
        ] {
            let error = format!("/{{{written}}}").parse::<IdTemplate>().unwrap_err();
            let IdError::UnknownVariable { name, nearest } = error else {
                panic!("{error:?}");
            };
            assert_eq!((name.as_str(), nearest), (written, expected));
        }
    }

    #[test]
    fn malformed_templates_are_refused() {
        for (template, error) in [
            ("", IdError::RelativePath),
            ("ns/{namespace}", IdError::RelativePath),
            ("{namespace}", IdError::RelativePath),
            ("/", IdError::TrailingSlash),
            ("/{namespace}/", IdError::TrailingSlash),
            ("/a//{namespace}", IdError::EmptySegment),
            ("/../{namespace}", IdError::DotSegment),
            ("/a b", IdError::PathCharacter { found: ' ' }),
            ("/a%2f", IdError::PathCharacter { found: '%' }),
            ("/{namespace", IdError::UnbalancedBrace),
            ("/namespace}", IdError::UnbalancedBrace),
            ("/}{", IdError::UnbalancedBrace),
            ("/{namespace-label:}", IdError::EmptyLabelKey),
            ("/svid.dev", IdError::Reserved),
            ("/svid.dev/{namespace}", IdError::Reserved),
        ] {
            assert_eq!(template.parse::<IdTemplate>(), Err(error), "{template}");
        }
    }

    #[test]
    fn must_03_a_value_that_is_no_segment_is_refused_never_escaped() {
        for bad in ["", ".", "..", "a/b", "a:b", "ä", "a%2Fb", "a b", "/"] {
            assert!(matches!(render(DEFAULT, bad, &[]), Err(IdError::Value { .. })), "{bad}");
        }
        assert!(matches!(
            render("/a/{namespace-label:k}", "n", &[("k", "")]),
            Err(IdError::Value { .. })
        ));
        assert_eq!(
            render("/a/{namespace-label:k}", "n", &[]),
            Err(IdError::MissingLabel { key: "k".into() })
        );
    }

    #[test]
    fn reserved_paths_cannot_be_reached_through_a_value() {
        assert_eq!(render("/{namespace}/x", "svid.dev", &[]), Err(IdError::Reserved));
        assert_eq!(render("/{namespace}", "svid.dev", &[]), Err(IdError::Reserved));
        assert_eq!(render("/svid.{namespace}", "dev", &[]), Err(IdError::Reserved));
        assert!(render("/{namespace}", "svid.devel", &[]).is_ok());
    }

    #[test]
    fn must_04_a_rendered_id_is_never_longer_than_2048_bytes() {
        let long = "a".repeat(1500);
        assert!(matches!(
            render("/{namespace}/{namespace}", &long, &[]),
            Err(IdError::TooLong { .. })
        ));
    }

    proptest! {
        #[test]
        fn arbitrary_templates_never_panic(template in "[/{}a-z:. -]{0,40}", namespace in any::<String>()) {
            if let Ok(id) = render(&template, &namespace, &[]) {
                prop_assert!(id.parse::<SpiffeId>().unwrap().is_workload());
            }
        }

        // Two different pods never share an ID under the default template.
        #[test]
        fn the_default_is_injective(a in "[a-z0-9-]{1,10}", b in "[a-z0-9-]{1,10}") {
            if a != b {
                prop_assert_ne!(render(DEFAULT, &a, &[]).unwrap(), render(DEFAULT, &b, &[]).unwrap());
            }
        }
    }
}
