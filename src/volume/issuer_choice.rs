//! The issuer that a pod asks for, where cert-manager signs.

use super::attribute::SpecError;

/// One of cert-manager's issuers, as a pod names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuerChoice {
    /// Its name.
    pub name: String,
    /// Its kind; `ClusterIssuer` without it.
    pub kind: Option<String>,
    /// Its group; `cert-manager.io` without it.
    pub group: Option<String>,
}

/// Longer than any object's name.
const LONGEST: usize = 253;

/// From the attributes `issuer-name`, `issuer-kind` and `issuer-group`.
pub(super) fn parse<'a>(
    attribute: impl Fn(&str) -> Option<&'a str>,
) -> Result<Option<IssuerChoice>, SpecError> {
    let read = |name: &'static str, legal: fn(u8) -> bool, form: &'static str| {
        let Some(value) = attribute(name) else { return Ok(None) };
        let ends = [value.bytes().next(), value.bytes().last()];
        let ends = ends.iter().all(|byte| byte.is_some_and(|byte| byte.is_ascii_alphanumeric()));
        match ends && value.len() <= LONGEST && value.bytes().all(legal) {
            true => Ok(Some(value.to_owned())),
            false => Err(SpecError::invalid(name, value, form)),
        }
    };
    let dns =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte);
    let named = "it must be a name of at most 253 of a-z, 0-9, '-' and '.'";
    let name = read("issuer-name", dns, named)?;
    let kind = read(
        "issuer-kind",
        |byte| byte.is_ascii_alphanumeric(),
        "it must be a kind, such as ClusterIssuer",
    )?;
    let group = read("issuer-group", dns, named)?;
    match (name, kind, group) {
        (Some(name), kind, group) => Ok(Some(IssuerChoice { name, kind, group })),
        (None, None, None) => Ok(None),
        (None, kind, group) => {
            let (given, value) = match (kind, group) {
                (Some(kind), _) => ("issuer-kind", kind),
                (None, group) => ("issuer-group", group.unwrap_or_default()),
            };
            Err(SpecError::invalid(given, &value, "it needs csi.svid.dev/issuer-name beside it"))
        }
    }
}
