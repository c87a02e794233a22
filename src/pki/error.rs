//! What can be wrong with a key, a PEM file or a certificate by itself.

use crate::{class::Class, encoding::PemError};

/// What can be wrong with a key, a PEM file or a certificate by itself. Never holds secret bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PkiError {
    /// No such key algorithm.
    #[error(
        "unknown key algorithm {given:?}; use ecdsa-p256, ecdsa-p384, ed25519, rsa-2048 or rsa-4096"
    )]
    UnknownKeyAlgorithm {
        /// As written, shortened.
        given: String,
    },
    /// The crypto library failed.
    #[error("cannot generate a {algorithm} key: the crypto library failed")]
    Generate {
        /// The kebab-case name of the algorithm.
        algorithm: &'static str,
    },
    /// The crypto library failed.
    #[error("cannot sign: the crypto library failed")]
    Sign,
    /// The machine's random source failed.
    #[error("cannot get random bytes from the operating system")]
    Random,
    /// A PEM block is damaged.
    #[error("damaged PEM at line {line}: {problem}")]
    Pem {
        /// Counted from 1.
        line: usize,
        /// What is wrong there.
        problem: &'static str,
    },
    /// No `CERTIFICATE` block.
    #[error("no certificate found; the file needs at least one PEM block CERTIFICATE")]
    NoCertificate,
    /// No private key block.
    #[error(
        "no private key found; the file needs a PEM block PRIVATE KEY, EC PRIVATE KEY or RSA PRIVATE KEY"
    )]
    NoKey,
    /// More than one private key block.
    #[error("more than one private key found; keep the one that belongs to the certificate")]
    SeveralKeys,
    /// The private key needs a passphrase.
    #[error("the private key is encrypted; decrypt it first, as with openssl pkey")]
    EncryptedKey,
    /// Neither of the five algorithms, or damaged.
    #[error(
        "the private key cannot be used: it is damaged, or not ECDSA P-256, ECDSA P-384, Ed25519, RSA-2048 or RSA-4096"
    )]
    UnusableKey,
    /// Not a certificate.
    #[error("not a valid certificate: {problem}")]
    Certificate {
        /// What is wrong.
        problem: &'static str,
    },
    /// Several certificates in one file, one of them bad.
    #[error("certificate {index} of the file: {source}")]
    InFile {
        /// Counted from 1.
        index: usize,
        /// What is wrong with it.
        source: Box<PkiError>,
    },
}

// === impl PkiError ===

impl PkiError {
    /// [`Class::Internal`] where the crypto library or the machine failed, else
    /// [`Class::Invalid`].
    pub fn class(&self) -> Class {
        match self {
            Self::Generate { .. } | Self::Sign | Self::Random => Class::Internal,
            _ => Class::Invalid,
        }
    }
}

impl From<PemError> for PkiError {
    fn from(error: PemError) -> Self {
        match error {
            PemError::Damaged { line, problem } => Self::Pem { line, problem },
            PemError::Encrypted => Self::EncryptedKey,
        }
    }
}
