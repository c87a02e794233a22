//! What a report tells of certificates, keys, bundles and volumes. A member that is not known is
//! absent.

use std::{collections::BTreeMap, fs::Metadata, os::unix::fs::MetadataExt};

use serde::{Serialize, Serializer};

use super::{delivered::JwtKey, moment::Moment, socket::Socket};
use crate::volume::{PodInfo, RecordState};

/// A certificate, the first of its chain.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::cli) struct Svid {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::cli) spiffe_id: Option<String>,
    pub(in crate::cli) serial: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) subject: String,
    pub(super) issuer: String,
    pub(super) not_before: Moment,
    pub(in crate::cli) not_after: Moment,
    /// Negative once it has expired.
    pub(super) expires_in_seconds: i64,
    pub(super) key_algorithm: String,
    pub(super) sha256: String,
    /// How many certificates the chain has.
    pub(super) chain_length: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) renewal: Option<Renewal>,
}

/// When the certificate is renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", untagged)]
pub(super) enum Renewal {
    /// The driver's own instant.
    #[serde(rename_all = "camelCase")]
    At { at: Moment },
    /// Somewhere in between: the instant depends on the volume's id, which is not known.
    #[serde(rename_all = "camelCase")]
    Between { earliest: Moment, latest: Moment },
}

/// Whether the certificate chains to a bundle.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Chain {
    pub(super) verified: bool,
    /// The bundle's file.
    pub(super) against: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<String>,
}

/// A private key, as far as anyone may know it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Key {
    pub(super) algorithm: String,
    /// Whether it is the certificate's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) matches: Option<bool>,
}

/// A trust bundle.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::cli) struct Bundle {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) trust_domain: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) sequence: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) refresh_hint_seconds: Option<u64>,
    pub(in crate::cli) authorities: Vec<Authority>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) jwt_authorities: Vec<JwtKey>,
}

/// A CA of a bundle.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::cli) struct Authority {
    pub(super) subject: String,
    pub(super) serial: String,
    pub(super) not_before: Moment,
    pub(super) not_after: Moment,
    pub(super) expires_in_seconds: i64,
    pub(super) key_algorithm: String,
    pub(super) sha256: String,
}

/// What is particular to a volume.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Volume {
    /// `tls` …, or `custom` if no layout has these names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) layout: Option<&'static str>,
    /// Whether `.svid/record.json` could be read: root can.
    pub(super) record_read: bool,
    #[serde(flatten)]
    pub(super) recorded: Option<Recorded>,
    pub(super) directory: Owner,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) set: Option<Set>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) mount: Option<Mount>,
    pub(super) federated: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) socket: Option<Socket>,
}

/// What the driver's record says; names and meaning as in `record.json`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Recorded {
    pub(super) driver: String,
    pub(super) volume_id: String,
    pub(super) state: RecordState,
    pub(super) target: String,
    pub(super) pod: PodInfo,
    /// What the pod asked for, without the prefix.
    pub(super) attributes: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) mount_group: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) last_error: Option<LastError>,
}

/// A failed renewal.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct LastError {
    pub(super) at: Moment,
    pub(super) class: String,
    pub(super) message: String,
}

/// The set of files that the volume shows.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Set {
    /// Counts up with each swap.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) sequence: Option<u64>,
    /// When it became the current one.
    pub(super) written_at: Moment,
}

/// The mount that the volume is on.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Mount {
    pub(super) fs_type: String,
    pub(super) source: String,
    /// A tmpfs whose source is the driver's name.
    pub(super) ours: bool,
    pub(super) noswap: bool,
}

/// Whose a file or directory is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Owner {
    #[serde(serialize_with = "octal")]
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// A file.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) size: u64,
    #[serde(flatten)]
    pub(super) owner: Owner,
}

// === impl Owner ===

impl From<&Metadata> for Owner {
    fn from(metadata: &Metadata) -> Self {
        Self { mode: metadata.mode() & 0o7777, uid: metadata.uid(), gid: metadata.gid() }
    }
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:04o} {}:{}", self.mode, self.uid, self.gid)
    }
}

fn octal<S: Serializer>(mode: &u32, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{mode:04o}"))
}
