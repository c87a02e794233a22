//! Public keys that verify, prepared once.

use std::{fmt, sync::OnceLock};

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED,
    EcdsaVerificationAlgorithm, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256,
    RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, RsaParameters, RsaPublicKeyComponents,
};

use super::JwtAlgorithm;

/// The key itself. What it can verify follows from what it is.
pub(super) enum PublicKey {
    Rsa(RsaPublicKey),
    Ec(EcPublicKey),
}

/// Numbers are big-endian without leading zeros.
pub(super) struct RsaPublicKey {
    pub(super) modulus: Vec<u8>,
    pub(super) exponent: Vec<u8>,
    /// One for each algorithm, in the order of [`RSA`], made when it is first needed.
    prepared: Box<[OnceLock<Option<ParsedPublicKey>>; RSA.len()]>,
}

pub(super) struct EcPublicKey {
    pub(super) curve: Curve,
    pub(super) x: Vec<u8>,
    pub(super) y: Vec<u8>,
    prepared: ParsedPublicKey,
}

/// The curves of RFC 7518 §3.4: each has one algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Curve {
    P256,
    P384,
    P521,
}

const RSA: [(JwtAlgorithm, &RsaParameters); 6] = [
    (JwtAlgorithm::Rs256, &RSA_PKCS1_2048_8192_SHA256),
    (JwtAlgorithm::Rs384, &RSA_PKCS1_2048_8192_SHA384),
    (JwtAlgorithm::Rs512, &RSA_PKCS1_2048_8192_SHA512),
    (JwtAlgorithm::Ps256, &RSA_PSS_2048_8192_SHA256),
    (JwtAlgorithm::Ps384, &RSA_PSS_2048_8192_SHA384),
    (JwtAlgorithm::Ps512, &RSA_PSS_2048_8192_SHA512),
];

/// Smaller is weak; larger only serves to keep verifiers busy.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;
/// The same for the exponent, in bytes: 65537 has three.
const MAX_EXPONENT: usize = 4;

// === impl PublicKey ===

impl PublicKey {
    /// Whether this key's signature can be by that algorithm.
    pub(super) fn fits(&self, algorithm: JwtAlgorithm) -> bool {
        match self {
            Self::Rsa(_) => RSA.iter().any(|(one, _)| *one == algorithm),
            Self::Ec(key) => key.curve.algorithm() == algorithm,
        }
    }

    /// Whether the signature is this key's, by that algorithm.
    pub(super) fn verifies(
        &self,
        algorithm: JwtAlgorithm,
        message: &[u8],
        signature: &[u8],
    ) -> bool {
        let prepared = match self {
            Self::Rsa(key) => key.prepared(algorithm),
            Self::Ec(key) => (key.curve.algorithm() == algorithm).then_some(&key.prepared),
        };
        prepared.is_some_and(|key| key.verify_sig(message, signature).is_ok())
    }
}

impl PartialEq for PublicKey {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Rsa(one), Self::Rsa(other)) => {
                one.modulus == other.modulus && one.exponent == other.exponent
            }
            (Self::Ec(one), Self::Ec(other)) => {
                one.curve == other.curve && one.x == other.x && one.y == other.y
            }
            _ => false,
        }
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.describe())
    }
}

impl PublicKey {
    /// For people: `rsa-2048`, `ecdsa-p256`.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Rsa(key) => format!("rsa-{}", bit_length(&key.modulus)),
            Self::Ec(key) => {
                format!("ecdsa-{}", key.curve.as_str().to_ascii_lowercase().replace('-', ""))
            }
        }
    }
}

// === impl RsaPublicKey ===

impl RsaPublicKey {
    /// `None` for what is no RSA key, or of a size that is not taken.
    pub(super) fn new(modulus: &[u8], exponent: &[u8]) -> Option<Self> {
        let (modulus, exponent) = (magnitude(modulus), magnitude(exponent));
        let odd = |number: &[u8]| number.last().is_some_and(|byte| byte & 1 == 1);
        let good = RSA_BITS.contains(&bit_length(modulus))
            && odd(modulus)
            && odd(exponent)
            && exponent != [1]
            && exponent.len() <= MAX_EXPONENT;
        good.then(|| Self {
            modulus: modulus.to_vec(),
            exponent: exponent.to_vec(),
            prepared: Default::default(),
        })
    }

    fn prepared(&self, algorithm: JwtAlgorithm) -> Option<&ParsedPublicKey> {
        let known = RSA.iter().zip(&*self.prepared).find(|((one, _), _)| *one == algorithm);
        let ((_, parameters), prepared) = known?;
        let make = || {
            let components = RsaPublicKeyComponents { n: &self.modulus, e: &self.exponent };
            components.to_parsed_public_key(parameters).ok()
        };
        prepared.get_or_init(make).as_ref()
    }
}

// === impl EcPublicKey ===

impl EcPublicKey {
    /// `None` for what is no point of the curve. Coordinates have their full length (RFC 7518
    /// §6.2.1.2).
    pub(super) fn new(curve: Curve, x: &[u8], y: &[u8]) -> Option<Self> {
        if x.len() != curve.size() || y.len() != curve.size() {
            return None;
        }
        let point = [&[4], x, y].concat();
        let prepared = ParsedPublicKey::new(curve.verification(), point).ok()?;
        Some(Self { curve, x: x.to_vec(), y: y.to_vec(), prepared })
    }
}

// === impl Curve ===

impl Curve {
    pub(super) fn named(name: &str) -> Option<Self> {
        [Self::P256, Self::P384, Self::P521].into_iter().find(|curve| curve.as_str() == name)
    }

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::P256 => "P-256",
            Self::P384 => "P-384",
            Self::P521 => "P-521",
        }
    }

    fn algorithm(self) -> JwtAlgorithm {
        match self {
            Self::P256 => JwtAlgorithm::Es256,
            Self::P384 => JwtAlgorithm::Es384,
            Self::P521 => JwtAlgorithm::Es512,
        }
    }

    /// Bytes of a coordinate.
    fn size(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
            Self::P521 => 66,
        }
    }

    fn verification(self) -> &'static EcdsaVerificationAlgorithm {
        match self {
            Self::P256 => &ECDSA_P256_SHA256_FIXED,
            Self::P384 => &ECDSA_P384_SHA384_FIXED,
            Self::P521 => &ECDSA_P521_SHA512_FIXED,
        }
    }
}

/// Without leading zeros, which some writers put there.
fn magnitude(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    number.get(zeros..).unwrap_or_default()
}

fn bit_length(number: &[u8]) -> usize {
    let leading = number.first().map_or(0, |byte| byte.leading_zeros() as usize);
    number.len() * 8 - leading
}
