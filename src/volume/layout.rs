//! Which files a set consists of and what they are called.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    str::FromStr,
};

use zeroize::Zeroizing;

use super::attribute::{PREFIX, SpecError};
use crate::{
    id::TrustDomain,
    pki::{TrustBundle, X509Svid},
    sys::FileSet,
};

/// Names that applications and other tools expect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Layout {
    /// `tls.crt`, `tls.key`, `ca.crt`: as in a Kubernetes TLS Secret.
    #[default]
    Tls,
    /// `svid.pem`, `svid_key.pem`, `svid_bundle.pem`: as spiffe-helper writes them.
    SpiffeHelper,
    /// `client.cert`, `client.key`, `ca.crt`: as in containerd's and Docker's `certs.d`.
    CertsD,
    /// `credential-bundle.private-key.pem`, `<trust-domain>.x509.pem`: as pod certificates have it.
    PodCertificate,
}

/// What a volume's files are called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileNames {
    /// The certificate chain, leaf first.
    pub certificate: Option<String>,
    /// The private key, PKCS#8.
    pub key: Option<String>,
    /// The own trust domain's authorities.
    pub bundle: String,
    /// Key and chain in one file, so that they match even when opened apart.
    pub combined: Option<String>,
}

/// Names in a volume, and what each is for: no two things have the same.
#[derive(Debug, Default)]
pub(super) struct TakenNames(BTreeMap<String, String>);

/// Names that come with every set or belong to the volume. The socket's is the pod's choice.
const RESERVED: [&str; 3] = [BUNDLE_JSON, FEDERATED, ".svid"];
const BUNDLE_JSON: &str = "bundle.json";
const FEDERATED: &str = "federated";

// === impl Layout ===

impl Layout {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Tls, Self::SpiffeHelper, Self::CertsD, Self::PodCertificate];

    /// The attribute's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tls => "tls",
            Self::SpiffeHelper => "spiffe-helper",
            Self::CertsD => "certs.d",
            Self::PodCertificate => "pod-certificate",
        }
    }

    /// The layout's names, before any is overridden.
    pub fn file_names(self, trust_domain: &TrustDomain) -> FileNames {
        let three = |certificate: &str, key: &str, bundle: &str| FileNames {
            certificate: Some(certificate.to_owned()),
            key: Some(key.to_owned()),
            bundle: bundle.to_owned(),
            combined: None,
        };
        match self {
            Self::Tls => three("tls.crt", "tls.key", "ca.crt"),
            Self::SpiffeHelper => three("svid.pem", "svid_key.pem", "svid_bundle.pem"),
            Self::CertsD => three("client.cert", "client.key", "ca.crt"),
            Self::PodCertificate => FileNames {
                certificate: None,
                key: None,
                bundle: format!("{trust_domain}.x509.pem"),
                combined: Some("credential-bundle.private-key.pem".to_owned()),
            },
        }
    }
}

impl FromStr for Layout {
    type Err = SpecError;

    fn from_str(name: &str) -> Result<Self, SpecError> {
        let known = |layout: &Self| layout.as_str() == name;
        Self::ALL.into_iter().find(known).ok_or_else(|| {
            let all = Self::ALL.map(Self::as_str).join(", ");
            SpecError::invalid("layout", name, format!("it must be one of {all}"))
        })
    }
}

// === impl FileNames ===

impl FileNames {
    /// The layout's names with those that `attribute` gives by name (`certificate-file` …) in
    /// place of them, each noted in `taken`.
    pub(super) fn resolve<'a>(
        layout: Layout,
        trust_domain: &TrustDomain,
        attribute: impl Fn(&str) -> Option<&'a str>,
        taken: &mut TakenNames,
    ) -> Result<Self, SpecError> {
        let mut names = layout.file_names(trust_domain);
        let mut bundle = Some(std::mem::take(&mut names.bundle));
        for (key, what, slot) in [
            ("certificate-file", "certificate file", &mut names.certificate),
            ("key-file", "key file", &mut names.key),
            ("bundle-file", "bundle file", &mut bundle),
            ("combined-file", "combined file", &mut names.combined),
        ] {
            let origin = match attribute(key) {
                Some(name) => {
                    check_file_name(name)
                        .map_err(|reason| SpecError::invalid(key, name, reason))?;
                    *slot = Some(name.to_owned());
                    format!("{PREFIX}{key}")
                }
                None => format!("the {what} of {PREFIX}layout {}", layout.as_str()),
            };
            let Some(name) = slot.clone() else { continue };
            check_file_name(&name).map_err(|reason| SpecError::LayoutName {
                origin: origin.clone(),
                name: name.as_str().into(),
                reason,
            })?;
            taken.take(name, origin)?;
        }
        names.bundle = bundle.unwrap_or_default();
        Ok(names)
    }

    /// The whole set: the files that have names here, `bundle.json` (SPIFFE bundle of the own
    /// trust domain) and `federated/<trust-domain>.pem`.
    pub fn file_set(
        &self,
        key_pem: &str,
        svid: &X509Svid,
        bundle: &TrustBundle,
        federated: &BTreeMap<TrustDomain, TrustBundle>,
    ) -> FileSet {
        let chain = svid.chain_pem();
        let mut set = FileSet::new();
        if let Some(name) = &self.certificate {
            set.insert(name, chain.as_bytes());
        }
        if let Some(name) = &self.key {
            set.insert(name, key_pem.as_bytes());
        }
        set.insert(&self.bundle, bundle.to_pem());
        if let Some(name) = &self.combined {
            // In one piece from the start: a buffer that grew would leave a key behind.
            let mut combined = Zeroizing::new(Vec::with_capacity(key_pem.len() + chain.len() + 1));
            combined.extend_from_slice(key_pem.as_bytes());
            if !key_pem.ends_with('\n') {
                combined.push(b'\n');
            }
            combined.extend_from_slice(chain.as_bytes());
            set.files.push((name.clone(), combined));
        }
        set.insert(BUNDLE_JSON, bundle.to_jwks());
        for (trust_domain, bundle) in federated {
            // A trust domain of more than 251 bytes makes no file name; its bundle goes by socket.
            let name = format!("{trust_domain}.pem");
            if name.len() <= 255 {
                set.insert(format!("{FEDERATED}/{name}"), bundle.to_pem());
            }
        }
        set
    }
}

// === impl TakenNames ===

impl TakenNames {
    /// Takes a name for what `origin` says; fails if something else has it.
    pub(super) fn take(&mut self, name: String, origin: String) -> Result<(), SpecError> {
        match self.0.entry(name) {
            Entry::Occupied(first) => Err(SpecError::NameClash {
                name: first.key().as_str().into(),
                first: first.get().clone(),
                second: origin,
            }),
            Entry::Vacant(vacant) => {
                vacant.insert(origin);
                Ok(())
            }
        }
    }
}

pub(super) fn check_file_name(name: &str) -> Result<(), &'static str> {
    if name.is_empty() || name.len() > 255 {
        return Err("a file name has 1 to 255 bytes");
    }
    if name.contains('/') {
        return Err("it must be a plain file name without `/`");
    }
    if name.chars().any(char::is_control) {
        return Err("a file name has no control characters");
    }
    if name == "." || name.starts_with("..") {
        return Err("it must not be `.` or begin with `..`");
    }
    if RESERVED.contains(&name) {
        return Err("the volume needs that name itself");
    }
    Ok(())
}

#[cfg(test)]
mod tests;
