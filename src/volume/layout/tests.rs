use std::time::{Duration, SystemTime};

use super::*;
use crate::pki::{Authority, Csr, KeyAlgorithm, PrivateKey};

fn td(name: &str) -> TrustDomain {
    name.parse().unwrap()
}

fn resolve(layout: Layout, attributes: &[(&str, &'static str)]) -> Result<FileNames, SpecError> {
    let attributes: BTreeMap<&str, &'static str> = attributes.iter().copied().collect();
    let attribute = |name: &str| attributes.get(name).copied();
    FileNames::resolve(layout, &td("example.org"), attribute, &mut TakenNames::default())
}

#[test]
fn each_layout_has_its_names() {
    for (layout, certificate, key, bundle, combined) in [
        ("tls", Some("tls.crt"), Some("tls.key"), "ca.crt", None),
        ("spiffe-helper", Some("svid.pem"), Some("svid_key.pem"), "svid_bundle.pem", None),
        ("certs.d", Some("client.cert"), Some("client.key"), "ca.crt", None),
        (
            "pod-certificate",
            None,
            None,
            "example.org.x509.pem",
            Some("credential-bundle.private-key.pem"),
        ),
    ] {
        let expected = FileNames {
            certificate: certificate.map(str::to_owned),
            key: key.map(str::to_owned),
            bundle: bundle.to_owned(),
            combined: combined.map(str::to_owned),
        };
        assert_eq!(resolve(layout.parse().unwrap(), &[]), Ok(expected));
    }
    for bad in ["", "TLS", "tls ", "certs"] {
        let error = bad.parse::<Layout>().unwrap_err().to_string();
        assert!(error.contains("tls, spiffe-helper, certs.d, pod-certificate"), "{error}");
    }
}

#[test]
fn attributes_override_names_one_by_one() {
    let names = resolve(
        Layout::PodCertificate,
        &[
            ("certificate-file", "c.pem"),
            ("key-file", "k.pem"),
            ("bundle-file", "b.pem"),
            ("combined-file", "all.pem"),
        ],
    )
    .unwrap();
    assert_eq!(
        names,
        FileNames {
            certificate: Some("c.pem".into()),
            key: Some("k.pem".into()),
            bundle: "b.pem".into(),
            combined: Some("all.pem".into()),
        }
    );
    let names = resolve(Layout::Tls, &[("combined-file", "tls.pem")]).unwrap();
    assert_eq!(names.combined.as_deref(), Some("tls.pem"));
    assert_eq!(names.key.as_deref(), Some("tls.key"));
    // Names may be exchanged.
    resolve(Layout::Tls, &[("certificate-file", "tls.key"), ("key-file", "tls.crt")]).unwrap();
}

#[test]
fn a_clash_names_both_sides() {
    for (attributes, first, second) in [
        (
            vec![("certificate-file", "x"), ("combined-file", "x")],
            "csi.svid.dev/certificate-file",
            "csi.svid.dev/combined-file",
        ),
        (
            vec![("certificate-file", "tls.key")],
            "csi.svid.dev/certificate-file",
            "the key file of csi.svid.dev/layout tls",
        ),
        (
            vec![("combined-file", "ca.crt")],
            "the bundle file of csi.svid.dev/layout tls",
            "csi.svid.dev/combined-file",
        ),
    ] {
        let error = resolve(Layout::Tls, &attributes).unwrap_err();
        let SpecError::NameClash { first: a, second: b, .. } = &error else {
            panic!("{error}");
        };
        assert_eq!((a.as_str(), b.as_str()), (first, second));
    }
}

#[test]
fn file_names_are_one_plain_component() {
    for bad in [
        "",
        ".",
        "..",
        "..data",
        "..data_tmp",
        "..1",
        "a/b",
        "/etc/passwd",
        "../up",
        "a\0b",
        "a\nb",
        ".svid",
        "bundle.json",
        "federated",
    ] {
        for key in ["certificate-file", "key-file", "bundle-file", "combined-file"] {
            let error = resolve(Layout::Tls, &[(key, bad)]).unwrap_err();
            assert!(matches!(error, SpecError::Invalid { name, .. } if name == key), "{bad:?}");
        }
    }
    for good in ["a", ".a", "a..b", "with space", "é.pem"] {
        resolve(Layout::Tls, &[("key-file", good)]).unwrap();
    }
    assert!(check_file_name(&"x".repeat(255)).is_ok());
    assert!(check_file_name(&"x".repeat(256)).is_err());
}

#[test]
fn a_trust_domain_too_long_for_a_file_name_says_which_attribute_helps() {
    let long = td(&"a".repeat(250));
    let taken = &mut TakenNames::default();
    let error = FileNames::resolve(Layout::PodCertificate, &long, |_| None, taken).unwrap_err();
    assert!(error.to_string().contains("set csi.svid.dev/bundle-file"), "{error}");
    let given = |name: &str| (name == "bundle-file").then_some("ca.crt");
    let taken = &mut TakenNames::default();
    FileNames::resolve(Layout::PodCertificate, &long, given, taken).unwrap();
}

#[test]
fn the_set_has_the_right_content_under_each_name() {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let year = Duration::from_secs(365 * 24 * 3600);
    let domain = td("example.org");
    let ca = Authority::create(&domain, KeyAlgorithm::EcdsaP256, year, now).unwrap();
    let id = "spiffe://example.org/ns/shop/sa/web".parse().unwrap();
    let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
    let csr = Csr::create(&key, &id).unwrap();
    let svid = ca.issue(csr.public_key(), &id, &[], Duration::from_secs(3600), now).unwrap();
    let (other, too_long) = (td("other.example"), td(&"b".repeat(252)));
    let theirs = Authority::create(&other, KeyAlgorithm::EcdsaP256, year, now).unwrap().bundle();
    let federated = BTreeMap::from([(other, theirs.clone()), (too_long, theirs.clone())]);

    let names = resolve(Layout::Tls, &[("combined-file", "both.pem")]).unwrap();
    let key_pem = key.to_pem();
    let set = names.file_set(&key_pem, &svid, &ca.bundle(), &federated);
    let text = |path: &str| std::str::from_utf8(set.get(path).unwrap()).unwrap();
    assert_eq!(text("tls.crt"), svid.chain_pem());
    assert_eq!(text("tls.key"), key_pem.as_str());
    assert_eq!(text("ca.crt"), ca.bundle().to_pem());
    assert_eq!(text("bundle.json"), ca.bundle().to_jwks());
    assert_eq!(text("federated/other.example.pem"), theirs.to_pem());
    assert_eq!(text("both.pem"), format!("{}{}", key_pem.as_str(), svid.chain_pem()));
    assert_eq!(set.files.len(), 6);

    let names = resolve(Layout::PodCertificate, &[]).unwrap();
    let set = names.file_set(&key_pem, &svid, &ca.bundle(), &BTreeMap::new());
    let paths: Vec<&str> = set.paths().collect();
    assert_eq!(paths, ["example.org.x509.pem", "credential-bundle.private-key.pem", "bundle.json"]);
}
