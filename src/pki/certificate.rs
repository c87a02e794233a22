//! An X.509 certificate, parsed once.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use aws_lc_rs::digest::{SHA256, digest};
use rustls_pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;

use super::PkiError;
use super::spki::Spki;
use crate::encoding::der::{Reader, SEQUENCE, from_timestamp, hex};
use crate::encoding::pem;

/// An X.509 certificate (version 3), parsed once. Cheap to clone; equal if the DER is.
#[derive(Clone)]
pub struct Certificate(Arc<Parsed>);

struct Parsed {
    der: CertificateDer<'static>,
    spki: Vec<u8>,
    serial_hex: String,
    not_before: SystemTime,
    not_after: SystemTime,
    subject: String,
    subject_der: Vec<u8>,
    issuer: String,
    issuer_der: Vec<u8>,
    subject_key_id: Option<Vec<u8>>,
    authority_key_id: Option<Vec<u8>>,
    basic_constraints: Option<BasicConstraints>,
    key_usage: Option<KeyUsage>,
    extended_key_usage: Option<ExtendedKeyUsage>,
    uri_sans: Vec<String>,
    dns_sans: Vec<String>,
    san_critical: bool,
}

#[derive(Clone, Copy)]
struct BasicConstraints {
    ca: bool,
    path_length: Option<u32>,
}

/// The keyUsage extension (RFC 5280 §4.2.1.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyUsage {
    /// Whether the extension is marked critical.
    pub critical: bool,
    /// digitalSignature
    pub digital_signature: bool,
    /// keyCertSign
    pub key_cert_sign: bool,
    /// cRLSign
    pub crl_sign: bool,
    bits: u16,
}

/// The extKeyUsage extension (RFC 5280 §4.2.1.12).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtendedKeyUsage {
    /// id-kp-serverAuth
    pub server_auth: bool,
    /// id-kp-clientAuth
    pub client_auth: bool,
    /// Names of all purposes; dotted OIDs where there is none.
    pub purposes: Vec<String>,
}

/// RFC 5280's names, in the order of the bits.
const KEY_USAGES: [&str; 9] = [
    "digitalSignature",
    "nonRepudiation",
    "keyEncipherment",
    "dataEncipherment",
    "keyAgreement",
    "keyCertSign",
    "cRLSign",
    "encipherOnly",
    "decipherOnly",
];
const LABEL: &str = "CERTIFICATE";
/// Far beyond any real one; bounds the work that a hostile one makes.
const MAX_DER: usize = 64 * 1024;

// === impl Certificate ===

impl Certificate {
    /// Reads one DER certificate and nothing after it.
    pub fn from_der(der: &[u8]) -> Result<Self, PkiError> {
        Parsed::read(der)
            .map(|parsed| Self(Arc::new(parsed)))
            .map_err(|problem| PkiError::Certificate { problem })
    }

    /// The DER as read.
    pub fn der(&self) -> &[u8] {
        &self.0.der
    }

    pub(super) fn as_der(&self) -> &CertificateDer<'static> {
        &self.0.der
    }

    /// The public key: SubjectPublicKeyInfo DER.
    pub fn spki_der(&self) -> &[u8] {
        &self.0.spki
    }

    pub(super) fn spki(&self) -> Option<Spki<'_>> {
        Spki::parse(&self.0.spki)
    }

    /// The serial number: lowercase hexadecimal digits, no colons, no sign byte.
    pub fn serial_hex(&self) -> &str {
        &self.0.serial_hex
    }

    /// Start of validity, whole seconds.
    pub fn not_before(&self) -> SystemTime {
        self.0.not_before
    }

    /// End of validity, whole seconds; that second is still valid.
    pub fn not_after(&self) -> SystemTime {
        self.0.not_after
    }

    /// Whether basicConstraints says cA.
    pub fn is_ca(&self) -> bool {
        self.0.basic_constraints.is_some_and(|basic| basic.ca)
    }

    /// pathLenConstraint: how many further CAs may follow. `None` is no limit.
    pub fn path_length(&self) -> Option<u32> {
        self.0.basic_constraints.and_then(|basic| basic.path_length)
    }

    /// The URIs of subjectAltName.
    pub fn uri_sans(&self) -> &[String] {
        &self.0.uri_sans
    }

    /// The DNS names of subjectAltName.
    pub fn dns_sans(&self) -> &[String] {
        &self.0.dns_sans
    }

    /// Whether subjectAltName is marked critical.
    pub fn san_is_critical(&self) -> bool {
        self.0.san_critical
    }

    /// The subject for people, as in `O=example.org, CN=x`; empty if there is none.
    pub fn subject(&self) -> String {
        self.0.subject.clone()
    }

    /// The issuer for people.
    pub fn issuer(&self) -> String {
        self.0.issuer.clone()
    }

    /// Whether the subject is an empty name.
    pub fn subject_is_empty(&self) -> bool {
        self.0.subject_der == [SEQUENCE, 0]
    }

    pub(super) fn subject_der(&self) -> &[u8] {
        &self.0.subject_der
    }

    pub(super) fn issuer_der(&self) -> &[u8] {
        &self.0.issuer_der
    }

    pub(super) fn subject_key_id(&self) -> Option<&[u8]> {
        self.0.subject_key_id.as_deref()
    }

    /// authorityKeyIdentifier, lowercase hexadecimal: the subjectKeyIdentifier of whoever signed it.
    pub fn authority_key_id_hex(&self) -> Option<String> {
        self.0.authority_key_id.as_deref().map(hex)
    }

    /// keyUsage, if present.
    pub fn key_usage(&self) -> Option<KeyUsage> {
        self.0.key_usage
    }

    /// Names of the set key usages, as in `digitalSignature`; empty if the extension is absent.
    pub fn key_usages(&self) -> Vec<&'static str> {
        self.0.key_usage.map(|usage| usage.names()).unwrap_or_default()
    }

    /// extKeyUsage, if present.
    pub fn extended_key_usage(&self) -> Option<&ExtendedKeyUsage> {
        self.0.extended_key_usage.as_ref()
    }

    /// Names of the extended key usages, as in `serverAuth`; empty if the extension is absent.
    pub fn extended_key_usages(&self) -> Vec<String> {
        self.0.extended_key_usage.as_ref().map(|usage| usage.purposes.clone()).unwrap_or_default()
    }

    /// SHA-256 of the DER: 64 lowercase hexadecimal digits.
    pub fn sha256(&self) -> String {
        hex(digest(&SHA256, self.der()).as_ref())
    }

    /// `ecdsa-p256`, `rsa-3072`, or the dotted OID of what we don't know.
    pub fn public_key_algorithm(&self) -> String {
        self.spki().map_or_else(|| "unknown".to_owned(), |spki| spki.describe())
    }

    /// Whether it names itself as its issuer and its own key made its signature. Verifies a
    /// signature each time.
    pub fn is_self_signed(&self) -> bool {
        self.is_signed_by(self)
    }

    /// Whether `issuer` has the name of this certificate's issuer and its key made the signature.
    pub(super) fn is_signed_by(&self, issuer: &Certificate) -> bool {
        self.issuer_der() == issuer.subject_der()
            && self.signature().zip(issuer.spki()).is_some_and(
                |((message, algorithm, signature), spki)| {
                    spki.verifies(algorithm, message, signature)
                },
            )
    }

    /// The signed bytes, the AlgorithmIdentifier without its header, the signature.
    fn signature(&self) -> Option<(&[u8], &[u8], &[u8])> {
        let mut outer = Reader::new(self.der()).enter(SEQUENCE)?;
        let message = outer.expect(SEQUENCE)?.raw;
        let algorithm = outer.expect(SEQUENCE)?.content;
        Some((message, algorithm, outer.bits()?))
    }

    /// The rules of every SPIFFE signing certificate (X509-SVID §4.1, §4.3): cA, and keyCertSign
    /// where there is a keyUsage.
    pub(super) fn may_sign(&self) -> bool {
        self.is_ca() && self.0.key_usage.is_none_or(|usage| usage.key_cert_sign)
    }

    /// Whether `now` is within its validity.
    pub fn is_valid_at(&self, now: SystemTime) -> bool {
        let second = from_timestamp(timestamp(now)).unwrap_or(now);
        self.not_before() <= second && second <= self.not_after()
    }
}

/// Whole seconds since 1970, rounded down.
fn timestamp(at: SystemTime) -> i64 {
    at.duration_since(SystemTime::UNIX_EPOCH)
        .ok()
        .and_then(|since| i64::try_from(since.as_secs()).ok())
        .unwrap_or_default()
}

impl PartialEq for Certificate {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0.der == other.0.der
    }
}

impl Eq for Certificate {}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("serial", &self.0.serial_hex)
            .field("subject", &self.0.subject)
            .field("uri_sans", &self.0.uri_sans)
            .finish_non_exhaustive()
    }
}

// === impl Parsed ===

impl Parsed {
    fn read(der: &[u8]) -> Result<Self, &'static str> {
        if der.len() > MAX_DER {
            return Err("it is larger than 64 KiB");
        }
        // The strict reader first: it refuses BER that the parser would let pass.
        let mut outer = Reader::new(der);
        let mut body = outer.enter(SEQUENCE).ok_or("it is not DER")?;
        if !outer.is_empty() {
            return Err("bytes follow it");
        }
        let complete = body.expect(SEQUENCE).is_some()
            && body.expect(SEQUENCE).is_some()
            && body.bits().is_some()
            && body.is_empty();
        if !complete {
            return Err("it does not have the three parts of a certificate");
        }
        let Ok((_, parsed)) = X509Certificate::from_der(der) else {
            return Err("it cannot be parsed as X.509");
        };
        Self::from_parsed(der, &parsed)
    }

    fn from_parsed(der: &[u8], parsed: &X509Certificate<'_>) -> Result<Self, &'static str> {
        let at = |time: x509_parser::time::ASN1Time| {
            from_timestamp(time.timestamp()).ok_or("its validity is out of range")
        };
        let spki = parsed.public_key().raw.to_vec();
        if Spki::parse(&spki).is_none() {
            return Err("its public key is malformed");
        }
        let serial = parsed.raw_serial();
        let serial = match serial {
            [0, rest @ ..] if !rest.is_empty() => rest,
            _ => serial,
        };
        let mut certificate = Self {
            der: CertificateDer::from(der.to_vec()),
            spki,
            serial_hex: hex(serial),
            not_before: at(parsed.validity().not_before)?,
            not_after: at(parsed.validity().not_after)?,
            subject: printable(&parsed.subject().to_string()),
            subject_der: parsed.subject().as_raw().to_vec(),
            issuer: printable(&parsed.issuer().to_string()),
            issuer_der: parsed.issuer().as_raw().to_vec(),
            subject_key_id: None,
            authority_key_id: None,
            basic_constraints: None,
            key_usage: None,
            extended_key_usage: None,
            uri_sans: Vec::new(),
            dns_sans: Vec::new(),
            san_critical: false,
        };
        let mut seen = Vec::new();
        for extension in parsed.extensions() {
            if seen.contains(&&extension.oid) {
                return Err("it has an extension twice");
            }
            seen.push(&extension.oid);
            certificate.take(extension.critical, extension.parsed_extension())?;
        }
        Ok(certificate)
    }

    fn take(
        &mut self,
        critical: bool,
        extension: &ParsedExtension<'_>,
    ) -> Result<(), &'static str> {
        match extension {
            ParsedExtension::ParseError { .. } => return Err("it has a malformed extension"),
            ParsedExtension::BasicConstraints(basic) => {
                self.basic_constraints =
                    Some(BasicConstraints { ca: basic.ca, path_length: basic.path_len_constraint });
            }
            ParsedExtension::KeyUsage(usage) => {
                self.key_usage = Some(KeyUsage {
                    critical,
                    digital_signature: usage.digital_signature(),
                    key_cert_sign: usage.key_cert_sign(),
                    crl_sign: usage.crl_sign(),
                    bits: usage.flags,
                });
            }
            ParsedExtension::ExtendedKeyUsage(usage) => {
                let named = [
                    (usage.any, "any"),
                    (usage.server_auth, "serverAuth"),
                    (usage.client_auth, "clientAuth"),
                    (usage.code_signing, "codeSigning"),
                    (usage.email_protection, "emailProtection"),
                    (usage.time_stamping, "timeStamping"),
                    (usage.ocsp_signing, "OCSPSigning"),
                ];
                let mut purposes: Vec<String> = named
                    .into_iter()
                    .filter(|(set, _)| *set)
                    .map(|(_, name)| name.to_owned())
                    .collect();
                purposes.extend(usage.other.iter().map(ToString::to_string));
                self.extended_key_usage = Some(ExtendedKeyUsage {
                    server_auth: usage.server_auth,
                    client_auth: usage.client_auth,
                    purposes,
                });
            }
            ParsedExtension::SubjectAlternativeName(names) => {
                self.san_critical = critical;
                for name in &names.general_names {
                    match name {
                        GeneralName::URI(uri) => self.uri_sans.push((*uri).to_owned()),
                        GeneralName::DNSName(name) => self.dns_sans.push((*name).to_owned()),
                        GeneralName::Invalid(..) => return Err("it has a malformed SAN"),
                        _ => {}
                    }
                }
            }
            ParsedExtension::SubjectKeyIdentifier(id) => {
                self.subject_key_id = Some(id.0.to_vec());
            }
            ParsedExtension::AuthorityKeyIdentifier(id) => {
                self.authority_key_id = id.key_identifier.as_ref().map(|id| id.0.to_vec());
            }
            _ => {}
        }
        Ok(())
    }
}

/// A name comes from a stranger and goes to terminals and logs.
fn printable(name: &str) -> String {
    name.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

// === impl KeyUsage ===

impl KeyUsage {
    /// Names of the set bits, in RFC 5280's order.
    pub fn names(&self) -> Vec<&'static str> {
        KEY_USAGES
            .iter()
            .enumerate()
            .filter_map(|(bit, name)| (self.bits >> bit & 1 == 1).then_some(*name))
            .collect()
    }
}

/// The certificates of a PEM file, in order; at least one. Other blocks and text are ignored, a
/// damaged block is an error.
pub fn certificates_from_pem(text: &str) -> Result<Vec<Certificate>, PkiError> {
    let blocks = pem::read(text, |label| label == LABEL)?;
    if blocks.is_empty() {
        return Err(PkiError::NoCertificate);
    }
    blocks
        .iter()
        .enumerate()
        .map(|(index, block)| {
            Certificate::from_der(&block.der)
                .map_err(|source| PkiError::InFile { index: index + 1, source: Box::new(source) })
        })
        .collect()
}

/// DER certificates one after the other with nothing between them, as the Workload API sends chains
/// and bundles; at least one.
pub fn certificates_from_der(der: &[u8]) -> Result<Vec<Certificate>, PkiError> {
    let mut reader = Reader::new(der);
    let mut certificates = Vec::new();
    while !reader.is_empty() {
        let index = certificates.len() + 1;
        let one = reader.expect(SEQUENCE).map(|element| Certificate::from_der(element.raw));
        let one = one.unwrap_or(Err(PkiError::Certificate { problem: "it is not DER" }));
        certificates
            .push(one.map_err(|source| PkiError::InFile { index, source: Box::new(source) })?);
    }
    match certificates.is_empty() {
        true => Err(PkiError::Certificate { problem: "there is none" }),
        false => Ok(certificates),
    }
}

/// PEM blocks in order.
pub fn certificates_to_pem(certificates: &[Certificate]) -> String {
    let mut text = String::new();
    for certificate in certificates {
        pem::write_to(&mut text, LABEL, certificate.der());
    }
    text
}
