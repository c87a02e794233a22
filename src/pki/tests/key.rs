//! Private keys.

use super::*;

#[test]
fn names_round_trip() {
    for algorithm in KeyAlgorithm::ALL {
        assert_eq!(algorithm.to_string().parse(), Ok(algorithm));
        let json = serde_json::to_string(&algorithm).unwrap();
        assert_eq!(json, format!("\"{algorithm}\""));
        assert_eq!(serde_json::from_str::<KeyAlgorithm>(&json).unwrap(), algorithm);
    }
    assert_eq!(KeyAlgorithm::default().to_string(), "ecdsa-p256");
    for bad in ["", "ECDSA-P256", "rsa", "rsa-1024", "ecdsa_p256"] {
        assert!(bad.parse::<KeyAlgorithm>().is_err(), "{bad}");
    }
}

#[test]
fn every_algorithm_round_trips_through_pem_and_der() {
    for algorithm in KeyAlgorithm::ALL {
        let key = PrivateKey::generate(algorithm).unwrap();
        assert_eq!(key.algorithm(), algorithm);
        let from_pem = PrivateKey::from_pem(&key.to_pem()).unwrap();
        let from_der = PrivateKey::from_pkcs8_der(key.pkcs8_der()).unwrap();
        for read in [from_pem, from_der] {
            assert_eq!(read.algorithm(), algorithm);
            assert_eq!(read.spki_der(), key.spki_der());
            assert_eq!(read.pkcs8_der(), key.pkcs8_der());
        }
        // rcgen, through its own reader, agrees on the public key.
        let other = rcgen::KeyPair::from_pem(&key.to_pem()).unwrap();
        assert_eq!(rcgen::PublicKeyData::subject_public_key_info(&other), key.spki_der());
    }
}

#[test]
fn each_key_is_new() {
    assert_ne!(key().spki_der(), key().spki_der());
}

#[test]
fn unusable_keys_say_why() {
    let pem = key().to_pem();
    let read = |text: &str| PrivateKey::from_pem(text).unwrap_err();
    assert_eq!(read(""), PkiError::NoKey);
    assert_eq!(read(&authority().certificate_pem()), PkiError::NoKey);
    assert_eq!(read(&format!("{}{}", *pem, *pem)), PkiError::SeveralKeys);
    for (from, to, error) in [
        ("PRIVATE", "ENCRYPTED PRIVATE", PkiError::EncryptedKey),
        ("PRIVATE", "DSA PRIVATE", PkiError::UnusableKey),
        ("PRIVATE", "RSA PRIVATE", PkiError::UnusableKey),
    ] {
        assert_eq!(read(&pem.replace(from, to)), error);
    }
    assert_eq!(PrivateKey::from_pkcs8_der(b"junk").unwrap_err(), PkiError::UnusableKey);
    let pkcs8 = key().pkcs8_der().to_vec();
    for end in 0..pkcs8.len() {
        assert!(PrivateKey::from_pkcs8_der(&pkcs8[..end]).is_err());
    }
}

#[test]
fn a_certificate_beside_the_key_is_ignored() {
    let key = key();
    let combined = format!("{}{}", *key.to_pem(), authority().certificate_pem());
    assert_eq!(PrivateKey::from_pem(&combined).unwrap().spki_der(), key.spki_der());
}
