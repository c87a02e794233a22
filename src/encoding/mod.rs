//! How keys and certificates are written: DER (X.690) and its textual form (RFC 7468).

pub(crate) mod der;
pub(crate) mod pem;

pub use self::pem::PemError;
