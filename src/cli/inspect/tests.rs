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
        let svid = ca.issue(csr.public_key(), &id, &[], HOUR, start).unwrap();
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

mod token {
    use serde_json::{Value, json};

    use super::{Code, Files, Inspected, Moment, Report, Style, codes, render};
    use crate::{
        jose::{JwtClaims, JwtKey, JwtKeyAlgorithm, JwtSvid},
        pki::{Authority, KeyAlgorithm},
    };
    use std::{fs, time::Duration};

    const LIFE: Duration = Duration::from_secs(300);

    /// A bundle with a JWT key as `ca.pem`, and a token that the key signed.
    fn files() -> (Files, JwtSvid) {
        let files = Files::new();
        let key = JwtKey::generate(JwtKeyAlgorithm::Es256).unwrap();
        let domain = "example.org".parse().unwrap();
        let ca = Authority::create(&domain, KeyAlgorithm::EcdsaP256, LIFE * 100, files.start);
        let bundle = ca.unwrap().bundle().with_jwt_authorities(vec![key.authority().clone()]);
        fs::write(files.path("ca.pem"), bundle.to_jwks()).unwrap();
        let claims = JwtClaims {
            id: "spiffe://example.org/ns/a/sa/b".parse().unwrap(),
            audience: vec!["reports".to_owned(), "sales".to_owned()],
            issued_at: files.start,
            expires_at: files.start + LIFE,
            issuer: Some("https://issuer.example.org".to_owned()),
            jti: false,
            extra: Default::default(),
        };
        let token = key.sign(&claims).unwrap();
        fs::write(files.path("token"), format!("{}\n", token.token())).unwrap();
        (files, token)
    }

    /// As JSON, and as people see it; never with the signature (invariant 1).
    fn shown(result: Inspected, files: &Files, token: &JwtSvid) -> (Value, String) {
        let report = Report::new(Moment(files.start), vec![result]);
        let json = serde_json::to_value(&report).unwrap();
        let text = render(&report, Style::of(false, |_| None));
        let signature = token.token().rsplit('.').next().unwrap();
        for shown in [json.to_string(), text.clone()] {
            assert!(!shown.contains(signature) && !shown.contains("eyJ"), "{shown}");
        }
        (json["results"][0].clone(), text)
    }

    #[test]
    fn a_good_token_is_told_and_verified() {
        let (files, token) = files();
        let result = files.at("token", LIFE / 2);
        assert_eq!(codes(&result), []);
        let (json, text) = shown(result, &files, &token);
        assert_eq!(json["kind"], "token");
        let found = &json["tokens"][0];
        assert_eq!(found["spiffeId"], "spiffe://example.org/ns/a/sa/b");
        assert_eq!(found["audience"], json!(["reports", "sales"]));
        assert_eq!((&found["algorithm"], &found["verified"]), (&json!("ES256"), &json!(true)));
        assert_eq!(found["claims"]["iss"], "https://issuer.example.org");
        assert_eq!(found["expiresInSeconds"], 150);
        for line in
            ["JWT-SVID, ok", "reports, sales", "expires in 2m 30s", "verified against", "iss"]
        {
            assert!(text.contains(line), "{line}: {text}");
        }
    }

    #[test]
    fn a_bundle_shows_its_jwt_keys() {
        let (files, token) = files();
        let (json, text) = shown(files.at("ca.pem", LIFE), &files, &token);
        let key = &json["bundle"]["jwtAuthorities"][0];
        assert_eq!(key["kind"], "ecdsa-p256");
        assert!(text.contains(&format!("ecdsa-p256, kid {}", key["kid"].as_str().unwrap())));
    }

    #[test]
    fn bad_tokens_are_bad() {
        let (files, token) = files();
        let after = files.at("token", LIFE);
        assert_eq!(codes(&after), [Code::Expired], "the signature is good all the same");
        assert_eq!(shown(after, &files, &token).0["tokens"][0]["verified"], true);
        let before = files.inspect("token", files.start - LIFE);
        assert_eq!(codes(&before), [Code::NotYetValid]);

        let (other, _) = self::files();
        fs::copy(other.path("ca.pem"), files.path("ca.pem")).unwrap();
        let result = files.at("token", LIFE / 2);
        assert_eq!(codes(&result), [Code::NotChained], "another key");
        assert_eq!(shown(result, &files, &token).0["tokens"][0]["verified"], false);

        for damaged in
            ["eyJhbGciOiJub25lIn0.e30.", "eyJ.a.b", &token.token()[..token.token().len() - 1]]
        {
            fs::write(files.path("token"), damaged).unwrap();
            let found = codes(&files.at("token", LIFE / 2));
            assert!(
                found == [Code::Damaged] || found == [Code::NotChained],
                "{damaged}: {found:?}"
            );
        }
        fs::write(files.path("token"), "eyJ.no").unwrap();
        assert_eq!(codes(&files.at("token", LIFE)), [Code::Unrecognised]);
    }
}
