//! What is found out about a path. The JSON form is documented in `docs/inspect.md`; a member that
//! is not known is absent.

use std::{collections::BTreeMap, fs::Metadata, os::unix::fs::MetadataExt};

use serde::{Serialize, Serializer};

use super::moment::Moment;
use crate::volume::{PodInfo, RecordState};

/// Everything that was looked at.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    pub(super) status: Status,
    pub(super) checked_at: Moment,
    pub(super) results: Vec<Inspected>,
}

/// Good or bad; the worst of several counts. Decides the exit status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Status {
    /// Nothing is wrong.
    #[default]
    Ok,
    /// Something is wrong.
    Bad,
    /// It could not be read, or not all of it.
    Unreadable,
}

/// What a path leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Kind {
    Volume,
    /// A certificate, or a chain with the leaf first.
    Certificate,
    /// CA certificates, or a SPIFFE bundle.
    Bundle,
    Key,
    /// A key and its chain in one file.
    Combined,
}

/// One path.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Inspected {
    pub(super) path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) kind: Option<Kind>,
    pub(super) status: Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) svid: Option<Svid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) chain: Option<Chain>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) key: Option<Key>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) bundle: Option<Bundle>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) volume: Option<Volume>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) files: Vec<Entry>,
    pub(super) problems: Vec<Problem>,
}

/// A certificate, the first of its chain.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Svid {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) spiffe_id: Option<String>,
    pub(super) serial: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) subject: String,
    pub(super) issuer: String,
    pub(super) not_before: Moment,
    pub(super) not_after: Moment,
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
pub(super) struct Bundle {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) trust_domain: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) sequence: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) refresh_hint_seconds: Option<u64>,
    pub(super) authorities: Vec<Authority>,
}

/// A CA of a bundle.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Authority {
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

/// What is wrong, and what to do.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Problem {
    pub(super) severity: Severity,
    pub(super) code: Code,
    pub(super) message: String,
    pub(super) action: String,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Severity {
    /// Worth knowing; changes no exit status.
    Warning,
    /// Something is wrong.
    Error,
    /// It could not be found out.
    Unreadable,
}

/// The kind of a problem; never renamed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Code {
    AuthorityExpired,
    BundleMismatch,
    Expired,
    Damaged,
    IdentityMismatch,
    KeyMismatch,
    Missing,
    Modes,
    NotAnSvid,
    NotChained,
    NotInMemory,
    NotPublished,
    NotYetValid,
    Record,
    RenewalFailing,
    RenewalOverdue,
    Unreadable,
    Unrecognised,
}

// === impl Report ===

impl Report {
    pub(super) fn new(checked_at: Moment, results: Vec<Inspected>) -> Self {
        Self {
            status: results.iter().map(|r| r.status).max().unwrap_or_default(),
            checked_at,
            results,
        }
    }
}

// === impl Status ===

impl Status {
    /// The exit status.
    pub(super) fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Bad => 1,
            Self::Unreadable => 2,
        }
    }
}

// === impl Inspected ===

impl Inspected {
    pub(super) fn new(path: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            ..Self::default()
        }
    }

    /// Something is wrong.
    pub(super) fn error(&mut self, code: Code, message: impl Into<String>, action: &str) {
        self.add(Severity::Error, code, message.into(), action);
    }

    /// Something is worth knowing.
    pub(super) fn warn(&mut self, code: Code, message: impl Into<String>, action: &str) {
        self.add(Severity::Warning, code, message.into(), action);
    }

    /// Something could not be found out.
    pub(super) fn unreadable(&mut self, code: Code, message: impl Into<String>, action: &str) {
        self.add(Severity::Unreadable, code, message.into(), action);
    }

    fn add(&mut self, severity: Severity, code: Code, message: String, action: &str) {
        self.status = self.status.max(match severity {
            Severity::Warning => Status::Ok,
            Severity::Error => Status::Bad,
            Severity::Unreadable => Status::Unreadable,
        });
        self.problems.push(Problem {
            severity,
            code,
            message,
            action: action.to_owned(),
        });
    }
}

// === impl Owner ===

impl From<&Metadata> for Owner {
    fn from(metadata: &Metadata) -> Self {
        Self {
            mode: metadata.mode() & 0o7777,
            uid: metadata.uid(),
            gid: metadata.gid(),
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_counts_and_a_warning_does_not() {
        let mut one = Inspected::new("a");
        one.warn(Code::Modes, "", "");
        assert_eq!(one.status, Status::Ok);
        one.error(Code::Expired, "", "");
        assert_eq!(one.status, Status::Bad);
        let mut two = Inspected::new("b");
        two.unreadable(Code::Unreadable, "", "");
        let moment = Moment(std::time::SystemTime::UNIX_EPOCH);
        let report = Report::new(moment, vec![two, one, Inspected::new("c")]);
        assert_eq!(
            (report.status, report.status.code()),
            (Status::Unreadable, 2)
        );
    }

    #[test]
    fn every_code_is_documented() {
        let docs = include_str!("../../../docs/inspect.md");
        use Code::*;
        for code in [
            AuthorityExpired,
            BundleMismatch,
            Expired,
            Damaged,
            IdentityMismatch,
            KeyMismatch,
            Missing,
            Modes,
            NotAnSvid,
            NotChained,
            NotInMemory,
            NotPublished,
            NotYetValid,
            Record,
            RenewalFailing,
            RenewalOverdue,
            Unreadable,
            Unrecognised,
        ] {
            let name = serde_json::to_value(code).unwrap();
            let row = format!("| `{}` |", name.as_str().unwrap());
            assert!(docs.contains(&row), "{row}");
        }
    }
}
