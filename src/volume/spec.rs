//! What a pod asks of its volume.

use std::{collections::BTreeMap, time::Duration};

use super::{
    attribute::{PREFIX, SpecError, check_key},
    context::VolumeContext,
    duration,
    issuer_choice::{self, IssuerChoice},
    jwt_file::{self, JwtFile},
    layout::{FileNames, Layout, TakenNames},
    ownership::{Wishes, parse_id, parse_mode},
    pod::{self, PodInfo},
    socket,
};
use crate::{
    id::{DnsTemplate, TemplateInput, TrustDomain},
    pki::{DnsName, KeyAlgorithm},
    sys::Ownership,
};

/// Bytes of keys and values in a context. JSON may need six for each, and the record must stay
/// readable; the CSI specification grants 4 KiB.
const MAX_CONTEXT: usize = 32 << 10;

/// More than any server answers to.
const MAX_DNS_NAMES: usize = 16;

/// Bounds of an SVID's lifetime, from the driver's settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// For volumes that ask for none.
    pub default_ttl: Duration,
    /// The least that a volume may ask for.
    pub min_ttl: Duration,
    /// The most.
    pub max_ttl: Duration,
}

/// A volume's wishes, all of them legal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeSpec {
    /// Whose it is.
    pub pod: PodInfo,
    /// Lifetime of its SVIDs.
    pub ttl: Duration,
    /// Whether the pod asked for that lifetime, rather than took the default.
    pub explicit_ttl: bool,
    /// Algorithm of its keys.
    pub key_algorithm: KeyAlgorithm,
    /// Whether the pod asked for that algorithm, rather than took the default.
    pub explicit_key_algorithm: bool,
    /// DNS names that its certificates are to have, where policy allows them.
    pub dns_names: Vec<DnsName>,
    /// The issuer that the pod asked for, where policy allows it.
    pub issuer: Option<IssuerChoice>,
    /// Names of its files.
    pub files: FileNames,
    /// Who may read them.
    pub ownership: Ownership,
    /// Name of the Workload API's socket; `None` where the pod wants none.
    pub socket: Option<String>,
    /// Its files with JWT-SVIDs.
    pub jwt_files: Vec<JwtFile>,
}

/// What to do with a lifetime out of bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bounds {
    Refuse,
    Clamp,
}

// === impl Limits ===

impl Default for Limits {
    fn default() -> Self {
        Self {
            default_ttl: Duration::from_secs(3600),
            min_ttl: Duration::from_secs(10),
            max_ttl: Duration::from_secs(24 * 3600),
        }
    }
}

// === impl VolumeSpec ===

impl VolumeSpec {
    /// Reads a publish request. `mount_group` is the pod's fsGroup, if it has one.
    pub fn parse(
        context: &VolumeContext,
        mount_group: Option<&str>,
        trust_domain: &TrustDomain,
        limits: &Limits,
    ) -> Result<Self, SpecError> {
        parse(context, mount_group, trust_domain, limits, Bounds::Refuse)
    }

    /// Reads a request that was accepted before: a lifetime that changed settings no longer allow
    /// is brought within them, so that no running pod breaks.
    pub fn parse_lenient(
        context: &VolumeContext,
        mount_group: Option<&str>,
        trust_domain: &TrustDomain,
        limits: &Limits,
    ) -> Result<Self, SpecError> {
        parse(context, mount_group, trust_domain, limits, Bounds::Clamp)
    }
}

fn parse(
    context: &VolumeContext,
    mount_group: Option<&str>,
    trust_domain: &TrustDomain,
    limits: &Limits,
    bounds: Bounds,
) -> Result<VolumeSpec, SpecError> {
    let bytes = context.iter().map(|(key, value)| key.len() + value.len()).sum();
    if bytes > MAX_CONTEXT {
        let max = MAX_CONTEXT;
        return Err(SpecError::TooLarge { bytes, max });
    }
    let pod = pod_info(context)?;
    context.iter().try_for_each(|(key, _)| check_key(key))?;
    let attribute = |name: &str| context.get(&format!("{PREFIX}{name}"));

    let explicit_ttl = attribute("ttl").map(parse_ttl).transpose()?;
    let ttl = match (explicit_ttl, bounds) {
        (Some(ttl), Bounds::Refuse) if ttl < limits.min_ttl || ttl > limits.max_ttl => {
            return Err(SpecError::TtlOutOfBounds {
                ttl,
                min: limits.min_ttl,
                max: limits.max_ttl,
            });
        }
        // Not `clamp`, which panics on bounds the wrong way round.
        (ttl, _) => ttl.unwrap_or(limits.default_ttl).max(limits.min_ttl).min(limits.max_ttl),
    };
    let explicit_algorithm = attribute("key-algorithm").map(parse_algorithm).transpose()?;
    let dns_names = match attribute("dns-names") {
        None => Vec::new(),
        Some(text) => dns_names(text, &pod, trust_domain)?,
    };
    let issuer = issuer_choice::parse(attribute)?;
    let layout = match attribute("layout") {
        None => Layout::default(),
        Some(name) => name.parse()?,
    };
    let mut taken = TakenNames::default();
    let files = FileNames::resolve(layout, trust_domain, attribute, &mut taken)?;
    let socket = socket::resolve(attribute("socket"), &mut taken)?;
    let jwt_files = match attribute("jwt") {
        None => Vec::new(),
        Some(text) => jwt_file::parse(text, &mut taken)?,
    };
    Ok(VolumeSpec {
        pod,
        ttl,
        explicit_ttl: explicit_ttl.is_some(),
        key_algorithm: explicit_algorithm.unwrap_or_default(),
        explicit_key_algorithm: explicit_algorithm.is_some(),
        dns_names,
        issuer,
        files,
        ownership: Wishes {
            uid: id_attribute("uid", attribute("uid"))?,
            gid: id_attribute("gid", attribute("gid"))?,
            mode: attribute("mode").map(parse_mode).transpose()?,
            fs_group: fs_group(mount_group)?,
        }
        .ownership(),
        socket,
        jwt_files,
    })
}

fn pod_info(context: &VolumeContext) -> Result<PodInfo, SpecError> {
    let required = |key: &'static str| context.get(key).ok_or(SpecError::MissingPodInfo { key });
    let checked = |key: &'static str, check: fn(&str) -> Result<(), pod::Reason>| {
        let value = required(key)?;
        check(value).map_err(|reason| SpecError::InvalidPodInfo {
            key,
            value: value.into(),
            reason,
        })?;
        Ok(value.to_owned())
    };
    let pod = PodInfo {
        namespace: checked("csi.storage.k8s.io/pod.namespace", pod::check_label)?,
        name: checked("csi.storage.k8s.io/pod.name", pod::check_subdomain)?,
        uid: checked("csi.storage.k8s.io/pod.uid", pod::check_uid)?,
        service_account: checked("csi.storage.k8s.io/serviceAccount.name", pod::check_subdomain)?,
    };
    match required("csi.storage.k8s.io/ephemeral")? {
        "true" => Ok(pod),
        other => Err(SpecError::NotEphemeral { value: other.into() }),
    }
}

fn parse_ttl(text: &str) -> Result<Duration, SpecError> {
    duration::parse(text).map_err(|error| SpecError::invalid("ttl", text, error))
}

fn parse_algorithm(name: &str) -> Result<KeyAlgorithm, SpecError> {
    name.parse().ok().ok_or_else(|| {
        let all = KeyAlgorithm::ALL.map(KeyAlgorithm::as_str).join(", ");
        SpecError::invalid("key-algorithm", name, format!("it must be one of {all}"))
    })
}

/// Templates with commas between, each of which makes one name.
fn dns_names(
    text: &str,
    pod: &PodInfo,
    trust_domain: &TrustDomain,
) -> Result<Vec<DnsName>, SpecError> {
    let invalid = |reason: &dyn std::fmt::Display| SpecError::invalid("dns-names", text, reason);
    if text.contains("{namespace-label:") {
        return Err(invalid(&"a node does not know the labels of namespaces; write the name out"));
    }
    let input = TemplateInput {
        namespace: &pod.namespace,
        service_account: &pod.service_account,
        pod_name: &pod.name,
        namespace_labels: &BTreeMap::new(),
    };
    let mut names: Vec<DnsName> = Vec::new();
    for template in text.split(',') {
        let template: DnsTemplate = template.trim().parse().map_err(|error| invalid(&error))?;
        let name = template.render(trust_domain, &input).map_err(|error| invalid(&error))?;
        let name = name.parse().map_err(|error| invalid(&format!("{name}: {error}")))?;
        if !names.contains(&name) {
            names.push(name);
        }
    }
    if names.len() > MAX_DNS_NAMES {
        return Err(invalid(&format!("at most {MAX_DNS_NAMES} names are allowed")));
    }
    Ok(names)
}

fn id_attribute(name: &'static str, value: Option<&str>) -> Result<Option<u32>, SpecError> {
    let Some(value) = value else { return Ok(None) };
    let id = parse_id(value)
        .ok_or_else(|| SpecError::invalid(name, value, "it must be a number up to 4294967294"))?;
    Ok(Some(id))
}

/// An unset protobuf string is an empty one.
fn fs_group(mount_group: Option<&str>) -> Result<Option<u32>, SpecError> {
    match mount_group {
        None | Some("") => Ok(None),
        Some(text) => match parse_id(text) {
            Some(gid) => Ok(Some(gid)),
            None => Err(SpecError::MountGroup { value: text.into() }),
        },
    }
}

#[cfg(test)]
mod tests;
