//! Certificate signing requests (PKCS#10, RFC 2986) of the one shape that we sign.

use rustls_pki_types::CertificateSigningRequestDer;

use super::profile::{SAN_OID, alt_names};
use super::spki::Spki;
use super::{DnsName, KeyAlgorithm, PkiError, PrivateKey, PublicKey};
use crate::class::Class;
use crate::encoding::der::{
    BIT_STRING, BOOLEAN, INTEGER, OCTET_STRING, OID, Reader, SEQUENCE, SET, bit_string, element,
    sequence,
};
use crate::encoding::pem;
use crate::id::{IdError, SpiffeId};

/// A CSR with an empty subject, one URI SAN and nothing else, whose signature is right. It has DNS
/// SANs only where whoever signs takes them from the CSR. Cheap enough to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Csr {
    der: CertificateSigningRequestDer<'static>,
    key: PublicKey,
    id: SpiffeId,
    dns_names: Vec<DnsName>,
}

/// Why a CSR is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CsrError {
    /// Not DER, or not a CSR.
    #[error("not a PKCS#10 certificate request in DER")]
    Malformed,
    /// Whoever made it does not hold the key, or uses what we don't verify.
    #[error(
        "the request's signature is wrong or of an unsupported algorithm; use ECDSA P-256 or P-384, Ed25519, or RSA of 2048 bits or more"
    )]
    Signature,
    /// A subject other than the empty one.
    #[error("the request has a subject; leave it empty")]
    Subject,
    /// Anything but one extensionRequest.
    #[error("the request must have exactly one attribute, extensionRequest")]
    Attributes,
    /// Anything but one subjectAltName.
    #[error("the request must ask for exactly one extension, subjectAltName")]
    Extensions,
    /// Anything but one URI.
    #[error("the request's subjectAltName must have exactly one name, the SPIFFE ID as a URI")]
    Names,
    /// What is no DNS name beside the URI, one that is there twice, or too many.
    #[error(
        "the request's subjectAltName must have the SPIFFE ID as a URI, then at most 16 different DNS names"
    )]
    DnsNames,
    /// A pod's request that is not empty.
    #[error("a request for a pod certificate must be empty: no subject and no attributes")]
    NotEmpty,
    /// A key that is proven in a way that can't be verified.
    #[error(
        "an RSA key that an older kubelet proves can't be verified; use ECDSAP256, ECDSAP384 or ED25519, or kubelets of 1.36 or newer"
    )]
    Unprovable,
    /// No PEM block, or more than one.
    #[error("not exactly one block of PEM, CERTIFICATE REQUEST")]
    Pem,
    /// The URI is no SPIFFE ID.
    #[error("the request's URI is not a SPIFFE ID: {0}")]
    Id(#[from] IdError),
    /// The crypto library failed.
    #[error("cannot make a certificate request: {0}")]
    Create(#[from] PkiError),
}

/// pkcs-9-at-extensionRequest, 1.2.840.113549.1.9.14.
const EXTENSION_REQUEST: [u8; 9] = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x0e];
const PEM_LABEL: &str = "CERTIFICATE REQUEST";
const ATTRIBUTES: u8 = 0xa0;
const URI: u8 = 0x86;
const DNS: u8 = 0x82;
/// More names make a certificate large, and are not meant for one pod.
const MAX_DNS_NAMES: usize = 16;

// === impl Csr ===

impl Csr {
    /// Makes and signs a request: empty subject, one critical URI SAN.
    pub fn create(key: &PrivateKey, id: &SpiffeId) -> Result<Self, CsrError> {
        Self::create_with_dns_names(key, id, &[])
    }

    /// The same with DNS SANs after the URI, for a CA that signs what the request says.
    pub fn create_with_dns_names(
        key: &PrivateKey,
        id: &SpiffeId,
        dns_names: &[DnsName],
    ) -> Result<Self, CsrError> {
        let extensions = sequence(&[&alt_names(id, dns_names, true)]);
        let attribute =
            sequence(&[&element(OID, &[&EXTENSION_REQUEST]), &element(SET, &[&extensions])]);
        let info = sequence(&[
            &[INTEGER, 1, 0],
            &[SEQUENCE, 0],
            key.spki_der(),
            &element(ATTRIBUTES, &[&attribute]),
        ]);
        let signature = key.sign(&info)?;
        let der = sequence(&[
            &info,
            &sequence(&[key.signature_algorithm().as_ref()]),
            &bit_string(&signature),
        ]);
        let public_key = PublicKey::from_spki_der(key.spki_der()).ok_or(CsrError::Malformed)?;
        let dns_names = dns_names.to_vec();
        Ok(Self { der: der.into(), key: public_key, id: id.clone(), dns_names })
    }

    /// Reads a request and checks all of it: the signature, exactly the extensionRequest attribute,
    /// an empty subject, exactly one URI SAN, nothing else.
    pub fn parse(der: &[u8]) -> Result<Self, CsrError> {
        let csr = Self::parse_with_dns_names(der)?;
        match csr.dns_names.is_empty() {
            true => Ok(csr),
            false => Err(CsrError::Names),
        }
    }

    /// The same, with DNS SANs after the URI, each once.
    pub fn parse_with_dns_names(der: &[u8]) -> Result<Self, CsrError> {
        let parts = Parts::read(der).ok_or(CsrError::Malformed)?;
        let spki = Spki::parse(parts.spki).ok_or(CsrError::Malformed)?;
        if !spki.verifies(parts.algorithm, parts.info, parts.signature) {
            return Err(CsrError::Signature);
        }
        if !parts.subject.is_empty() {
            return Err(CsrError::Subject);
        }
        let extensions = extension_request(parts.attributes).ok_or(CsrError::Attributes)?;
        let names = subject_alt_name(extensions).ok_or(CsrError::Extensions)?;
        let (uri, names) = first_uri(names).ok_or(CsrError::Names)?;
        let key = PublicKey::from_spki_der(parts.spki).ok_or(CsrError::Malformed)?;
        let dns_names = dns_names(names)?;
        Ok(Self { der: der.to_vec().into(), key, id: uri.parse()?, dns_names })
    }

    /// [`Self::parse`] from PEM: one block `CERTIFICATE REQUEST` and nothing else.
    pub fn from_pem(text: &str) -> Result<Self, CsrError> {
        Self::parse(&only_block(text)?)
    }

    /// [`Self::parse_with_dns_names`] from PEM.
    pub fn from_pem_with_dns_names(text: &str) -> Result<Self, CsrError> {
        Self::parse_with_dns_names(&only_block(text)?)
    }

    /// In PEM.
    pub fn to_pem(&self) -> String {
        pem::write(PEM_LABEL, &self.der).as_str().to_owned()
    }

    /// The DER.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// The public key.
    pub fn public_key(&self) -> &PublicKey {
        &self.key
    }

    /// The public key: SubjectPublicKeyInfo DER.
    pub fn spki_der(&self) -> &[u8] {
        self.key.spki_der()
    }

    /// The SPIFFE ID that it asks for.
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// The DNS names that it asks for, where it was read or made with such.
    pub fn dns_names(&self) -> &[DnsName] {
        &self.dns_names
    }

    /// The key's algorithm; `None` if it is not one that we make.
    pub fn key_algorithm(&self) -> Option<KeyAlgorithm> {
        self.key.algorithm()
    }
}

/// The parts of a CertificationRequest.
pub(super) struct Parts<'a> {
    pub(super) info: &'a [u8],
    pub(super) subject: Reader<'a>,
    pub(super) spki: &'a [u8],
    pub(super) attributes: Reader<'a>,
    pub(super) algorithm: &'a [u8],
    pub(super) signature: &'a [u8],
}

impl<'a> Parts<'a> {
    pub(super) fn read(der: &'a [u8]) -> Option<Self> {
        let mut outer = Reader::new(der);
        let mut request = outer.enter(SEQUENCE)?;
        let info = request.expect(SEQUENCE)?;
        let algorithm = request.expect(SEQUENCE)?.content;
        let signature = request.clone().expect(BIT_STRING).and(request.bits())?;
        let mut body = Reader::new(info.content);
        let version = body.expect(INTEGER)?.content;
        let subject = body.enter(SEQUENCE)?;
        let spki = body.expect(SEQUENCE)?.raw;
        let attributes = body.enter(ATTRIBUTES)?;
        let whole = outer.is_empty() && request.is_empty() && body.is_empty() && version == [0];
        whole.then_some(Self { info: info.raw, subject, spki, attributes, algorithm, signature })
    }
}

/// The extensions of the one attribute.
fn extension_request(mut attributes: Reader<'_>) -> Option<Reader<'_>> {
    let mut attribute = attributes.enter(SEQUENCE)?;
    let oid = attribute.expect(OID)?.content;
    let mut values = attribute.enter(SET)?;
    let extensions = values.enter(SEQUENCE)?;
    let alone = attributes.is_empty() && attribute.is_empty() && values.is_empty();
    (alone && oid == EXTENSION_REQUEST).then_some(extensions)
}

/// The names of the one extension.
fn subject_alt_name(mut extensions: Reader<'_>) -> Option<Reader<'_>> {
    let mut extension = extensions.enter(SEQUENCE)?;
    let oid = extension.expect(OID)?.content;
    let mut value = extension.next()?;
    if value.tag == BOOLEAN {
        if value.content != [0xff] {
            return None;
        }
        value = extension.next()?;
    }
    let mut value = (value.tag == OCTET_STRING).then(|| Reader::new(value.content))?;
    let names = value.enter(SEQUENCE)?;
    let alone = extensions.is_empty() && extension.is_empty() && value.is_empty();
    (alone && oid == SAN_OID).then_some(names)
}

/// The first name, a URI, and those after it.
fn first_uri(mut names: Reader<'_>) -> Option<(&str, Reader<'_>)> {
    let uri = names.expect(URI)?.content;
    Some((std::str::from_utf8(uri).ok()?, names))
}

/// All the rest: DNS names in the one form that is ours. Any other kind of name is refused as it is
/// where there may be none.
fn dns_names(mut rest: Reader<'_>) -> Result<Vec<DnsName>, CsrError> {
    let mut names: Vec<DnsName> = Vec::new();
    while !rest.is_empty() {
        let content = rest.expect(DNS).ok_or(CsrError::Names)?.content;
        let text = std::str::from_utf8(content).map_err(|_not_text| CsrError::DnsNames)?;
        let name: DnsName = text.parse().map_err(|_bad| CsrError::DnsNames)?;
        // Reading makes letters small, and what is signed is what is written.
        if name.as_str() != text || names.contains(&name) || names.len() == MAX_DNS_NAMES {
            return Err(CsrError::DnsNames);
        }
        names.push(name);
    }
    Ok(names)
}

fn only_block(text: &str) -> Result<Vec<u8>, CsrError> {
    let blocks = pem::read(text, |_label| true).map_err(|_where| CsrError::Pem)?;
    match blocks.as_slice() {
        [block] if block.label == PEM_LABEL => Ok(block.der.to_vec()),
        _ => Err(CsrError::Pem),
    }
}

// === impl CsrError ===

impl CsrError {
    /// [`Class::Internal`] where making one failed, else [`Class::Invalid`].
    pub fn class(&self) -> Class {
        match self {
            Self::Create(source) => source.class(),
            _ => Class::Invalid,
        }
    }
}
