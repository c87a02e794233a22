//! The keys of a volume's attributes, and what is wrong with their values.

use std::{fmt, time::Duration};

use super::duration;
use crate::{class::Class, id::nearest};

/// What our attributes' keys begin with.
pub const PREFIX: &str = "csi.svid.dev/";

/// Attributes that exist and are honoured.
pub(super) const SUPPORTED: [&str; 16] = [
    "ttl",
    "key-algorithm",
    "dns-names",
    "issuer-name",
    "issuer-kind",
    "issuer-group",
    "layout",
    "certificate-file",
    "key-file",
    "bundle-file",
    "combined-file",
    "uid",
    "gid",
    "mode",
    "socket",
    "jwt",
];

/// Attributes that are reserved for later versions.
pub(super) const NOT_YET: [&str; 2] = ["keystore", "keystore-password-file"];

/// Why a volume cannot be what was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// More than any volume needs, and more than its record could hold.
    #[error("the volume's attributes have {bytes} bytes in all; {max} are allowed")]
    TooLarge {
        /// Keys and values.
        bytes: usize,
        /// The most.
        max: usize,
    },
    /// Kubelet did not say which pod it is.
    #[error("volume context has no {key}: set `podInfoOnMount: true` in the CSIDriver object")]
    MissingPodInfo {
        /// The absent key.
        key: &'static str,
    },
    /// Pod info that Kubernetes would not allow.
    #[error("{key} {value} is not valid: {reason}")]
    InvalidPodInfo {
        /// The key.
        key: &'static str,
        /// Its value, shortened.
        value: Quoted,
        /// What it must be.
        reason: &'static str,
    },
    /// A persistent volume.
    #[error(
        "csi.storage.k8s.io/ephemeral is {value}, not \"true\": declare the volume inline in the pod, \
         under `csi:`, not by a PersistentVolumeClaim"
    )]
    NotEphemeral {
        /// What it is.
        value: Quoted,
    },
    /// A misspelt attribute.
    #[error("unknown volume attribute {PREFIX}{}; did you mean {PREFIX}{nearest}?", .name.bare())]
    Unknown {
        /// The key after the prefix.
        name: Quoted,
        /// The known one most like it.
        nearest: &'static str,
    },
    /// An attribute without a prefix, which nobody but us could be meant to read.
    #[error(
        "unknown volume attribute {key}: attributes begin with {PREFIX}; did you mean {PREFIX}{nearest}?"
    )]
    Unprefixed {
        /// The key.
        key: Quoted,
        /// The known one most like it.
        nearest: &'static str,
    },
    /// An attribute of a later version.
    #[error("volume attribute {PREFIX}{name} is not yet supported; remove it")]
    NotYetSupported {
        /// The key after the prefix.
        name: &'static str,
    },
    /// A value that the attribute cannot have.
    #[error("volume attribute {PREFIX}{name} {value} is not valid: {reason}")]
    Invalid {
        /// The key after the prefix.
        name: &'static str,
        /// The value, shortened.
        value: Quoted,
        /// What it must be.
        reason: String,
    },
    /// A lifetime that the driver's settings don't allow.
    #[error(
        "volume attribute {PREFIX}ttl {} is out of bounds: this node allows {} to {}",
        duration::format(*.ttl), duration::format(*.min), duration::format(*.max)
    )]
    TtlOutOfBounds {
        /// What was asked for.
        ttl: Duration,
        /// The least.
        min: Duration,
        /// The most.
        max: Duration,
    },
    /// Two files of one name.
    #[error("{first} and {second} both name the file {name}; give one of them another name")]
    NameClash {
        /// The name.
        name: Quoted,
        /// Where it comes from.
        first: String,
        /// Where it comes from too.
        second: String,
    },
    /// The layout's own name for a file cannot be one.
    #[error("{origin} would be {name}, which is no file name: {reason}; set {PREFIX}bundle-file")]
    LayoutName {
        /// Which file.
        origin: String,
        /// Its name, shortened.
        name: Quoted,
        /// What it must be.
        reason: &'static str,
    },
    /// An fsGroup that is no group.
    #[error("volume_mount_group {value} is not a group id: it must be a number up to 4294967294")]
    MountGroup {
        /// What it is, shortened.
        value: Quoted,
    },
}

/// Someone's text, escaped and shortened, fit for a message.
#[derive(Clone, PartialEq, Eq)]
pub struct Quoted(String);

// === impl SpecError ===

impl SpecError {
    /// Always the request's fault.
    pub fn class(&self) -> Class {
        Class::Invalid
    }

    pub(super) fn invalid(name: &'static str, value: &str, reason: impl fmt::Display) -> Self {
        Self::Invalid { name, value: value.into(), reason: reason.to_string() }
    }
}

/// Refuses a key that is not one of ours or of somebody else's.
pub(super) fn check_key(key: &str) -> Result<(), SpecError> {
    let nearest = |word: &str| nearest(word, SUPPORTED).unwrap_or_default();
    let Some(name) = key.strip_prefix(PREFIX) else {
        // A prefixed key is for another reader: kubelet, or the tool that made the manifest.
        return if key.contains('/') {
            Ok(())
        } else {
            Err(SpecError::Unprefixed { key: key.into(), nearest: nearest(key) })
        };
    };
    if SUPPORTED.contains(&name) {
        Ok(())
    } else if let Some(name) = NOT_YET.into_iter().find(|known| *known == name) {
        Err(SpecError::NotYetSupported { name })
    } else {
        Err(SpecError::Unknown { name: name.into(), nearest: nearest(name) })
    }
}

// === impl Quoted ===

impl Quoted {
    fn bare(&self) -> &str {
        self.0.trim_matches('"')
    }
}

impl From<&str> for Quoted {
    fn from(text: &str) -> Self {
        let shown: String = text.chars().take(64).collect();
        let more = if shown.len() < text.len() { "…" } else { "" };
        Self(format!("{shown:?}{more}"))
    }
}

impl fmt::Display for Quoted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Quoted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
