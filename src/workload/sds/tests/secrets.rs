//! What each name stands for.

use super::*;
use crate::workload::sds::secrets::Validation;

fn find(secrets: &Secrets, name: &str, validation: Validation) -> Secret {
    let entry = secrets.find(name, validation).unwrap().unwrap();
    assert_eq!(entry.name, name);
    let secret = secret(&entry.secret);
    assert_eq!(secret.name, name);
    secret
}

#[test]
fn default_and_the_spiffe_id_are_the_svid_and_its_key() {
    let secrets = secrets();
    let svid = secrets.svid.clone().unwrap();
    for name in ["default", CART] {
        let (chain, key) = certificate(&find(&secrets, name, Validation::Spiffe));
        assert_eq!(chain, svid.x509.chain_pem());
        assert_eq!(key, *svid.key.to_pem());
    }
}

#[test]
fn rootca_and_trust_domains_are_one_bundle_each() {
    let secrets = secrets();
    let own = secrets.bundles.own.to_pem();
    let partner = secrets.bundles.federated.values().next().unwrap().to_pem();
    let cases = [
        ("ROOTCA", "example.org", &own),
        (OWN, "example.org", &own),
        (PARTNER, "partner.example", &partner),
    ];
    for (name, domain, pem) in cases {
        let spiffe = find(&secrets, name, Validation::Spiffe);
        assert_eq!(trusted(&spiffe), [(domain.to_owned(), pem.clone())]);
        assert!(context(&spiffe).trusted_ca.is_none());
        let plain = find(&secrets, name, Validation::TrustedCa);
        assert_eq!(text(&context(&plain).trusted_ca), *pem);
        assert!(context(&plain).custom_validator_config.is_none());
    }
}

/// Federation §4.2: each trust domain's bundle stays by itself.
#[test]
fn all_is_every_bundle_under_its_own_trust_domain() {
    let secrets = secrets();
    let expected = [
        ("example.org".to_owned(), secrets.bundles.own.to_pem()),
        ("partner.example".to_owned(), secrets.bundles.federated.values().next().unwrap().to_pem()),
    ];
    for validation in [Validation::Spiffe, Validation::TrustedCa] {
        assert_eq!(trusted(&find(&secrets, "ALL", validation)), expected);
    }
    let alone = find(&alone(&secrets), "ALL", Validation::TrustedCa);
    assert_eq!(trusted(&alone), expected[..1]);
}

#[test]
fn nothing_else_is_found() {
    let secrets = secrets();
    for name in
        ["", "*", "rootca", "example.org", "spiffe://other.example", "spiffe://example.org/"]
    {
        assert!(secrets.find(name, Validation::Spiffe).unwrap().is_none(), "{name}");
    }
    let foreign = "spiffe://example.org/ns/shop/sa/other";
    assert!(secrets.find(foreign, Validation::Spiffe).unwrap().is_none());
}

#[test]
fn a_version_changes_with_the_content_only_and_tells_nothing_of_a_key() {
    let before = secrets();
    let version = |secrets: &Secrets, name: &str, validation| {
        secrets.find(name, validation).unwrap().unwrap().version
    };
    for name in ["default", CART, "ROOTCA", OWN, PARTNER, "ALL"] {
        let held = version(&before, name, Validation::Spiffe);
        assert_eq!(held, version(&before.clone(), name, Validation::Spiffe), "{name}");
        let is_svid = matches!(name, "default" | CART);
        assert_eq!(held != version(&rotated(&before), name, Validation::Spiffe), is_svid, "{name}");
        let is_own = matches!(name, "ROOTCA" | OWN | "ALL");
        let other = version(&another_ca(&before), name, Validation::Spiffe);
        assert_eq!(held != other, is_own, "{name}");
    }
    let mut other_key = before.clone();
    other_key.svid = Ok(OfferedSvid {
        x509: before.svid.clone().unwrap().x509,
        key: svid(&authority("example.org")).key,
    });
    let held = version(&before, "default", Validation::Spiffe);
    assert_eq!(held, version(&other_key, "default", Validation::Spiffe));
}

#[test]
fn without_an_svid_there_are_bundles_only_and_the_reason() {
    let gone = Secrets { svid: Err(Status::permission_denied("no identity issued")), ..secrets() };
    assert!(trusted(&find(&gone, "ALL", Validation::Spiffe)).len() == 2);
    for name in ["default", CART, "anything"] {
        let status = gone.find(name, Validation::Spiffe).err().unwrap();
        assert_eq!(status.code(), tonic::Code::PermissionDenied, "{name}");
    }
    assert_eq!(gone.names().unwrap_err().message(), "no identity issued");
}
