//! What is found out about paths, and whether it is good. The JSON form is documented in
//! `docs/inspect.md`.

use serde::Serialize;

use super::{
    delivered::Delivered,
    facts::{Bundle, Chain, Entry, Key, Svid, Volume},
    moment::Moment,
    token::Token,
};

/// Everything that was looked at.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::cli) struct Report {
    pub(in crate::cli) status: Status,
    pub(super) checked_at: Moment,
    pub(in crate::cli) results: Vec<Inspected>,
}

/// Good or bad; the worst of several counts. Decides the exit status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::cli) enum Status {
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
    /// A JWT-SVID.
    Token,
}

/// One path.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::cli) struct Inspected {
    pub(super) path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) kind: Option<Kind>,
    pub(in crate::cli) status: Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::cli) svid: Option<Svid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) chain: Option<Chain>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) key: Option<Key>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::cli) bundle: Option<Bundle>,
    /// The JWT-SVID, or those of a volume.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) tokens: Vec<Token>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) volume: Option<Volume>,
    #[serde(flatten)]
    pub(in crate::cli) delivered: Option<Delivered>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) files: Vec<Entry>,
    pub(in crate::cli) problems: Vec<Problem>,
}

/// What is wrong, and what to do.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::cli) struct Problem {
    pub(super) severity: Severity,
    pub(super) code: Code,
    pub(in crate::cli) message: String,
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
    Socket,
    Tainted,
    Unreadable,
    Unrecognised,
}

// === impl Report ===

impl Report {
    pub(in crate::cli) fn new(checked_at: Moment, results: Vec<Inspected>) -> Self {
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
        Self { path: path.into(), ..Self::default() }
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
        self.problems.push(Problem { severity, code, message, action: action.to_owned() });
    }
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
        assert_eq!((report.status, report.status.code()), (Status::Unreadable, 2));
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
            Socket,
            Tainted,
            Unreadable,
            Unrecognised,
        ] {
            let name = serde_json::to_value(code).unwrap();
            let row = format!("| `{}` |", name.as_str().unwrap());
            assert!(docs.contains(&row), "{row}");
        }
    }
}
