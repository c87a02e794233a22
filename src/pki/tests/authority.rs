//! The CA: made, loaded, refused, signing.

use rcgen::{BasicConstraints, IsCa, KeyUsagePurpose};

use super::*;

#[test]
fn every_key_algorithm_signs_every_other() {
    for ca in KeyAlgorithm::ALL {
        let authority = Authority::create(&td(), ca, 30 * DAY, now()).unwrap();
        for algorithm in [ca, KeyAlgorithm::EcdsaP256, KeyAlgorithm::Ed25519] {
            let key = PrivateKey::generate(algorithm).unwrap();
            let svid = issue(&authority, &key);
            assert_eq!(
                svid.verify(&id(), key.spki_der(), &authority.bundle(), now()),
                Ok(()),
                "{ca} signs {algorithm}"
            );
            assert_eq!(svid.leaf().public_key_algorithm(), algorithm.to_string());
        }
    }
}

#[test]
fn must_07_the_ca_is_an_svid_without_a_path() {
    let authority = authority();
    let certificate = authority.certificate();
    assert_eq!(certificate.uri_sans(), ["spiffe://example.org"]);
    assert!(certificate.is_self_signed());
    assert!(!certificate.subject_is_empty());
    assert_eq!(certificate.issuer(), certificate.subject());
    assert!(
        certificate.subject().starts_with("O=example.org, CN=svid-csi CA, serialNumber="),
        "{}",
        certificate.subject()
    );
    assert_ne!(certificate.subject(), super::authority().certificate().subject());

    let long: TrustDomain = "a".repeat(255).parse().unwrap();
    let authority = Authority::create(&long, KeyAlgorithm::EcdsaP256, DAY, now()).unwrap();
    assert_eq!(authority.certificate().uri_sans(), [long.id().to_string()]);

    let with_path = |id: &str| {
        let mut params = ca_params("odd");
        params.subject_alt_names = vec![uri(id)];
        load_root(params)
    };
    assert!(with_path("spiffe://example.org").is_ok());
    assert!(matches!(with_path("spiffe://example.org/ca"), Err(AuthorityError::ForeignId { .. })));
}

#[test]
fn certificates_are_backdated_a_little() {
    let (authority, key) = (authority(), key());
    let csr = Csr::create(&key, &id()).unwrap();
    for (ttl, backdate) in [(10, 1), (50, 5), (600, 60), (3600, 60), (86_400, 60)] {
        let ttl = Duration::from_secs(ttl);
        let backdate = Duration::from_secs(backdate);
        assert_eq!(Profile::backdate(ttl), backdate);
        let svid = authority.issue(csr.public_key(), &id(), &[], ttl, now()).unwrap();
        let floor = now() - Duration::from_millis(700);
        assert_eq!(svid.not_before(), floor - backdate);
        assert_eq!(svid.not_after(), floor + ttl);
        assert_eq!(svid.verify(&id(), key.spki_der(), &authority.bundle(), now()), Ok(()));
        // A verifier's clock may be behind, also where the CA itself is new.
        let behind = now() - backdate;
        assert_eq!(svid.verify(&id(), key.spki_der(), &authority.bundle(), behind), Ok(()));
    }
}

#[test]
fn no_leaf_outlives_or_predates_what_is_above_it() {
    let authority = Authority::create(&td(), KeyAlgorithm::EcdsaP256, HOUR, now()).unwrap();
    let key = key();
    let csr = Csr::create(&key, &id()).unwrap();
    let svid = authority.issue(csr.public_key(), &id(), &[], DAY, now()).unwrap();
    assert_eq!(svid.not_after(), authority.not_after());
    assert_eq!(svid.not_after(), authority.certificate().not_after());
    assert_eq!(svid.not_before(), authority.certificate().not_before());

    let late = authority.not_after();
    assert_eq!(authority.issue(csr.public_key(), &id(), &[], HOUR, late), Err(IssueError::Expired));
    let last = authority
        .issue(csr.public_key(), &id(), &[], HOUR, late - Duration::from_millis(1))
        .unwrap();
    assert_eq!(last.not_after(), late);
    assert_eq!(
        authority.issue(csr.public_key(), &id(), &[], HOUR, now() - DAY),
        Err(IssueError::NotYetValid)
    );
}

#[test]
fn only_workloads_of_the_trust_domain_get_certificates() {
    let authority = authority();
    let csr = Csr::create(&key(), &id()).unwrap();
    let foreign: SpiffeId = "spiffe://other.org/a".parse().unwrap();
    assert!(matches!(
        authority.issue(csr.public_key(), &foreign, &[], HOUR, now()),
        Err(IssueError::TrustDomain { .. })
    ));
    assert_eq!(
        authority.issue(csr.public_key(), &td().id(), &[], HOUR, now()),
        Err(IssueError::NoPath { id: td().id() })
    );
    assert!(matches!(
        authority.issue(csr.public_key(), &id(), &[], Duration::ZERO, now()),
        Err(IssueError::Ttl { .. })
    ));
    assert!(matches!(
        authority.issue(csr.public_key(), &id(), &[], Duration::MAX, now()),
        Err(IssueError::Ttl { .. })
    ));
}

#[test]
fn only_the_public_key_is_taken_from_the_request() {
    let authority = authority();
    let asked: SpiffeId = "spiffe://example.org/asked".parse().unwrap();
    let csr = Csr::create(&key(), &asked).unwrap();
    let svid = authority.issue(csr.public_key(), &id(), &[], HOUR, now()).unwrap();
    assert_eq!(*svid.id(), id());
    assert_eq!(svid.leaf().spki_der(), csr.spki_der());
}

#[test]
fn dns_names_stand_beside_the_uri_and_verify() {
    let authority = authority();
    let key = key();
    let csr = Csr::create(&key, &id()).unwrap();
    let names: Vec<DnsName> =
        ["web.shop.svc", "web.example.org"].map(|name| name.parse().unwrap()).into();
    let svid = authority.issue(csr.public_key(), &id(), &names, HOUR, now()).unwrap();
    assert_eq!(svid.leaf().uri_sans(), [id().to_string()]);
    assert_eq!(svid.leaf().dns_sans(), ["web.shop.svc", "web.example.org"]);
    svid.verify(&id(), key.spki_der(), &authority.bundle(), now()).unwrap();
}

#[test]
fn the_longest_id_fits() {
    let authority = authority();
    let key = key();
    let path = format!("/{}", "a".repeat(2048 - td().id().as_str().len() - 1));
    let id = SpiffeId::new(&td(), &path).unwrap();
    let csr = Csr::create(&key, &id).unwrap();
    assert_eq!(Csr::parse(csr.der()).unwrap(), csr);
    let svid = authority.issue(csr.public_key(), &id, &[], HOUR, now()).unwrap();
    assert_eq!(svid.verify(&id, key.spki_der(), &authority.bundle(), now()), Ok(()));
}

#[test]
fn serials_are_random_and_of_128_bits() {
    let (authority, key) = (authority(), key());
    let one = issue(&authority, &key);
    let two = issue(&authority, &key);
    assert_ne!(one.serial_hex(), two.serial_hex());
    for svid in [one, two] {
        assert_eq!(svid.serial_hex().len(), 32);
        assert!(svid.serial_hex().bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase()));
    }
}

#[test]
fn ca_lifetimes_have_bounds() {
    for bad in [0, 59, 101 * 366 * 86_400] {
        assert!(matches!(
            Authority::create(&td(), KeyAlgorithm::EcdsaP256, Duration::from_secs(bad), now()),
            Err(AuthorityError::Lifetime { .. })
        ));
    }
    // Beyond 2049 the encoding of times changes.
    let century = 99 * 365 * DAY;
    let authority = Authority::create(&td(), KeyAlgorithm::EcdsaP256, century, now()).unwrap();
    let key = key();
    let svid = issue(&authority, &key);
    assert_eq!(svid.verify(&id(), key.spki_der(), &authority.bundle(), now()), Ok(()));
}

fn load_root(params: CertificateParams) -> Result<Authority, AuthorityError> {
    let key = KeyPair::generate().unwrap();
    let root = params.self_signed(&key).unwrap();
    Authority::from_pem(&td(), &root.pem(), &key.serialize_pem(), None, now())
}

#[test]
fn what_is_written_loads() {
    for algorithm in KeyAlgorithm::ALL {
        let made = Authority::create(&td(), algorithm, DAY, now()).unwrap();
        let (crt, key) = (made.certificate_pem(), made.key_pem());
        for ca in [None, Some(crt.as_str())] {
            let loaded = Authority::from_pem(&td(), &crt, &key, ca, now()).unwrap();
            assert_eq!(loaded.certificate(), made.certificate());
            assert_eq!(loaded.bundle(), made.bundle());
            assert_eq!(loaded.not_after(), made.not_after());
            assert_eq!(loaded.key_id(), made.key_id());
            assert_eq!(loaded.key_id(), made.certificate().sha256());
            assert!(loaded.chain().is_empty());
        }
    }
}

#[test]
fn bad_cas_are_refused_each_for_its_reason() {
    let load = |change: &dyn Fn(&mut CertificateParams)| {
        let mut params = ca_params("root");
        change(&mut params);
        load_root(params).map(|_| ()).unwrap_err()
    };
    assert!(matches!(
        load(&|params| params.not_after = (now() - HOUR).into()),
        AuthorityError::Expired { .. }
    ));
    assert!(matches!(
        load(&|params| params.not_before = (now() + HOUR).into()),
        AuthorityError::NotYetValid { .. }
    ));
    assert!(matches!(
        load(&|params| params.is_ca = IsCa::ExplicitNoCa),
        AuthorityError::NotCa { .. }
    ));
    assert!(matches!(
        load(&|params| params.key_usages = vec![KeyUsagePurpose::DigitalSignature]),
        AuthorityError::NotCa { .. }
    ));
    assert!(matches!(
        load(&|params| params.subject_alt_names = vec![uri("spiffe://other.org")]),
        AuthorityError::ForeignId { .. }
    ));
    // The CA's own ID is optional.
    assert!(load_root(ca_params("root")).is_ok());

    let (one, two) = (authority(), authority());
    let from = |crt: &str, key: &str, ca: Option<&str>| {
        Authority::from_pem(&td(), crt, key, ca, now()).map(|_| ()).unwrap_err()
    };
    let (crt, key) = (one.certificate_pem(), one.key_pem());
    assert_eq!(from(&crt, &two.key_pem(), None), AuthorityError::KeyMismatch);
    assert!(matches!(from("x", &key, None), AuthorityError::Certificate(_)));
    assert!(matches!(from(&crt, "x", None), AuthorityError::Key(_)));
    assert!(matches!(from(&crt, &key, Some("x")), AuthorityError::Root(_)));
    assert!(matches!(
        from(&crt[..crt.len() / 2], &key, None),
        AuthorityError::Certificate(PkiError::Pem { .. })
    ));
    assert!(matches!(
        from(&crt, &key, Some(&two.certificate_pem())),
        AuthorityError::NotChained { .. }
    ));
    // A leaf with its key.
    let leaf_key = super::key();
    let leaf = issue(&one, &leaf_key);
    assert!(matches!(
        from(&leaf.chain_pem(), &leaf_key.to_pem(), Some(&crt)),
        AuthorityError::NotCa { .. }
    ));
}

/// Root and intermediates below it, each changed by the caller: the PEM of the chain with the lowest
/// first, and the key of the lowest.
fn intermediates(
    root: &Authority,
    names: &[&str],
    change: impl Fn(&str, &mut CertificateParams),
) -> (String, String) {
    let mut above = issuer(root);
    let mut chain = String::new();
    let mut key_pem = String::new();
    for name in names {
        let mut params = ca_params(name);
        change(name, &mut params);
        let key = KeyPair::generate().unwrap();
        let made = params.signed_by(&key, &above).unwrap();
        chain = made.pem() + &chain;
        key_pem = key.serialize_pem();
        above = Issuer::new(params, key);
    }
    (chain, key_pem)
}

#[test]
fn an_intermediate_signs_with_its_chain() {
    let root = authority();
    let root_pem = root.certificate_pem();
    for names in [&["one"][..], &["one", "two"], &["one", "two", "three"]] {
        let (chain, key) = intermediates(&root, names, |_, _| {});
        // A root at the end of tls.crt does no harm.
        for chain in [chain.clone(), format!("{chain}{root_pem}")] {
            let authority =
                Authority::from_pem(&td(), &chain, &key, Some(&root_pem), now()).unwrap();
            assert_eq!(authority.roots(), root.roots());
            assert_eq!(authority.chain().len(), names.len());
            let workload = super::key();
            let svid = issue(&authority, &workload);
            assert_eq!(svid.chain().len(), names.len() + 1);
            assert_eq!(svid.verify(&id(), workload.spki_der(), &root.bundle(), now()), Ok(()));
            let again = authority.certificate_pem();
            assert!(Authority::from_pem(&td(), &again, &key, Some(&root_pem), now()).is_ok());
        }
    }
}

#[test]
fn a_leaf_ends_with_the_first_end_above_it() {
    let root = authority();
    let soon = now() + Duration::from_secs(600);
    for short in ["one", "two"] {
        let (chain, key) = intermediates(&root, &["one", "two"], |name, params| {
            if name == short {
                params.not_after = soon.into();
            }
        });
        let authority =
            Authority::from_pem(&td(), &chain, &key, Some(&root.certificate_pem()), now()).unwrap();
        let end = soon - Duration::from_millis(700);
        assert_eq!(authority.not_after(), end);
        assert_eq!(issue(&authority, &super::key()).not_after(), end);
    }
}

#[test]
fn bad_chains_are_refused_each_for_its_reason() {
    let root = authority();
    let root_pem = root.certificate_pem();
    let load = |chain: &str, key: &str, ca: Option<&str>| {
        Authority::from_pem(&td(), chain, key, ca, now()).map(|_| ()).unwrap_err()
    };
    let (chain, key) = intermediates(&root, &["one", "two"], |_, _| {});
    assert!(matches!(load(&chain, &key, None), AuthorityError::NoRoot { .. }));
    assert!(matches!(
        load(&chain, &key, Some(&authority().certificate_pem())),
        AuthorityError::NotChained { .. }
    ));
    // Without the upper intermediate.
    let certificates = certificates_from_pem(&chain).unwrap();
    assert!(matches!(
        load(&certificates_to_pem(&certificates[..1]), &key, Some(&root_pem)),
        AuthorityError::NotChained { .. }
    ));
    // Signing CA last.
    let reversed: Vec<_> = certificates.into_iter().rev().collect();
    assert_eq!(
        load(&certificates_to_pem(&reversed), &key, Some(&root_pem)),
        AuthorityError::KeyMismatch
    );

    let (chain, key) = intermediates(&root, &["one", "two"], |name, params| {
        if name == "one" {
            params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        }
    });
    assert!(matches!(
        load(&chain, &key, Some(&root_pem)),
        AuthorityError::Useless(SvidError::Chain { .. })
    ));

    let (chain, key) = intermediates(&root, &["one", "two"], |name, params| {
        if name == "one" {
            params.not_after = (now() - HOUR).into();
        }
    });
    assert!(matches!(load(&chain, &key, Some(&root_pem)), AuthorityError::Expired { .. }));
}

#[test]
fn old_roots_in_ca_crt_stay_in_the_bundle() {
    let (old, new) = (authority(), authority());
    let ca = format!("{}{}", new.certificate_pem(), old.certificate_pem());
    let loaded =
        Authority::from_pem(&td(), &new.certificate_pem(), &new.key_pem(), Some(&ca), now())
            .unwrap();
    assert_eq!(loaded.bundle(), new.bundle().merged(&old.bundle()));
}

#[test]
fn errors_have_classes() {
    use crate::class::Class;
    assert_eq!(AuthorityError::KeyMismatch.class(), Class::NotReady);
    assert_eq!(IssueError::Expired.class(), Class::NotReady);
    assert_eq!(SvidError::WrongKey.class(), Class::Internal);
    assert_eq!(SvidError::Untrusted.class(), Class::Unavailable);
    assert_eq!(CsrError::Signature.class(), Class::Invalid);
    assert_eq!(PkiError::Random.class(), Class::Internal);
}
