//! The private key that signs JWT-SVIDs.

use std::fmt;

use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der},
    rand::{SecureRandom, SystemRandom},
    rsa::KeySize,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
        EcdsaSigningAlgorithm, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
    },
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::json;
use zeroize::Zeroizing;

use super::{
    JwtAuthority, JwtClaims, JwtError, JwtKeyAlgorithm, JwtKeyError, JwtSvid, MAX_TOKEN,
    public_key::{Curve, EcPublicKey, PublicKey, RsaPublicKey},
};
use crate::encoding::{
    der::{INTEGER, Reader, SEQUENCE},
    pem,
};

/// A private key that signs JWT-SVIDs. Wiped when dropped, never printed, never cloned: share it
/// by `Arc`. The parsed form is kept: a signature parses nothing.
pub struct JwtKey {
    algorithm: JwtKeyAlgorithm,
    pair: Pair,
    authority: JwtAuthority,
    /// The encoded header of every token, with the dot.
    header: String,
}

enum Pair {
    Rsa(RsaKeyPair),
    Ecdsa(EcdsaKeyPair),
}

const PKCS8: &str = "PRIVATE KEY";
/// Bytes of a `jti`.
const JTI: usize = 16;

// === impl JwtKey ===

impl JwtKey {
    /// Makes a new key. RSA takes up to seconds.
    pub fn generate(algorithm: JwtKeyAlgorithm) -> Result<Self, JwtKeyError> {
        let pair = match ecdsa(algorithm) {
            Some(curve) => EcdsaKeyPair::generate(curve).ok().map(Pair::Ecdsa),
            None => RsaKeyPair::generate(KeySize::Rsa2048).ok().map(Pair::Rsa),
        };
        pair.and_then(|pair| Self::new(algorithm, pair)).ok_or(JwtKeyError::Generate)
    }

    /// Reads the one private key of a PEM file, PKCS#8. Other blocks beside it are ignored.
    pub fn from_pem(text: &str) -> Result<Self, JwtKeyError> {
        let blocks = pem::read(text, |label| label.ends_with(PKCS8))?;
        let [block] = blocks.as_slice() else {
            return Err(match blocks.is_empty() {
                true => JwtKeyError::NoKey,
                false => JwtKeyError::SeveralKeys,
            });
        };
        if block.label != PKCS8 {
            return Err(JwtKeyError::Unusable);
        }
        let read = |algorithm| match ecdsa(algorithm) {
            Some(curve) => EcdsaKeyPair::from_pkcs8(curve, &block.der).ok().map(Pair::Ecdsa),
            None => RsaKeyPair::from_pkcs8(&block.der).ok().map(Pair::Rsa),
        };
        JwtKeyAlgorithm::ALL
            .into_iter()
            .find_map(|algorithm| Self::new(algorithm, read(algorithm)?))
            .ok_or(JwtKeyError::Unusable)
    }

    fn new(algorithm: JwtKeyAlgorithm, pair: Pair) -> Option<Self> {
        let authority = JwtAuthority::of_key(pair.public_key()?);
        let alg = algorithm.jwt_algorithm().as_str();
        let header = json!({ "alg": alg, "kid": authority.key_id(), "typ": "JWT" }).to_string();
        let header = format!("{}.", URL_SAFE_NO_PAD.encode(header));
        Some(Self { algorithm, pair, authority, header })
    }

    /// PKCS#8 PEM. Secret, wiped when dropped.
    pub fn to_pem(&self) -> Result<Zeroizing<String>, JwtKeyError> {
        let der = match &self.pair {
            Pair::Rsa(pair) => {
                let der: Result<Pkcs8V1Der<'_>, _> = pair.as_der();
                der.map(|der| Zeroizing::new(der.as_ref().to_vec()))
            }
            Pair::Ecdsa(pair) => pair.to_pkcs8v1().map(|der| Zeroizing::new(der.as_ref().to_vec())),
        };
        let der = der.map_err(|_unspecified| JwtKeyError::Generate)?;
        Ok(pem::write(PKCS8, &der))
    }

    /// The algorithm.
    pub fn algorithm(&self) -> JwtKeyAlgorithm {
        self.algorithm
    }

    /// The public half.
    pub fn authority(&self) -> &JwtAuthority {
        &self.authority
    }

    /// Signs. What would be longer than [`MAX_TOKEN`] is refused: nobody would take it.
    pub fn sign(&self, claims: &JwtClaims) -> Result<JwtSvid, JwtError> {
        let random = SystemRandom::new();
        let jti = match claims.jti {
            true => {
                let mut bytes = [0; JTI];
                random.fill(&mut bytes).map_err(|_unspecified| JwtError::Random)?;
                Some(URL_SAFE_NO_PAD.encode(bytes))
            }
            false => None,
        };
        let body = claims.to_json(jti)?;
        let signature_length = match &self.pair {
            Pair::Rsa(pair) => pair.public_modulus_len(),
            // Two numbers of 48 bytes at most.
            Pair::Ecdsa(_) => 96,
        };
        let room = self.header.len() + (body.len() + signature_length).div_ceil(3) * 4 + 8;
        // It never moves, so that no copy is left behind.
        let mut token = Zeroizing::new(String::with_capacity(room));
        token.push_str(&self.header);
        URL_SAFE_NO_PAD.encode_string(body, &mut token);
        let signature = self.pair.sign(&random, token.as_bytes()).ok_or(JwtError::Sign)?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        match token.len() {
            length if length > MAX_TOKEN => Err(JwtError::TooLong { length }),
            _ => JwtSvid::new(token, claims),
        }
    }
}

impl fmt::Debug for JwtKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JwtKey({}, redacted)", self.algorithm)
    }
}

/// `None` for RSA.
fn ecdsa(algorithm: JwtKeyAlgorithm) -> Option<&'static EcdsaSigningAlgorithm> {
    match algorithm {
        JwtKeyAlgorithm::Rs256 => None,
        JwtKeyAlgorithm::Es256 => Some(&ECDSA_P256_SHA256_FIXED_SIGNING),
        JwtKeyAlgorithm::Es384 => Some(&ECDSA_P384_SHA384_FIXED_SIGNING),
    }
}

// === impl Pair ===

impl Pair {
    fn public_key(&self) -> Option<PublicKey> {
        match self {
            Self::Rsa(pair) => {
                // RSAPublicKey (RFC 8017 §A.1.1).
                let mut outer = Reader::new(pair.public_key().as_ref());
                let mut body = outer.enter(SEQUENCE)?;
                let (n, e) = (body.expect(INTEGER)?.content, body.expect(INTEGER)?.content);
                Some(PublicKey::Rsa(RsaPublicKey::new(n, e)?))
            }
            Self::Ecdsa(pair) => {
                let (curve, size) = match pair.public_key().as_ref().len() {
                    65 => (Curve::P256, 32),
                    97 => (Curve::P384, 48),
                    _ => return None,
                };
                let point = pair.public_key().as_ref().get(1..)?;
                let (x, y) = point.split_at_checked(size)?;
                Some(PublicKey::Ec(EcPublicKey::new(curve, x, y)?))
            }
        }
    }

    fn sign(&self, random: &SystemRandom, message: &[u8]) -> Option<Vec<u8>> {
        match self {
            Self::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, random, message, &mut signature).ok()?;
                Some(signature)
            }
            Self::Ecdsa(pair) => Some(pair.sign(random, message).ok()?.as_ref().to_vec()),
        }
    }
}

#[cfg(test)]
impl JwtKey {
    /// For tests of tokens that this key would never make.
    pub(crate) fn signature(&self, message: &[u8]) -> String {
        URL_SAFE_NO_PAD.encode(self.pair.sign(&SystemRandom::new(), message).unwrap())
    }
}
