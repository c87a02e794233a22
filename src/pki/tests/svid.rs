//! The structure of SVIDs, and every reason for `verify` to say no.

use proptest::prelude::*;
use rcgen::{BasicConstraints, CustomExtension, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose};

use super::*;

/// Breaks one thing of a leaf that the CA signs.
fn broken(change: impl FnOnce(&mut CertificateParams)) -> Result<X509Svid, SvidError> {
    let mut params = leaf_params();
    change(&mut params);
    let key = KeyPair::generate().unwrap();
    let made = params.signed_by(&key, &issuer(&authority())).unwrap();
    X509Svid::from_chain(vec![certificate(&made)])
}

#[test]
fn a_leaf_of_another_maker_is_fine_if_it_follows_the_rules() {
    let svid = broken(|_| {}).unwrap();
    assert_eq!(*svid.id(), id());
    assert!(broken(|params| params.extended_key_usages.clear()).is_ok());
}

#[test]
fn must_05_exactly_one_uri_san_and_other_kinds_may_join_it() {
    assert_eq!(
        broken(|params| params.subject_alt_names.clear()),
        Err(SvidError::UriSans { count: 0 })
    );
    assert_eq!(
        broken(|params| params.subject_alt_names.push(uri("spiffe://example.org/b"))),
        Err(SvidError::UriSans { count: 2 })
    );
    assert_eq!(
        broken(|params| params.subject_alt_names.push(uri("https://example.org"))),
        Err(SvidError::UriSans { count: 2 })
    );
    assert!(matches!(
        broken(|params| params.subject_alt_names = vec![uri("https://example.org/a")]),
        Err(SvidError::Id(_))
    ));
    let svid = broken(|params| {
        params.subject_alt_names.push(SanType::DnsName("web.shop.svc".try_into().unwrap()));
    })
    .unwrap();
    assert_eq!(svid.leaf().dns_sans(), ["web.shop.svc"]);
    assert_eq!(svid.leaf().uri_sans(), [id().to_string()]);
}

#[test]
fn must_06_leaf_has_a_path_and_a_critical_san_if_the_subject_is_empty() {
    assert_eq!(
        broken(|params| params.subject_alt_names = vec![uri("spiffe://example.org")]),
        Err(SvidError::NoPath { id: td().id() })
    );
    let uncritical = broken(|params| {
        let san = super::super::profile::uri_san(&id(), false);
        // The value of the OCTET STRING: after the OID (5 bytes) and two headers.
        let value = san[2 + 5 + 2..].to_vec();
        params.subject_alt_names.clear();
        params.custom_extensions.push(CustomExtension::from_oid_content(&[2, 5, 29, 17], value));
    });
    assert_eq!(uncritical, Err(SvidError::SanNotCritical));

    let ours = issue(&authority(), &key());
    assert!(ours.leaf().subject_is_empty());
    assert!(ours.leaf().san_is_critical());
    assert_eq!(ours.leaf().subject(), "");
}

#[test]
fn must_08_leaf_is_no_ca() {
    assert_eq!(
        broken(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)),
        Err(SvidError::LeafIsCa)
    );
    let authority = authority();
    assert!(authority.certificate().is_ca());
    assert!(!issue(&authority, &key()).leaf().is_ca());
}

#[test]
fn must_09_key_usage_is_present_critical_and_right() {
    assert_eq!(broken(|params| params.key_usages.clear()), Err(SvidError::NoKeyUsage));
    assert_eq!(
        broken(|params| {
            params.key_usages.clear();
            params
                .custom_extensions
                .push(CustomExtension::from_oid_content(&[2, 5, 29, 15], vec![3, 2, 7, 0x80]));
        }),
        Err(SvidError::KeyUsageNotCritical)
    );
    assert_eq!(
        broken(|params| params.key_usages = vec![KeyUsagePurpose::KeyEncipherment]),
        Err(SvidError::NoDigitalSignature)
    );
    for usage in [KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign] {
        assert_eq!(broken(|params| params.key_usages.push(usage)), Err(SvidError::SigningUsage));
    }

    let authority = authority();
    let ours = issue(&authority, &key());
    assert_eq!(ours.leaf().key_usages(), ["digitalSignature"]);
    assert!(ours.leaf().key_usage().unwrap().critical);
    assert_eq!(authority.certificate().key_usages(), ["keyCertSign", "cRLSign"]);
    assert!(authority.certificate().key_usage().unwrap().critical);
}

#[test]
fn must_10_extended_key_usage_has_both_or_is_absent() {
    for only in [
        ExtendedKeyUsagePurpose::ClientAuth,
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::Any,
    ] {
        assert_eq!(
            broken(|params| params.extended_key_usages = vec![only]),
            Err(SvidError::ExtendedKeyUsage)
        );
    }
    assert_eq!(
        issue(&authority(), &key()).leaf().extended_key_usages(),
        ["serverAuth", "clientAuth"]
    );
}

#[test]
fn an_empty_chain_is_refused() {
    assert_eq!(X509Svid::from_chain(Vec::new()), Err(SvidError::Empty));
}

#[test]
fn a_root_at_the_end_of_a_chain_is_dropped() {
    let authority = authority();
    let mut chain = issue(&authority, &key()).chain().to_vec();
    chain.push(authority.certificate().clone());
    let svid = X509Svid::from_chain(chain).unwrap();
    assert_eq!(svid.chain().len(), 1);
}

#[test]
fn intermediates_must_be_cas_without_a_path() {
    let (authority, key) = (authority(), key());
    let svid = issue(&authority, &key);
    let twice = vec![svid.leaf().clone(), svid.leaf().clone()];
    assert_eq!(X509Svid::from_chain(twice), Err(SvidError::IntermediateNotCa { index: 1 }));
    let mut params = ca_params("with a path");
    params.subject_alt_names = vec![uri("spiffe://example.org/a")];
    let made = params.signed_by(&KeyPair::generate().unwrap(), &issuer(&authority)).unwrap();
    assert_eq!(
        X509Svid::from_chain(vec![svid.leaf().clone(), certificate(&made)]),
        Err(SvidError::IntermediateHasPath { index: 1 })
    );
}

#[test]
fn a_good_svid_verifies_from_its_first_to_its_last_second() {
    let (authority, key) = (authority(), key());
    let svid = issue(&authority, &key);
    let verify = |at| svid.verify(&id(), key.spki_der(), &authority.bundle(), at);
    let fraction = Duration::from_millis(999);
    assert_eq!(verify(now()), Ok(()));
    assert_eq!(verify(svid.not_before()), Ok(()));
    assert_eq!(verify(svid.not_after() + fraction), Ok(()));
    assert_eq!(verify(svid.not_before() - Duration::from_millis(1)), Err(SvidError::NotYetValid));
    assert_eq!(verify(svid.not_after() + Duration::from_secs(1)), Err(SvidError::Expired));
    assert_eq!(verify(SystemTime::UNIX_EPOCH), Err(SvidError::NotYetValid));
    assert_eq!(verify(SystemTime::UNIX_EPOCH - DAY), Err(SvidError::NotYetValid));
}

#[test]
fn another_key_is_refused() {
    let authority = authority();
    let svid = issue(&authority, &key());
    assert_eq!(
        svid.verify(&id(), key().spki_der(), &authority.bundle(), now()),
        Err(SvidError::WrongKey)
    );
}

#[test]
fn another_id_is_refused() {
    let (authority, key) = (authority(), key());
    let svid = issue(&authority, &key);
    let expected: SpiffeId = "spiffe://example.org/ns/shop/sa/other".parse().unwrap();
    assert_eq!(
        svid.verify(&expected, key.spki_der(), &authority.bundle(), now()),
        Err(SvidError::WrongId { expected, found: id() })
    );
}

#[test]
fn another_trust_domains_bundle_is_refused() {
    let (authority, key) = (authority(), key());
    let svid = issue(&authority, &key);
    let other: TrustDomain = "other.org".parse().unwrap();
    let bundle = TrustBundle::new(other.clone(), authority.roots().to_vec()).unwrap();
    assert_eq!(
        svid.verify(&id(), key.spki_der(), &bundle, now()),
        Err(SvidError::WrongBundle { id: id(), bundle: other })
    );
}

#[test]
fn another_root_is_refused() {
    let key = key();
    let svid = issue(&authority(), &key);
    assert_eq!(
        svid.verify(&id(), key.spki_der(), &authority().bundle(), now()),
        Err(SvidError::Untrusted)
    );
}

#[test]
fn a_root_of_the_same_name_but_another_key_is_refused() {
    let key = KeyPair::generate().unwrap();
    let root = |key: &KeyPair| certificate(&ca_params("twin").self_signed(key).unwrap());
    let made = leaf_params()
        .signed_by(&key, &Issuer::new(ca_params("twin"), KeyPair::generate().unwrap()))
        .unwrap();
    let svid = X509Svid::from_chain(vec![certificate(&made)]).unwrap();
    let bundle = TrustBundle::new(td(), vec![root(&key)]).unwrap();
    assert_eq!(
        svid.verify(&id(), svid.leaf().spki_der(), &bundle, now()),
        Err(SvidError::Signature)
    );
}

#[test]
fn an_expired_root_in_the_bundle_is_no_anchor() {
    let (authority, key) = (authority(), key());
    let ca_key = KeyPair::from_pem(&authority.key_pem()).unwrap();
    let mut params = ca_params("old");
    params.not_before = (now() - 9 * DAY).into();
    params.not_after = (now() - DAY).into();
    let root = certificate(&params.self_signed(&ca_key).unwrap());
    let made = leaf_params()
        .signed_by(&KeyPair::from_pem(&key.to_pem()).unwrap(), &Issuer::new(params, ca_key))
        .unwrap();
    let svid = X509Svid::from_chain(vec![certificate(&made)]).unwrap();
    let bundle = TrustBundle::new(td(), vec![root]).unwrap();
    assert_eq!(
        svid.verify(&id(), key.spki_der(), &bundle, now()),
        Err(SvidError::AuthorityNotValid)
    );
}

/// Root, intermediate changed by the caller, leaf.
fn through_intermediate(change: impl FnOnce(&mut CertificateParams)) -> Result<(), SvidError> {
    let root = authority();
    let mut params = ca_params("intermediate");
    change(&mut params);
    let intermediate_key = KeyPair::generate().unwrap();
    let intermediate = params.signed_by(&intermediate_key, &issuer(&root)).unwrap();
    let key = key();
    let made = leaf_params()
        .signed_by(
            &KeyPair::from_pem(&key.to_pem()).unwrap(),
            &Issuer::new(params, intermediate_key),
        )
        .unwrap();
    let svid = X509Svid::from_chain(vec![certificate(&made), certificate(&intermediate)])?;
    assert_eq!(svid.chain().len(), 2);
    svid.verify(&id(), key.spki_der(), &root.bundle(), now())
}

#[test]
fn chains_through_an_intermediate_are_checked_whole() {
    assert_eq!(through_intermediate(|_| {}), Ok(()));
    assert_eq!(
        through_intermediate(|params| params.not_after = (now() - HOUR).into()),
        Err(SvidError::IntermediateNotValid)
    );
    assert_eq!(
        through_intermediate(|params| params.is_ca = IsCa::NoCa),
        Err(SvidError::IntermediateNotCa { index: 1 })
    );
    assert_eq!(
        through_intermediate(|params| params.key_usages = vec![KeyUsagePurpose::DigitalSignature]),
        Err(SvidError::IntermediateNotCa { index: 1 })
    );
    // A verifier that checks nested purposes would refuse clients or servers.
    assert!(matches!(
        through_intermediate(
            |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]
        ),
        Err(SvidError::Chain { .. })
    ));
    assert_eq!(
        through_intermediate(
            |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::Any]
        ),
        Ok(())
    );
}

#[test]
fn a_missing_intermediate_is_refused() {
    let root = authority();
    let intermediate_key = KeyPair::generate().unwrap();
    let made = leaf_params()
        .signed_by(
            &KeyPair::generate().unwrap(),
            &Issuer::new(ca_params("intermediate"), intermediate_key),
        )
        .unwrap();
    let svid = X509Svid::from_chain(vec![certificate(&made)]).unwrap();
    assert_eq!(
        svid.verify(&id(), svid.leaf().spki_der(), &root.bundle(), now()),
        Err(SvidError::Untrusted)
    );
}

#[test]
fn a_changed_certificate_is_refused() {
    let (authority, key) = (authority(), key());
    let der = issue(&authority, &key).leaf().der().to_vec();
    let mut refused = 0;
    for at in 0..der.len() {
        let mut changed = der.clone();
        changed[at] ^= 1;
        let verdict = Certificate::from_der(&changed)
            .map_err(SvidError::from)
            .and_then(|leaf| X509Svid::from_chain(vec![leaf]))
            .and_then(|svid| svid.verify(&id(), key.spki_der(), &authority.bundle(), now()));
        assert!(verdict.is_err(), "byte {at}");
        refused += 1;
    }
    assert!(refused > 300);
}

#[test]
fn pem_round_trips() {
    let svid = issue(&authority(), &key());
    assert_eq!(X509Svid::from_pem(&svid.chain_pem()).unwrap(), svid);
    assert!(matches!(X509Svid::from_pem("nothing"), Err(SvidError::Pki(PkiError::NoCertificate))));
}

#[test]
fn debug_shows_neither_key_nor_der() {
    let key = key();
    let shown = format!("{key:?}");
    assert_eq!(shown, "PrivateKey(ecdsa-p256, redacted)");
    let authority = authority();
    assert!(format!("{authority:?}").len() < 400);
}

#[test]
fn all_of_it_can_be_shared_between_threads() {
    fn shared<T: Send + Sync + 'static>() {}
    shared::<Authority>();
    shared::<Certificate>();
    shared::<Csr>();
    shared::<PrivateKey>();
    shared::<TrustBundle>();
    shared::<X509Svid>();
}

#[test]
fn monstrous_certificates_are_refused() {
    let mut params = leaf_params();
    params.custom_extensions.push(CustomExtension::from_oid_content(&[1, 2, 3], vec![0; 70_000]));
    let made = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
    assert!(Certificate::from_der(made.der()).is_err());
}

proptest! {
    #[test]
    fn hostile_der_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        drop(Certificate::from_der(&bytes));
        drop(Csr::parse(&bytes));
        drop(PrivateKey::from_pkcs8_der(&bytes));
    }

    #[test]
    fn mangled_certificates_never_panic(changes in prop::collection::vec((0usize..600, any::<u8>()), 1..6), cut in 0usize..700) {
        static DER: std::sync::LazyLock<Vec<u8>> =
            std::sync::LazyLock::new(|| issue(&authority(), &key()).leaf().der().to_vec());
        let mut der = DER.clone();
        for (at, value) in changes {
            let length = der.len();
            der[at % length] = value;
        }
        der.truncate(cut.max(1));
        if let Ok(certificate) = Certificate::from_der(&der) {
            drop((certificate.subject(), certificate.public_key_algorithm(), certificate.is_self_signed()));
            drop(X509Svid::from_chain(vec![certificate]));
        }
    }

    #[test]
    fn hostile_pem_never_panics(text in "(-----BEGIN CERTIFICATE-----|-----END CERTIFICATE-----|-----BEGIN PRIVATE KEY-----|-----END PRIVATE KEY-----|MIIB|AQID|\n|=| ){0,24}") {
        drop(certificates_from_pem(&text));
        drop(PrivateKey::from_pem(&text));
        drop(TrustBundle::from_pem(td(), &text));
        drop(TrustBundle::from_jwks(td(), text.as_bytes()));
    }
}

#[test]
fn a_dns_name_that_nobody_asked_for_is_found() {
    let san = |name: &str| SanType::DnsName(name.try_into().unwrap());
    let svid = broken(|params| {
        params.subject_alt_names.extend([san("web.shop.svc"), san("web.example.org")]);
    });
    let svid = svid.unwrap();
    let names: Vec<DnsName> =
        ["web.shop.svc", "web.example.org", "x"].map(|name| name.parse().unwrap()).into();
    svid.check_dns_names(&names).unwrap();
    let found = "web.example.org".to_owned();
    assert_eq!(svid.check_dns_names(&names[..1]), Err(SvidError::DnsName { found }));
}
