//! The audit stream: one JSON line for each decision, on standard output. `docs/audit.md` says what
//! the fields mean.

use std::{
    fmt,
    io::{self, Write},
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use serde::{Serialize, Serializer};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{clock::Clock, pki::DnsName};

/// Longer strings are cut: whoever makes a request chooses some of them.
const LONGEST: usize = 512;

/// Where decisions are written down.
pub struct Audit {
    clock: Arc<dyn Clock>,
    replica: String,
    out: Mutex<Box<dyn Write + Send>>,
}

/// What was decided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// The request is admitted.
    Approve,
    /// The request is refused.
    #[default]
    Deny,
    /// A certificate or a token was made.
    Sign,
    /// An admitted request gets none.
    Fail,
}

/// The way by which it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Way {
    /// The driver made a CertificateSigningRequest.
    CertificateSigningRequest,
    /// A kubelet made a PodCertificateRequest.
    PodCertificateRequest,
    /// The driver called the controller.
    #[serde(rename = "svid.issuer.v1")]
    Call,
}

/// One decision. What isn't known is empty and left out of the line.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry<'a> {
    /// What was decided.
    pub decision: Outcome,
    /// Why, as a code.
    pub reason: &'a str,
    /// Why, for a person.
    #[serde(skip_serializing_if = "str::is_empty", serialize_with = "cut")]
    pub message: &'a str,
    /// The way by which it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub way: Option<Way>,
    /// The request's name, in a namespace NAMESPACE/NAME.
    #[serde(serialize_with = "cut")]
    pub request: &'a str,
    /// Its UID.
    #[serde(serialize_with = "cut")]
    pub request_uid: &'a str,
    /// Who made it, says the API server.
    #[serde(serialize_with = "cut")]
    pub requester: &'a str,
    /// The node that it came from, says the API server.
    #[serde(skip_serializing_if = "str::is_empty", serialize_with = "cut")]
    pub node: &'a str,
    /// That node's UID.
    #[serde(skip_serializing_if = "str::is_empty", serialize_with = "cut")]
    pub node_uid: &'a str,
    /// The driver's pod that it came from, says the API server.
    #[serde(skip_serializing_if = "str::is_empty", serialize_with = "cut")]
    pub driver_pod: &'a str,
    /// The namespace of the pod that it is for, says the requester.
    #[serde(skip_serializing_if = "str::is_empty", serialize_with = "cut")]
    pub pod_namespace: &'a str,
    /// The pod that it is for, says the requester.
    #[serde(skip_serializing_if = "str::is_empty", serialize_with = "cut")]
    pub pod: &'a str,
    /// That pod's UID, says the requester.
    #[serde(skip_serializing_if = "str::is_empty", serialize_with = "cut")]
    pub pod_uid: &'a str,
    /// The ServiceAccount that this pod runs as, says the API server.
    #[serde(skip_serializing_if = "str::is_empty", serialize_with = "cut")]
    pub service_account: &'a str,
    /// The identity: what policy gives, or, of a refused request, what it asked for.
    #[serde(skip_serializing_if = "str::is_empty", serialize_with = "cut")]
    pub spiffe_id: &'a str,
    /// The SvidPolicy that applied.
    #[serde(skip_serializing_if = "str::is_empty", serialize_with = "cut")]
    pub policy: &'a str,
    /// The lifetime, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl_seconds: Option<u64>,
    /// DNS names beside the identity.
    #[serde(skip_serializing_if = "<[DnsName]>::is_empty")]
    pub dns_names: &'a [DnsName],
    /// Of the workload's key.
    #[serde(skip_serializing_if = "str::is_empty", serialize_with = "cut")]
    pub key_algorithm: &'a str,
    /// Of the certificate, lowercase hexadecimal.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub serial: &'a str,
    /// The CA key that signed it.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub ca_key_id: &'a str,
    /// For whom a JWT-SVID is.
    #[serde(skip_serializing_if = "<[String]>::is_empty", serialize_with = "cut_each")]
    pub audience: &'a [String],
    /// The `kid` of a JWT-SVID.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub jwt_key_id: &'a str,
    /// When a JWT-SVID ends.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "at")]
    pub expires: Option<SystemTime>,
}

#[derive(Serialize)]
struct Line<'a> {
    time: String,
    #[serde(flatten)]
    entry: &'a Entry<'a>,
    replica: &'a str,
}

// === impl Audit ===

impl Audit {
    /// Writes to `out`; `replica` says which of the controllers this is.
    pub fn new(out: Box<dyn Write + Send>, replica: String, clock: Arc<dyn Clock>) -> Self {
        Self { clock, replica, out: Mutex::new(out) }
    }

    /// Writes a decision down. What fails here must not go on: a certificate without its line is
    /// one that nobody can account for.
    pub fn record(&self, entry: &Entry<'_>) -> io::Result<()> {
        let time = rfc3339(self.clock.now());
        let line = serde_json::to_string(&Line { time, entry, replica: &self.replica })?;
        let mut line = ascii(&line);
        line.push('\n');
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        out.write_all(line.as_bytes())?;
        out.flush()
    }
}

impl fmt::Debug for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Audit").field("replica", &self.replica).finish_non_exhaustive()
    }
}

// === impl Outcome ===

impl Outcome {
    /// The label in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Approve => "approve",
            Self::Deny => "deny",
            Self::Sign => "sign",
            Self::Fail => "fail",
        }
    }
}

/// In JSON every other character stands inside a string; escaped, none of them can move a cursor,
/// turn a line around or look like another.
fn ascii(json: &str) -> String {
    let mut line = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        if c.is_ascii() && c != '\x7f' {
            line.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                line.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    line
}

fn cut<S: Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => {
            serializer.collect_str(&format_args!("{}…", text.get(..end).unwrap_or_default()))
        }
        None => serializer.serialize_str(text),
    }
}

fn cut_each<S: Serializer>(texts: &[String], serializer: S) -> Result<S::Ok, S::Error> {
    let cut = |text: &String| text.chars().take(LONGEST).collect::<String>();
    serializer.collect_seq(texts.iter().map(cut))
}

fn at<S: Serializer>(time: &Option<SystemTime>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&time.map(rfc3339).unwrap_or_default())
}

fn rfc3339(time: SystemTime) -> String {
    let millis = match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => i128::try_from(after.as_millis()).unwrap_or(0),
        Err(_) => 0,
    };
    OffsetDateTime::from_unix_timestamp_nanos(millis * 1_000_000)
        .ok()
        .and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    struct Noon;

    struct Full;

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Clock for Noon {
        fn now(&self) -> SystemTime {
            SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_348_800_250)
        }
    }

    fn entry() -> Entry<'static> {
        Entry {
            decision: Outcome::Sign,
            reason: "SvidPolicy",
            message: "",
            way: Some(Way::CertificateSigningRequest),
            request: "svid-01",
            request_uid: "r-1",
            requester: "system:serviceaccount:svid-csi:svid-csi",
            node: "node-1",
            node_uid: "n-1",
            driver_pod: "svid-csi-x",
            pod_namespace: "shop",
            pod: "cart-0",
            pod_uid: "p-1",
            service_account: "cart",
            spiffe_id: "spiffe://example.org/ns/shop/sa/cart",
            policy: "default",
            ttl_seconds: Some(3600),
            dns_names: &[],
            key_algorithm: "ecdsa-p256",
            serial: "0a",
            ca_key_id: "c0ffee",
            ..Entry::default()
        }
    }

    fn line(entry: &Entry<'_>) -> String {
        let page = Page::default();
        let audit =
            Audit::new(Box::new(page.clone()), "svid-csi-controller-a".into(), Arc::new(Noon));
        audit.record(entry).unwrap();
        String::from_utf8(page.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn a_line_is_what_docs_audit_md_shows() {
        let documented = include_str!("../../docs/audit.md");
        let line = line(&entry());
        assert!(documented.contains(line.trim_end()), "docs/audit.md lacks this line:\n{line}");
    }

    #[test]
    fn docs_audit_md_has_every_field() {
        let documented = include_str!("../../docs/audit.md");
        let names = ["api.shop.svc".parse().unwrap()];
        let audience = ["https://api.example".to_owned()];
        let entry = Entry {
            message: "why",
            dns_names: &names,
            audience: &audience,
            jwt_key_id: "kid",
            expires: Some(Noon.now()),
            ..entry()
        };
        let line: serde_json::Map<_, _> = serde_json::from_str(&line(&entry)).unwrap();
        for field in line.keys() {
            assert!(documented.contains(&format!("| `{field}` |")), "{field} is not documented");
        }
        let rows = documented.lines().filter(|line| line.starts_with("| `")).count();
        assert_eq!(rows, line.len(), "docs/audit.md has fields that no line has");
    }

    #[test]
    fn what_an_attacker_writes_stays_in_its_field() {
        let hostile =
            "x\",\"decision\":\"approve\"}\n{\"a\":\"\u{1b}[2J\u{9b}1A\u{202e}\u{7f}\u{10ffff}";
        let long = "é".repeat(2_000);
        let entry = Entry { decision: Outcome::Deny, pod: hostile, message: &long, ..entry() };
        let line = line(&entry);
        assert_eq!(line.matches('\n').count(), 1);
        assert!(line.trim_end().bytes().all(|byte| (0x20..0x7f).contains(&byte)), "{line}");
        let read: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(read["decision"], "deny");
        assert_eq!(read["pod"], hostile);
        assert_eq!(read["message"].as_str().unwrap().chars().count(), LONGEST + 1);
    }

    #[test]
    fn what_cannot_be_written_down_is_an_error() {
        let audit = Audit::new(Box::new(Full), String::new(), Arc::new(Noon));
        assert!(audit.record(&entry()).is_err());
    }
}
