//! The template that turns a pod into the text of a claim.

use std::fmt;
use std::str::FromStr;

use super::template::{Part, parse_parts};
use super::{IdError, TemplateInput, TrustDomain};

/// A text with variables, as in `{namespace-label:team}/{service-account}`. The variables are those
/// of [`IdTemplate`](super::IdTemplate). A claim is a text of its own: no value can reach into
/// another, so none is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimTemplate {
    source: String,
    parts: Vec<Part>,
}

// === impl ClaimTemplate ===

impl ClaimTemplate {
    /// The most bytes of a template.
    pub const MAX_LENGTH: usize = 256;

    /// The text that this template gives to a pod.
    pub fn render(
        &self,
        trust_domain: &TrustDomain,
        input: &TemplateInput<'_>,
    ) -> Result<String, IdError> {
        let mut text = String::new();
        for part in &self.parts {
            text.push_str(match part {
                Part::Literal(literal) => literal,
                Part::Variable(variable) => variable.value(trust_domain, input)?,
            });
        }
        Ok(text)
    }
}

impl FromStr for ClaimTemplate {
    type Err = IdError;

    fn from_str(source: &str) -> Result<Self, IdError> {
        if source.is_empty() || source.len() > Self::MAX_LENGTH {
            return Err(IdError::ClaimLength { length: source.len() });
        }
        if let Some(found) = source.chars().find(|c| c.is_control()) {
            return Err(IdError::ClaimCharacter { found });
        }
        let (parts, _shape) = parse_parts(source)?;
        Ok(Self { source: source.to_owned(), parts })
    }
}

impl fmt::Display for ClaimTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_is_rendered_and_malformed_ones_are_refused() {
        let domain: TrustDomain = "example.org".parse().unwrap();
        let namespace_labels = [("team".to_owned(), "red".to_owned())].into();
        let input = TemplateInput {
            namespace: "shop",
            service_account: "web",
            pod_name: "web-0",
            namespace_labels: &namespace_labels,
        };
        let render = |source: &str| -> Result<String, IdError> {
            source.parse::<ClaimTemplate>()?.render(&domain, &input)
        };
        for (source, expected) in [
            ("fixed \"text\"", "fixed \"text\""),
            ("{namespace-label:team}/{service-account}", "red/web"),
            ("{trust-domain}:{namespace}.{pod-name}", "example.org:shop.web-0"),
        ] {
            assert_eq!(render(source).unwrap(), expected);
        }
        let long = "x".repeat(ClaimTemplate::MAX_LENGTH + 1);
        for (source, error) in [
            ("", IdError::ClaimLength { length: 0 }),
            (&*long, IdError::ClaimLength { length: 257 }),
            ("a\nb", IdError::ClaimCharacter { found: '\n' }),
            ("{namespace", IdError::UnbalancedBrace),
            ("{namespace-label:no}", IdError::MissingLabel { key: "no".to_owned() }),
        ] {
            assert_eq!(render(source), Err(error), "{source:?}");
        }
        assert!(matches!(render("{pod-label:x}"), Err(IdError::UnknownVariable { .. })));
    }
}
