//! Trust bundles from a hostile source, as PEM and as a SPIFFE bundle (JWKS).

#![no_main]

use libfuzzer_sys::fuzz_target;
use svid_csi::{id::TrustDomain, pki::TrustBundle};

fuzz_target!(|data: &[u8]| {
    let domain: TrustDomain = "example.org".parse().expect("a trust domain");
    if let Ok(bundle) = TrustBundle::from_jwks(domain.clone(), data) {
        round_trip(&domain, &bundle);
        let read = TrustBundle::from_jwks(domain.clone(), bundle.to_jwks().as_bytes());
        let read = read.expect("its own form");
        assert!(read == bundle);
        assert_eq!(read.refresh_hint(), bundle.refresh_hint());
    }
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(bundle) = TrustBundle::from_pem(domain.clone(), text) {
        round_trip(&domain, &bundle);
    }
});

/// A bundle that was accepted is not empty, and survives both forms.
fn round_trip(domain: &TrustDomain, bundle: &TrustBundle) {
    let authorities = bundle.x509_authorities();
    assert!(!authorities.is_empty());
    let pem = TrustBundle::from_pem(domain.clone(), &bundle.to_pem()).expect("its own form");
    let jwks = TrustBundle::from_jwks(domain.clone(), bundle.to_jwks().as_bytes());
    let jwks = jwks.expect("its own form");
    for read in [pem, jwks] {
        let same = read.x509_authorities().iter().map(|authority| authority.der());
        assert!(same.eq(authorities.iter().map(|authority| authority.der())));
        assert!(authorities.iter().all(|authority| read.contains(authority)));
    }
}
