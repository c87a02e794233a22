//! Private keys: made, read, written and signed with.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};
use rustls_pki_types::{AlgorithmIdentifier, alg_id};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::PkiError;
use crate::encoding::pem;

/// The algorithms of keys that we make.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(try_from = "String", into = "&'static str")]
pub enum KeyAlgorithm {
    /// `ecdsa-p256`, the default.
    #[default]
    EcdsaP256,
    /// `ecdsa-p384`
    EcdsaP384,
    /// `ed25519`
    Ed25519,
    /// `rsa-2048`
    Rsa2048,
    /// `rsa-4096`: seconds of computing for each key.
    Rsa4096,
}

/// A private key. Wiped when dropped, never printed, never cloned: share it by `Arc`.
pub struct PrivateKey {
    algorithm: KeyAlgorithm,
    pair: Pair,
    pkcs8: Zeroizing<Vec<u8>>,
    spki: Vec<u8>,
}

/// The parsed form, inside the crypto library, which wipes it.
enum Pair {
    Ecdsa(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
    Rsa(RsaKeyPair),
}

const PKCS8: &str = "PRIVATE KEY";
const PKCS8_ENCRYPTED: &str = "ENCRYPTED PRIVATE KEY";
const SEC1: &str = "EC PRIVATE KEY";
const PKCS1: &str = "RSA PRIVATE KEY";

// === impl KeyAlgorithm ===

impl KeyAlgorithm {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::EcdsaP256, Self::EcdsaP384, Self::Ed25519, Self::Rsa2048, Self::Rsa4096];

    /// The name in volume attributes and settings.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::EcdsaP256 => "ecdsa-p256",
            Self::EcdsaP384 => "ecdsa-p384",
            Self::Ed25519 => "ed25519",
            Self::Rsa2048 => "rsa-2048",
            Self::Rsa4096 => "rsa-4096",
        }
    }

    fn ecdsa(self) -> Option<&'static EcdsaSigningAlgorithm> {
        match self {
            Self::EcdsaP256 => Some(&ECDSA_P256_SHA256_ASN1_SIGNING),
            Self::EcdsaP384 => Some(&ECDSA_P384_SHA384_ASN1_SIGNING),
            _ => None,
        }
    }
}

impl FromStr for KeyAlgorithm {
    type Err = PkiError;

    fn from_str(name: &str) -> Result<Self, PkiError> {
        Self::ALL
            .into_iter()
            .find(|algorithm| algorithm.as_str() == name)
            .ok_or_else(|| PkiError::UnknownKeyAlgorithm { given: name.chars().take(64).collect() })
    }
}

impl TryFrom<String> for KeyAlgorithm {
    type Error = PkiError;

    fn try_from(name: String) -> Result<Self, PkiError> {
        name.parse()
    }
}

impl From<KeyAlgorithm> for &'static str {
    fn from(algorithm: KeyAlgorithm) -> Self {
        algorithm.as_str()
    }
}

impl fmt::Display for KeyAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

// === impl PrivateKey ===

impl PrivateKey {
    /// Makes a new key. Takes microseconds for elliptic curves, and up to seconds for RSA.
    pub fn generate(algorithm: KeyAlgorithm) -> Result<Self, PkiError> {
        let failed = || PkiError::Generate { algorithm: algorithm.as_str() };
        let pair = match (algorithm, algorithm.ecdsa()) {
            (_, Some(curve)) => EcdsaKeyPair::generate(curve).ok().map(Pair::Ecdsa),
            (KeyAlgorithm::Rsa2048, _) => rsa(KeySize::Rsa2048),
            (KeyAlgorithm::Rsa4096, _) => rsa(KeySize::Rsa4096),
            _ => Ed25519KeyPair::generate().ok().map(Pair::Ed25519),
        };
        Self::from_pair(algorithm, pair.ok_or_else(failed)?).ok_or_else(failed)
    }

    /// Reads the one private key in a PEM file: PKCS#8, SEC 1 (`EC PRIVATE KEY`) or PKCS#1
    /// (`RSA PRIVATE KEY`), as openssl and cert-manager write them. Certificates and other blocks
    /// beside it are ignored.
    pub fn from_pem(text: &str) -> Result<Self, PkiError> {
        let blocks = pem::read(text, |label| label.ends_with(PKCS8))?;
        let [block] = blocks.as_slice() else {
            return Err(match blocks.is_empty() {
                true => PkiError::NoKey,
                false => PkiError::SeveralKeys,
            });
        };
        match block.label {
            PKCS8 => Self::from_pkcs8_der(&block.der),
            SEC1 => {
                Self::from_ecdsa(|curve| EcdsaKeyPair::from_private_key_der(curve, &block.der).ok())
                    .ok_or(PkiError::UnusableKey)
            }
            PKCS1 => RsaKeyPair::from_der(&block.der)
                .ok()
                .and_then(Self::from_rsa)
                .ok_or(PkiError::UnusableKey),
            PKCS8_ENCRYPTED => Err(PkiError::EncryptedKey),
            _ => Err(PkiError::UnusableKey),
        }
    }

    /// Reads PKCS#8 DER.
    pub fn from_pkcs8_der(der: &[u8]) -> Result<Self, PkiError> {
        Self::from_ecdsa(|curve| EcdsaKeyPair::from_pkcs8(curve, der).ok())
            .or_else(|| {
                let pair = Ed25519KeyPair::from_pkcs8(der).ok()?;
                Self::from_pair(KeyAlgorithm::Ed25519, Pair::Ed25519(pair))
            })
            .or_else(|| Self::from_rsa(RsaKeyPair::from_pkcs8(der).ok()?))
            .ok_or(PkiError::UnusableKey)
    }

    fn from_ecdsa(
        read: impl Fn(&'static EcdsaSigningAlgorithm) -> Option<EcdsaKeyPair>,
    ) -> Option<Self> {
        KeyAlgorithm::ALL.into_iter().find_map(|algorithm| {
            let pair = read(algorithm.ecdsa()?)?;
            Self::from_pair(algorithm, Pair::Ecdsa(pair))
        })
    }

    fn from_rsa(pair: RsaKeyPair) -> Option<Self> {
        let algorithm = match pair.public_modulus_len() {
            256 => KeyAlgorithm::Rsa2048,
            512 => KeyAlgorithm::Rsa4096,
            _ => return None,
        };
        Self::from_pair(algorithm, Pair::Rsa(pair))
    }

    fn from_pair(algorithm: KeyAlgorithm, pair: Pair) -> Option<Self> {
        let (pkcs8, spki) = pair.serialize()?;
        Some(Self { algorithm, pair, pkcs8, spki })
    }

    /// The algorithm.
    pub fn algorithm(&self) -> KeyAlgorithm {
        self.algorithm
    }

    /// PKCS#8 (RFC 5208) DER, as the Workload API wants it. Secret.
    pub fn pkcs8_der(&self) -> &[u8] {
        &self.pkcs8
    }

    /// PKCS#8 PEM. Secret, wiped when dropped.
    pub fn to_pem(&self) -> Zeroizing<String> {
        pem::write(PKCS8, &self.pkcs8)
    }

    /// The public key: SubjectPublicKeyInfo DER.
    pub fn spki_der(&self) -> &[u8] {
        &self.spki
    }

    /// The AlgorithmIdentifier of [`Self::sign`], without its outer SEQUENCE header.
    pub(super) fn signature_algorithm(&self) -> AlgorithmIdentifier {
        match self.algorithm {
            KeyAlgorithm::EcdsaP256 => alg_id::ECDSA_SHA256,
            KeyAlgorithm::EcdsaP384 => alg_id::ECDSA_SHA384,
            KeyAlgorithm::Ed25519 => alg_id::ED25519,
            KeyAlgorithm::Rsa2048 | KeyAlgorithm::Rsa4096 => alg_id::RSA_PKCS1_SHA256,
        }
    }

    /// Signs as certificates are signed.
    pub(super) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, PkiError> {
        let random = SystemRandom::new();
        let signature = match &self.pair {
            Pair::Ecdsa(pair) => {
                pair.sign(&random, message).ok().map(|signature| signature.as_ref().to_vec())
            }
            Pair::Ed25519(pair) => {
                pair.try_sign(message).ok().map(|signature| signature.as_ref().to_vec())
            }
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature)
                    .ok()
                    .map(|()| signature)
            }
        };
        signature.ok_or(PkiError::Sign)
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey({}, redacted)", self.algorithm)
    }
}

fn rsa(size: KeySize) -> Option<Pair> {
    RsaKeyPair::generate(size).ok().map(Pair::Rsa)
}

// === impl Pair ===

impl Pair {
    /// PKCS#8 version 1 (version 2, with the public key, is more than openssl 3.0 reads) and
    /// SubjectPublicKeyInfo.
    fn serialize(&self) -> Option<(Zeroizing<Vec<u8>>, Vec<u8>)> {
        let (pkcs8, spki): (_, PublicKeyX509Der<'_>) = match self {
            Self::Ecdsa(pair) => (
                Zeroizing::new(pair.to_pkcs8v1().ok()?.as_ref().to_vec()),
                pair.public_key().as_der().ok()?,
            ),
            Self::Ed25519(pair) => (
                Zeroizing::new(pair.to_pkcs8v1().ok()?.as_ref().to_vec()),
                pair.public_key().as_der().ok()?,
            ),
            Self::Rsa(pair) => {
                let der: Pkcs8V1Der<'_> = pair.as_der().ok()?;
                (Zeroizing::new(der.as_ref().to_vec()), pair.public_key().as_der().ok()?)
            }
        };
        Some((pkcs8, spki.as_ref().to_vec()))
    }
}
