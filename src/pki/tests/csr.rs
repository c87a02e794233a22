//! CSRs: ours, and all that is refused of others.

use rcgen::{Attribute, BasicConstraints, DnType, IsCa, KeyUsagePurpose};

use super::*;

fn parsed(change: impl FnOnce(&mut CertificateParams)) -> Result<Csr, CsrError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![uri(id().as_str())];
    change(&mut params);
    let made = params.serialize_request(&KeyPair::generate().unwrap()).unwrap();
    Csr::parse(made.der())
}

#[test]
fn ours_parse_with_every_key_algorithm() {
    for algorithm in KeyAlgorithm::ALL {
        let key = PrivateKey::generate(algorithm).unwrap();
        let csr = Csr::create(&key, &id()).unwrap();
        let parsed = Csr::parse(csr.der()).unwrap();
        assert_eq!(parsed, csr);
        assert_eq!(parsed.spki_der(), key.spki_der());
        assert_eq!(*parsed.id(), id());
        assert_eq!(parsed.key_algorithm(), Some(algorithm));
    }
}

#[test]
fn pem_is_one_block_and_nothing_else() {
    let csr = Csr::create(&key(), &id()).unwrap();
    let pem = csr.to_pem();
    assert!(pem.starts_with("-----BEGIN CERTIFICATE REQUEST-----\n"), "{pem}");
    assert_eq!(Csr::from_pem(&pem), Ok(csr));
    let twice = format!("{pem}{pem}");
    let named = pem.replace("CERTIFICATE REQUEST", "CERTIFICATE");
    for bad in ["", "x", &twice, &named, pem.trim_end_matches("-\n")] {
        assert_eq!(Csr::from_pem(bad), Err(CsrError::Pem), "{bad}");
    }
    let damaged = pem.replacen('M', "A", 1);
    assert!(Csr::from_pem(&damaged).is_err());
}

#[test]
fn a_plain_request_of_another_maker_parses() {
    assert_eq!(*parsed(|_| {}).unwrap().id(), id());
}

#[test]
fn anything_more_is_refused() {
    assert_eq!(
        parsed(|params| params.distinguished_name.push(DnType::CommonName, "x")),
        Err(CsrError::Subject)
    );
    assert_eq!(
        parsed(|params| params.key_usages = vec![KeyUsagePurpose::DigitalSignature]),
        Err(CsrError::Extensions)
    );
    assert_eq!(
        parsed(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)),
        Err(CsrError::Extensions)
    );
    assert_eq!(parsed(|params| params.subject_alt_names.clear()), Err(CsrError::Attributes));
    assert_eq!(
        parsed(|params| params.subject_alt_names.push(uri("spiffe://example.org/b"))),
        Err(CsrError::Names)
    );
    assert_eq!(
        parsed(|params| params.subject_alt_names =
            vec![SanType::DnsName("a.example".try_into().unwrap())]),
        Err(CsrError::Names)
    );
    assert!(matches!(
        parsed(|params| params.subject_alt_names = vec![uri("https://example.org/a")]),
        Err(CsrError::Id(_))
    ));
}

#[test]
fn another_attribute_is_refused() {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![uri(id().as_str())];
    let challenge =
        Attribute { oid: &[1, 2, 840, 113_549, 1, 9, 7], values: vec![0x31, 3, 0x0c, 1, b'x'] };
    let made = params
        .serialize_request_with_attributes(&KeyPair::generate().unwrap(), vec![challenge])
        .unwrap();
    assert_eq!(Csr::parse(made.der()), Err(CsrError::Attributes));
}

#[test]
fn a_wrong_signature_is_refused() {
    let csr = Csr::create(&key(), &id()).unwrap();
    let mut der = csr.der().to_vec();
    let last = der.len() - 1;
    der[last] ^= 1;
    assert_eq!(Csr::parse(&der), Err(CsrError::Signature));
    assert_eq!(Csr::parse(b"junk"), Err(CsrError::Malformed));
    let mut longer = csr.der().to_vec();
    longer.push(0);
    assert_eq!(Csr::parse(&longer), Err(CsrError::Malformed));
}

#[test]
fn no_changed_byte_passes() {
    let csr = Csr::create(&key(), &id()).unwrap();
    for at in 0..csr.der().len() {
        let mut der = csr.der().to_vec();
        der[at] ^= 1;
        assert!(Csr::parse(&der).is_err(), "byte {at}");
    }
}

#[test]
fn dns_names_are_read_only_where_they_may_be() {
    let names: Vec<DnsName> = ["a.example", "b.example"].map(|name| name.parse().unwrap()).into();
    let csr = Csr::create_with_dns_names(&key(), &id(), &names).unwrap();
    assert_eq!(Csr::parse(csr.der()), Err(CsrError::Names));
    assert_eq!(Csr::from_pem(&csr.to_pem()), Err(CsrError::Names));
    let parsed = Csr::from_pem_with_dns_names(&csr.to_pem()).unwrap();
    assert_eq!(parsed, csr);
    assert_eq!(parsed.dns_names(), names);
    let plain = Csr::create(&key(), &id()).unwrap();
    assert_eq!(Csr::parse_with_dns_names(plain.der()), Ok(plain));
}

#[test]
fn no_other_name_hides_among_the_dns_names() {
    let with = |names: Vec<SanType>| {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = names;
        let made = params.serialize_request(&KeyPair::generate().unwrap()).unwrap();
        Csr::parse_with_dns_names(made.der())
    };
    let (uri, dns) =
        (|| uri(id().as_str()), |name: &str| SanType::DnsName(name.try_into().unwrap()));
    assert!(with(vec![uri(), dns("a.example"), dns("b.example")]).is_ok());
    let many = (0..17).map(|n| dns(&format!("n{n}.example")));
    for (names, error) in [
        (vec![dns("a.example"), uri()], CsrError::Names),
        (vec![uri(), uri()], CsrError::Names),
        (vec![uri(), dns("a.example"), uri()], CsrError::Names),
        (vec![uri(), SanType::IpAddress([10, 0, 0, 1].into())], CsrError::Names),
        (vec![uri(), SanType::Rfc822Name("a@b".try_into().unwrap())], CsrError::Names),
        (vec![uri(), dns("*.example")], CsrError::DnsNames),
        (vec![uri(), dns("A.example")], CsrError::DnsNames),
        (vec![uri(), dns("a.example"), dns("a.example")], CsrError::DnsNames),
        (std::iter::once(uri()).chain(many).collect(), CsrError::DnsNames),
    ] {
        assert_eq!(with(names), Err(error));
    }
}
