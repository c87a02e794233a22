//! What openssl says of our certificates, and what we say of openssl's files.

use std::path::Path;
use std::process::Command;

use super::*;

/// Runs openssl in a directory; panics with what it said if it fails.
fn openssl(directory: &Path, arguments: &str) -> String {
    let output = Command::new("openssl")
        .args(arguments.split_whitespace())
        .current_dir(directory)
        .output()
        .expect("these tests need openssl");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let said = text(&output.stdout) + &text(&output.stderr);
    assert!(output.status.success(), "openssl {arguments}: {said}");
    said
}

fn directory(files: &[(&str, &str)]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, content) in files {
        std::fs::write(directory.path().join(name), content).unwrap();
    }
    directory
}

fn seconds(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

#[test]
fn openssl_verifies_and_shows_our_svids_of_every_algorithm() {
    for algorithm in KeyAlgorithm::ALL {
        let authority = Authority::create(&td(), algorithm, 30 * DAY, now()).unwrap();
        let key = PrivateKey::generate(algorithm).unwrap();
        let csr = Csr::create(&key, &id()).unwrap();
        let svid = issue(&authority, &key);
        let directory = directory(&[
            ("ca.pem", &authority.bundle().to_pem()),
            ("svid.pem", &svid.chain_pem()),
            ("key.pem", &key.to_pem()),
        ]);
        let path = directory.path();
        std::fs::write(path.join("csr.der"), csr.der()).unwrap();

        let at = seconds(now());
        for purpose in ["sslserver", "sslclient"] {
            let verdict = openssl(
                path,
                &format!(
                    "verify -x509_strict -attime {at} -purpose {purpose} -CAfile ca.pem svid.pem"
                ),
            );
            assert_eq!(verdict.trim(), "svid.pem: OK");
        }
        openssl(path, "pkey -check -noout -in key.pem");
        let of_key = openssl(path, "pkey -in key.pem -pubout");
        let of_certificate = openssl(path, "x509 -in svid.pem -noout -pubkey");
        assert_eq!(of_key, of_certificate);
        let request = openssl(path, "req -inform DER -in csr.der -verify -noout -text");
        assert!(request.contains("verify OK"), "{request}");
        assert!(request.contains("X509v3 Subject Alternative Name: critical"));

        let shown = openssl(path, "x509 -in svid.pem -noout -text");
        for line in [
            "Version: 3 (0x2)",
            "Subject: \n",
            "X509v3 Key Usage: critical\n                Digital Signature\n",
            "TLS Web Server Authentication, TLS Web Client Authentication\n",
            "X509v3 Basic Constraints: critical\n                CA:FALSE\n",
            "X509v3 Subject Alternative Name: critical\n                URI:spiffe://example.org/ns/shop/sa/web\n",
            "X509v3 Subject Key Identifier:",
            "X509v3 Authority Key Identifier:",
        ] {
            assert!(shown.contains(line), "{line:?} is not in\n{shown}");
        }
        let shown = openssl(path, "x509 -in ca.pem -noout -text");
        for line in [
            "X509v3 Key Usage: critical\n                Certificate Sign, CRL Sign\n",
            "X509v3 Basic Constraints: critical\n                CA:TRUE\n",
            "URI:spiffe://example.org\n",
        ] {
            assert!(shown.contains(line), "{line:?} is not in\n{shown}");
        }
        let serial = openssl(path, "x509 -in svid.pem -noout -serial");
        assert_eq!(serial.trim().to_ascii_lowercase(), format!("serial={}", svid.serial_hex()));
        let fingerprint = openssl(path, "x509 -in svid.pem -noout -fingerprint -sha256");
        let digits = fingerprint.rsplit('=').next().unwrap().trim();
        assert_eq!(digits.replace(':', "").to_ascii_lowercase(), svid.leaf().sha256());
    }
}

#[test]
fn openssl_keys_of_every_form_are_read() {
    let directory = directory(&[]);
    let path = directory.path();
    for (arguments, algorithm) in [
        ("ecparam -name prime256v1 -genkey -out k", KeyAlgorithm::EcdsaP256),
        ("ecparam -name prime256v1 -genkey -noout -out k", KeyAlgorithm::EcdsaP256),
        ("ecparam -name secp384r1 -genkey -noout -out k", KeyAlgorithm::EcdsaP384),
        ("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out k", KeyAlgorithm::EcdsaP256),
        ("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384 -out k", KeyAlgorithm::EcdsaP384),
        ("genpkey -algorithm ED25519 -out k", KeyAlgorithm::Ed25519),
        ("genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out k", KeyAlgorithm::Rsa2048),
        ("genrsa -traditional -out k 2048", KeyAlgorithm::Rsa2048),
    ] {
        openssl(path, arguments);
        let text = std::fs::read_to_string(path.join("k")).unwrap();
        let key = PrivateKey::from_pem(&text).unwrap();
        assert_eq!(key.algorithm(), algorithm, "{arguments}");
        // openssl reads what we write, and finds the same key.
        std::fs::write(path.join("ours"), key.to_pem().as_bytes()).unwrap();
        assert_eq!(openssl(path, "pkey -in k -pubout"), openssl(path, "pkey -in ours -pubout"));
    }
    for (arguments, error) in [
        ("genrsa -out k 3072", PkiError::UnusableKey),
        ("ecparam -name secp521r1 -genkey -noout -out k", PkiError::UnusableKey),
        ("genpkey -algorithm ED448 -out k", PkiError::UnusableKey),
        ("genpkey -algorithm ED25519 -aes128 -pass pass:x -out k", PkiError::EncryptedKey),
        ("genrsa -traditional -aes128 -passout pass:x -out k 2048", PkiError::EncryptedKey),
    ] {
        openssl(path, arguments);
        let text = std::fs::read_to_string(path.join("k")).unwrap();
        assert_eq!(PrivateKey::from_pem(&text).unwrap_err(), error, "{arguments}");
    }
}

// A name with repeated attributes, several in one RDN and old string types must come back in the
// leaf's issuer byte for byte, or no verifier finds the CA.
#[test]
fn a_ca_of_openssl_with_an_awkward_name_signs_what_openssl_verifies() {
    let extensions = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\n";
    let configuration = format!(
        "[req]\nprompt=no\nstring_mask=MASK:0xffff\ndistinguished_name=dn\nx509_extensions=ca\n[dn]\n0.DC=org\n1.DC=example\n0.OU=one\n1.OU=two\nCN=Root \u{e4}\n+emailAddress=ca@example.org\n[ca]\n{extensions}"
    );
    let directory = directory(&[("c", &configuration), ("x", extensions)]);
    let path = directory.path();
    openssl(
        path,
        "req -x509 -utf8 -newkey ec -pkeyopt ec_paramgen_curve:P-384 -nodes -keyout root.key -out root.pem -days 9 -config c",
    );
    openssl(
        path,
        "req -utf8 -newkey rsa:2048 -nodes -keyout mid.key -out mid.csr -config c -subj /DC=org/DC=example/OU=b/OU=a/CN=Intermediate -multivalue-rdn",
    );
    openssl(
        path,
        "x509 -req -in mid.csr -CA root.pem -CAkey root.key -CAcreateserial -days 5 -extfile x -out mid.pem",
    );
    let read = |name: &str| std::fs::read_to_string(path.join(name)).unwrap();
    let clock = crate::clock::SystemClock;
    let now = crate::clock::Clock::now(&clock);
    let root = Authority::from_pem(&td(), &read("root.pem"), &read("root.key"), None, now).unwrap();
    let root_pem = read("root.pem");
    let middle =
        Authority::from_pem(&td(), &read("mid.pem"), &read("mid.key"), Some(&root_pem), now)
            .unwrap();
    for authority in [root, middle] {
        let key = key();
        let csr = Csr::create(&key, &id()).unwrap();
        let svid = authority.issue(csr.public_key(), &id(), &[], HOUR, now).unwrap();
        assert_eq!(svid.verify(&id(), key.spki_der(), &authority.bundle(), now), Ok(()));
        std::fs::write(path.join("svid.pem"), svid.chain_pem()).unwrap();
        openssl(path, "verify -CAfile root.pem -untrusted svid.pem svid.pem");
    }
}

// Other people's roots: keys that we don't make, no keyUsage.
#[test]
fn roots_of_openssl_enter_a_bundle() {
    let configuration = "[req]\nprompt=no\ndistinguished_name=dn\nx509_extensions=ca\n[dn]\nCN=root\n[ca]\nbasicConstraints=CA:TRUE\n";
    let directory = directory(&[("c", configuration)]);
    let path = directory.path();
    for (key, algorithm) in [
        ("ec -pkeyopt ec_paramgen_curve:P-521", "ecdsa-p521"),
        ("rsa:3072", "rsa-3072"),
        ("ed25519", "ed25519"),
    ] {
        openssl(path, &format!("req -x509 -newkey {key} -nodes -keyout k -out root.pem -config c"));
        let text = std::fs::read_to_string(path.join("root.pem")).unwrap();
        let bundle = TrustBundle::from_pem(td(), &text).unwrap();
        let root = &bundle.x509_authorities()[0];
        assert_eq!(root.public_key_algorithm(), algorithm);
        assert!(root.is_self_signed());
        assert_eq!(bundle.to_pem(), text);
        let back = TrustBundle::from_jwks(td(), bundle.to_jwks().as_bytes()).unwrap();
        assert_eq!(back, bundle);
    }
    openssl(path, "req -x509 -newkey ed448 -nodes -keyout k -out root.pem -config c");
    let text = std::fs::read_to_string(path.join("root.pem")).unwrap();
    assert!(matches!(TrustBundle::from_pem(td(), &text), Err(BundleError::Key { index: 1, .. })));
}
