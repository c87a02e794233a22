//! Files at other times of day.

use std::{fs, path::PathBuf, time::Duration};

use tempfile::TempDir;

use super::{report::Code, *};
use crate::pki::{Authority, Csr, KeyAlgorithm, PrivateKey, X509Svid};

const HOUR: Duration = Duration::from_secs(3600);

/// A CA of ten hours and an SVID of one, both made at `start`.
struct Files {
    dir: TempDir,
    start: SystemTime,
    svid: X509Svid,
}

// === impl Files ===

impl Files {
    fn new() -> Self {
        let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_793_700_000);
        let domain = "example.org".parse().unwrap();
        let algorithm = KeyAlgorithm::EcdsaP256;
        let ca = Authority::create(&domain, algorithm, 10 * HOUR, start).unwrap();
        let id = "spiffe://example.org/ns/a/sa/b".parse().unwrap();
        let key = PrivateKey::generate(algorithm).unwrap();
        let csr = Csr::create(&key, &id).unwrap();
        let svid = ca.issue(&csr, &id, &[], HOUR, start).unwrap();
        let files = Self { dir: tempfile::tempdir().unwrap(), start, svid };
        fs::write(files.path("svid.pem"), files.svid.chain_pem()).unwrap();
        fs::write(files.path("key.pem"), key.to_pem()).unwrap();
        fs::write(files.path("ca.pem"), ca.bundle().to_pem()).unwrap();
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The file, so long after `start`, verified against the CA.
    fn at(&self, name: &str, later: Duration) -> Inspected {
        self.inspect(name, self.start + later)
    }

    fn inspect(&self, name: &str, now: SystemTime) -> Inspected {
        let setting = Setting {
            now,
            bundle: Some(file::bundle(&self.path("ca.pem")).unwrap()),
            driver_name: "csi.svid.dev".to_owned(),
        };
        inspect(&self.path(name), &setting)
    }
}

fn codes(result: &Inspected) -> Vec<Code> {
    result.problems.iter().map(|problem| problem.code).collect()
}

#[test]
fn a_certificate_before_in_and_after_its_time() {
    let files = Files::new();
    let good = files.at("svid.pem", Duration::ZERO);
    assert_eq!(codes(&good), []);
    assert_eq!(good.svid.unwrap().expires_in_seconds, 3600);
    // Its last second is still valid.
    let last = files.at("svid.pem", HOUR + Duration::from_millis(999));
    assert_eq!(codes(&last), []);
    let after = files.at("svid.pem", HOUR + Duration::from_secs(1));
    assert_eq!(codes(&after), [Code::Expired]);
    assert!(after.chain.unwrap().verified, "as of its end");
    let before = files.inspect("svid.pem", files.start - HOUR);
    assert_eq!(codes(&before), [Code::NotYetValid]);
}

#[test]
fn a_bundle_whose_authorities_have_ended() {
    let files = Files::new();
    assert_eq!(codes(&files.at("ca.pem", 9 * HOUR)), []);
    let ended = files.at("ca.pem", 11 * HOUR);
    assert_eq!(codes(&ended), [Code::AuthorityExpired]);
    assert_eq!(ended.status.code(), 1);
    // One of two is what a CA's replacement looks like.
    let other = Files::new();
    let both = [&files, &other].map(|files| fs::read_to_string(files.path("ca.pem")).unwrap());
    let younger = Authority::create(
        &"example.org".parse().unwrap(),
        KeyAlgorithm::EcdsaP256,
        20 * HOUR,
        files.start,
    );
    let text = both.concat() + &younger.unwrap().bundle().to_pem();
    fs::write(files.path("both.pem"), text).unwrap();
    let one = files.at("both.pem", 11 * HOUR);
    assert_eq!(codes(&one), [Code::AuthorityExpired]);
    assert_eq!(one.status.code(), 0);
}

#[test]
fn two_files_in_one() {
    let files = Files::new();
    let read = |files: &Files, name| fs::read_to_string(files.path(name)).unwrap();
    let right = read(&files, "key.pem") + &read(&files, "svid.pem");
    fs::write(files.path("all.pem"), right).unwrap();
    assert_eq!(codes(&files.at("all.pem", Duration::ZERO)), []);
    let wrong = read(&Files::new(), "key.pem") + &read(&files, "svid.pem");
    fs::write(files.path("all.pem"), wrong).unwrap();
    let wrong = files.at("all.pem", Duration::ZERO);
    assert_eq!(codes(&wrong), [Code::KeyMismatch]);
    // Invariant 1: nothing of a key in any form of the report.
    let secret = read(&files, "key.pem").lines().nth(1).unwrap().to_owned();
    let report = Report::new(Moment(files.start), vec![wrong, files.at("key.pem", HOUR)]);
    assert!(!serde_json::to_string(&report).unwrap().contains(&secret));
    let style = Style::of(true, |_| None);
    assert!(!human::render(&report, style).contains(&secret));
    assert!(!format!("{report:?}").contains(&secret));
}

#[test]
fn a_renewal_may_be_a_little_late() {
    let files = Files::new();
    let due = files.start + HOUR / 2;
    let late = |late: u64| {
        let mut result = Inspected::new("");
        judge::overdue(&mut result, due, &files.svid, due + Duration::from_secs(late));
        codes(&result)
    };
    assert_eq!(late(90), []);
    assert_eq!(late(91), [Code::RenewalOverdue]);
    assert_eq!(late(1799), [Code::RenewalOverdue]);
    assert_eq!(late(1801), [], "it has expired, which says enough");
}
