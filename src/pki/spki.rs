//! Public keys as certificates hold them (SubjectPublicKeyInfo, RFC 5280 §4.1.2.7), and checking
//! signatures with them.

use rustls_pki_types::{AlgorithmIdentifier, SignatureVerificationAlgorithm, alg_id};
use webpki::aws_lc_rs as algorithms;

use super::KeyAlgorithm;
use crate::encoding::der::{INTEGER, OID, Reader, SEQUENCE};

/// A SubjectPublicKeyInfo taken apart.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spki<'a> {
    /// The AlgorithmIdentifier without its outer SEQUENCE header.
    pub(super) algorithm: &'a [u8],
    /// The subjectPublicKey bits.
    pub(super) bits: &'a [u8],
    pub(super) key: KeyMaterial<'a>,
}

/// What the bits mean.
#[derive(Clone, Copy, Debug)]
pub(super) enum KeyMaterial<'a> {
    /// Uncompressed point: its two coordinates.
    Ec {
        curve: &'static str,
        x: &'a [u8],
        y: &'a [u8],
    },
    Ed25519,
    /// Big-endian without leading zeros.
    Rsa {
        modulus: &'a [u8],
        exponent: &'a [u8],
    },
    Other,
}

/// What signs certificates and CSRs that we accept: ECDSA, Ed25519, RSA of 2048 bits and more.
pub(super) const SIGNATURES: &[&dyn SignatureVerificationAlgorithm] = &[
    algorithms::ECDSA_P256_SHA256,
    algorithms::ECDSA_P256_SHA384,
    algorithms::ECDSA_P256_SHA512,
    algorithms::ECDSA_P384_SHA256,
    algorithms::ECDSA_P384_SHA384,
    algorithms::ECDSA_P384_SHA512,
    algorithms::ECDSA_P521_SHA256,
    algorithms::ECDSA_P521_SHA384,
    algorithms::ECDSA_P521_SHA512,
    algorithms::ED25519,
    algorithms::RSA_PKCS1_2048_8192_SHA256,
    algorithms::RSA_PKCS1_2048_8192_SHA384,
    algorithms::RSA_PKCS1_2048_8192_SHA512,
    algorithms::RSA_PSS_2048_8192_SHA256_LEGACY_KEY,
    algorithms::RSA_PSS_2048_8192_SHA384_LEGACY_KEY,
    algorithms::RSA_PSS_2048_8192_SHA512_LEGACY_KEY,
];

// === impl Spki ===

impl<'a> Spki<'a> {
    /// Takes DER apart; `None` if it isn't a SubjectPublicKeyInfo.
    pub(super) fn parse(der: &'a [u8]) -> Option<Self> {
        let mut outer = Reader::new(der);
        let mut body = outer.enter(SEQUENCE)?;
        let algorithm = body.expect(SEQUENCE)?.content;
        let bits = body.bits()?;
        if !outer.is_empty() || !body.is_empty() {
            return None;
        }
        Some(Self { algorithm, bits, key: KeyMaterial::parse(algorithm, bits)? })
    }

    /// One of the five, if it is one.
    pub(super) fn key_algorithm(&self) -> Option<KeyAlgorithm> {
        match self.key {
            KeyMaterial::Ec { curve: "P-256", .. } => Some(KeyAlgorithm::EcdsaP256),
            KeyMaterial::Ec { curve: "P-384", .. } => Some(KeyAlgorithm::EcdsaP384),
            KeyMaterial::Ed25519 => Some(KeyAlgorithm::Ed25519),
            KeyMaterial::Rsa { modulus, .. } => match bit_length(modulus) {
                2048 => Some(KeyAlgorithm::Rsa2048),
                4096 => Some(KeyAlgorithm::Rsa4096),
                _ => None,
            },
            _ => None,
        }
    }

    /// For people: `ecdsa-p256`, `rsa-3072`, or the dotted OID of what we don't know.
    pub(super) fn describe(&self) -> String {
        match self.key {
            KeyMaterial::Ec { curve, .. } => {
                format!("ecdsa-{}", curve.to_ascii_lowercase().replace('-', ""))
            }
            KeyMaterial::Ed25519 => "ed25519".to_owned(),
            KeyMaterial::Rsa { modulus, .. } => format!("rsa-{}", bit_length(modulus)),
            KeyMaterial::Other => Reader::new(self.algorithm)
                .expect(OID)
                .and_then(|oid| dotted(oid.content))
                .unwrap_or_else(|| "unknown".to_owned()),
        }
    }

    /// Whether `signature` over `message` is this key's. `signature_algorithm` is the
    /// AlgorithmIdentifier without its outer SEQUENCE header.
    pub(super) fn verifies(
        &self,
        signature_algorithm: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> bool {
        SIGNATURES.iter().any(|algorithm| {
            is(signature_algorithm, algorithm.signature_alg_id())
                && is(self.algorithm, algorithm.public_key_alg_id())
                && algorithm.verify_signature(self.bits, message, signature).is_ok()
        })
    }
}

fn is(bytes: &[u8], algorithm: AlgorithmIdentifier) -> bool {
    bytes == algorithm.as_ref()
}

fn bit_length(modulus: &[u8]) -> usize {
    let leading =
        modulus.first().map_or(0, |byte| usize::try_from(byte.leading_zeros()).unwrap_or(0));
    modulus.len() * 8 - leading
}

/// The dotted form of an OID's content.
pub(super) fn dotted(content: &[u8]) -> Option<String> {
    let mut numbers = Vec::new();
    let mut value: u64 = 0;
    let mut inside = false;
    for byte in content {
        value = value.checked_mul(128)? + u64::from(byte & 0x7f);
        inside = byte & 0x80 != 0;
        if !inside {
            if numbers.is_empty() {
                let first = (value / 40).min(2);
                numbers.push(first.to_string());
                value -= first * 40;
            }
            numbers.push(value.to_string());
            value = 0;
        }
    }
    (!inside && !numbers.is_empty()).then(|| numbers.join("."))
}

// === impl KeyMaterial ===

impl<'a> KeyMaterial<'a> {
    fn parse(algorithm: &[u8], bits: &'a [u8]) -> Option<Self> {
        let curve = [
            (alg_id::ECDSA_P256, "P-256", 32),
            (alg_id::ECDSA_P384, "P-384", 48),
            (alg_id::ECDSA_P521, "P-521", 66),
        ]
        .into_iter()
        .find(|(id, _, _)| is(algorithm, *id));
        Some(match curve {
            // A compressed point is one we cannot write as a JWK.
            Some((_, curve, size)) => match bits.strip_prefix(&[4]) {
                Some(point) if point.len() == 2 * size => {
                    let (x, y) = point.split_at_checked(size)?;
                    Self::Ec { curve, x, y }
                }
                _ => Self::Other,
            },
            None if is(algorithm, alg_id::ED25519) && bits.len() == 32 => Self::Ed25519,
            None if is(algorithm, alg_id::RSA_ENCRYPTION) => {
                let mut outer = Reader::new(bits);
                let mut body = outer.enter(SEQUENCE)?;
                let modulus = unsigned(body.expect(INTEGER)?.content)?;
                let exponent = unsigned(body.expect(INTEGER)?.content)?;
                if !body.is_empty() || !outer.is_empty() {
                    return None;
                }
                Self::Rsa { modulus, exponent }
            }
            None => Self::Other,
        })
    }
}

/// The magnitude of a positive INTEGER.
fn unsigned(content: &[u8]) -> Option<&[u8]> {
    match content {
        [0, rest @ ..] if rest.first().is_some_and(|byte| byte & 0x80 != 0) => Some(rest),
        [first, ..] if *first != 0 && first & 0x80 == 0 => Some(content),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn oids_are_dotted() {
        for (content, expected) in [
            (&[0x55, 0x1d, 0x11][..], Some("2.5.29.17")),
            (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d], Some("1.2.840.113549")),
            (&[0x88, 0x37], Some("2.999")),
            (&[], None),
            (&[0x80], None),
            (&[0xff; 12], None),
        ] {
            assert_eq!(dotted(content).as_deref(), expected);
        }
    }

    proptest! {
        #[test]
        fn hostile_keys_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            if let Some(spki) = Spki::parse(&bytes) {
                drop(spki.describe());
            }
            drop(dotted(&bytes));
        }
    }
}
