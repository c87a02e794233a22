//! What our certificates look like, and nothing of it from the requester but the public key.

use std::time::{Duration, SystemTime};

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::{SecureRandom, SystemRandom};

use super::spki::Spki;
use super::{DnsName, PkiError, PrivateKey};
use crate::encoding::der::{
    OCTET_STRING, OID, PRINTABLE_STRING, SEQUENCE, SET, UTF8_STRING, bit_string, element, hex,
    positive_integer, sequence, time,
};
use crate::id::{SpiffeId, TrustDomain};

/// The certificates that we sign (RFC 5280, X509-SVID.md).
///
/// A workload's: empty subject, critical URI SAN (and the DNS names that policy allows), keyUsage digitalSignature (critical), extKeyUsage
/// serverAuth and clientAuth, cA false, key identifiers, a random positive serial of 128 bits. A
/// CA's: a subject of its own, the trust domain's ID as URI SAN, keyCertSign and cRLSign, cA true.
#[derive(Clone, Copy, Debug)]
pub struct Profile;

/// Who signs: the name, key identifier and key that go into a certificate.
pub(super) struct Issuer<'a> {
    pub(super) name: &'a [u8],
    pub(super) key_id: &'a [u8],
    pub(super) key: &'a PrivateKey,
}

/// From when to when, whole seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Validity {
    pub(super) not_before: SystemTime,
    pub(super) not_after: SystemTime,
}

pub(super) const SAN_OID: [u8; 3] = [0x55, 0x1d, 17];
const SUBJECT_KEY_ID_OID: [u8; 3] = [0x55, 0x1d, 14];
const KEY_USAGE_OID: [u8; 3] = [0x55, 0x1d, 15];
const BASIC_CONSTRAINTS_OID: [u8; 3] = [0x55, 0x1d, 19];
const AUTHORITY_KEY_ID_OID: [u8; 3] = [0x55, 0x1d, 35];
const EXT_KEY_USAGE_OID: [u8; 3] = [0x55, 0x1d, 37];
const SERVER_AUTH: [u8; 10] = [OID, 8, 0x2b, 6, 1, 5, 5, 7, 3, 1];
const CLIENT_AUTH: [u8; 10] = [OID, 8, 0x2b, 6, 1, 5, 5, 7, 3, 2];
/// BIT STRING with bit 0.
const DIGITAL_SIGNATURE: [u8; 4] = [3, 2, 7, 0x80];
/// BIT STRING with bits 5 and 6.
const KEY_CERT_SIGN_AND_CRL_SIGN: [u8; 4] = [3, 2, 1, 0x06];
const TRUE: [u8; 3] = [1, 1, 0xff];
const VERSION_3: [u8; 5] = [0xa0, 3, 2, 1, 2];

// === impl Profile ===

impl Profile {
    /// The longest that a certificate begins before its making, for clocks that lag: whoever signs
    /// and whoever verifies are different machines.
    pub const MAX_BACKDATE: Duration = Duration::from_secs(60);

    /// How long before its making a certificate of this lifetime begins.
    pub fn backdate(ttl: Duration) -> Duration {
        Self::MAX_BACKDATE.min(ttl / 10)
    }

    /// The validity of a certificate made `now`: backdated a little, never outside `limit`.
    pub(super) fn validity(
        now: SystemTime,
        ttl: Duration,
        limit: Option<Validity>,
    ) -> Option<Validity> {
        let not_before = whole_seconds(now.checked_sub(Self::backdate(ttl))?)?;
        let not_after = whole_seconds(now.checked_add(ttl)?)?;
        Some(match limit {
            Some(limit) => Validity {
                not_before: not_before.max(limit.not_before),
                not_after: not_after.min(limit.not_after),
            },
            None => Validity { not_before, not_after },
        })
    }

    /// A workload's certificate, in DER.
    pub(super) fn workload(
        issuer: &Issuer<'_>,
        spki: &[u8],
        id: &SpiffeId,
        dns_names: &[DnsName],
        validity: Validity,
    ) -> Result<Vec<u8>, PkiError> {
        let subject_key_id = key_id(spki)?;
        let extensions = sequence(&[
            &extension(&KEY_USAGE_OID, true, &DIGITAL_SIGNATURE),
            &extension(&EXT_KEY_USAGE_OID, false, &sequence(&[&SERVER_AUTH, &CLIENT_AUTH])),
            &extension(&BASIC_CONSTRAINTS_OID, true, &[SEQUENCE, 0]),
            &key_ids(&subject_key_id, issuer.key_id),
            &alt_names(id, dns_names, true),
        ]);
        sign(issuer, &serial()?, validity, &[SEQUENCE, 0], spki, &extensions)
    }

    /// A self-signed CA certificate of the trust domain, in DER.
    pub(super) fn authority(
        key: &PrivateKey,
        trust_domain: &TrustDomain,
        validity: Validity,
    ) -> Result<Vec<u8>, PkiError> {
        let serial = serial()?;
        let subject = authority_name(trust_domain, &serial);
        let key_id = key_id(key.spki_der())?;
        let extensions = sequence(&[
            &extension(&KEY_USAGE_OID, true, &KEY_CERT_SIGN_AND_CRL_SIGN),
            &extension(&BASIC_CONSTRAINTS_OID, true, &sequence(&[&TRUE])),
            &key_ids(&key_id, &key_id),
            &uri_san(&trust_domain.id(), false),
        ]);
        let issuer = Issuer { name: &subject, key_id: &key_id, key };
        sign(&issuer, &serial, validity, &subject, key.spki_der(), &extensions)
    }
}

/// Unique for each CA, so that a verifier with two in its bundle never tries the wrong key.
fn authority_name(trust_domain: &TrustDomain, serial: &[u8]) -> Vec<u8> {
    const ORGANIZATION: [u8; 5] = [OID, 3, 0x55, 4, 10];
    const COMMON_NAME: [u8; 5] = [OID, 3, 0x55, 4, 3];
    const SERIAL_NUMBER: [u8; 5] = [OID, 3, 0x55, 4, 5];
    // ub-organization-name is 64 (RFC 5280 appendix A); a trust domain is ASCII.
    let name = trust_domain.as_str();
    let organization = name.get(..64).unwrap_or(name);
    let attribute = |oid: &[u8], tag, value: &str| {
        element(SET, &[&sequence(&[oid, &element(tag, &[value.as_bytes()])])])
    };
    sequence(&[
        &attribute(&ORGANIZATION, UTF8_STRING, organization),
        &attribute(&COMMON_NAME, UTF8_STRING, "svid-csi CA"),
        &attribute(&SERIAL_NUMBER, PRINTABLE_STRING, &hex(serial)),
    ])
}

/// TBSCertificate and its signature.
fn sign(
    issuer: &Issuer<'_>,
    serial: &[u8],
    validity: Validity,
    subject: &[u8],
    spki: &[u8],
    extensions: &[u8],
) -> Result<Vec<u8>, PkiError> {
    let range = PkiError::Certificate { problem: "its validity is out of range" };
    let (Some(not_before), Some(not_after)) = (time(validity.not_before), time(validity.not_after))
    else {
        return Err(range);
    };
    let algorithm = sequence(&[issuer.key.signature_algorithm().as_ref()]);
    let tbs = sequence(&[
        &VERSION_3,
        &positive_integer(serial),
        &algorithm,
        issuer.name,
        &sequence(&[&not_before, &not_after]),
        subject,
        spki,
        &element(0xa3, &[extensions]),
    ]);
    let signature = issuer.key.sign(&tbs)?;
    Ok(sequence(&[&tbs, &algorithm, &bit_string(&signature)]))
}

/// One Extension.
fn extension(oid: &[u8], critical: bool, value: &[u8]) -> Vec<u8> {
    sequence(&[
        &element(OID, &[oid]),
        if critical { &TRUE } else { &[] },
        &element(OCTET_STRING, &[value]),
    ])
}

/// subjectAltName with one URI.
pub(super) fn uri_san(id: &SpiffeId, critical: bool) -> Vec<u8> {
    alt_names(id, &[], critical)
}

/// subjectAltName: the URI first, then the DNS names.
pub(super) fn alt_names(id: &SpiffeId, dns_names: &[DnsName], critical: bool) -> Vec<u8> {
    let mut names = element(0x86, &[id.as_str().as_bytes()]);
    for name in dns_names {
        names.extend(element(0x82, &[name.as_str().as_bytes()]));
    }
    extension(&SAN_OID, critical, &sequence(&[&names]))
}

/// subjectKeyIdentifier and authorityKeyIdentifier, one after the other.
fn key_ids(subject: &[u8], authority: &[u8]) -> Vec<u8> {
    let subject = element(OCTET_STRING, &[subject]);
    let authority = sequence(&[&element(0x80, &[authority])]);
    [
        extension(&SUBJECT_KEY_ID_OID, false, &subject),
        extension(&AUTHORITY_KEY_ID_OID, false, &authority),
    ]
    .concat()
}

/// RFC 7093 §2 method 1: the leftmost 160 bits of SHA-256 of the key.
pub(super) fn key_id(spki: &[u8]) -> Result<Vec<u8>, PkiError> {
    let key = Spki::parse(spki)
        .ok_or(PkiError::Certificate { problem: "its public key is malformed" })?;
    Ok(digest(&SHA256, key.bits).as_ref().iter().take(20).copied().collect())
}

/// 128 random bits whose first byte is not zero, so that the length is always the same.
fn serial() -> Result<[u8; 16], PkiError> {
    let mut serial = [0; 16];
    SystemRandom::new().fill(&mut serial).map_err(|_unspecified| PkiError::Random)?;
    if let Some(first) = serial.first_mut() {
        *first = (*first).max(1);
    }
    Ok(serial)
}

/// Certificates know no fractions.
fn whole_seconds(at: SystemTime) -> Option<SystemTime> {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(since.as_secs()))
}
