//! Keys, CSRs, X.509-SVIDs, trust bundles and the CA that signs (X509-SVID.md, RFC 5280).
//!
//! Certificates are written by [`Profile`] itself, not by a general library: a leaf must name its
//! issuer byte for byte, and the libraries re-encode names (and lose repeated attributes).

mod authority;
mod bundle;
mod certificate;
mod csr;
mod dns_name;
mod error;
mod jwks;
mod key;
mod lineage;
mod possession;
mod profile;
mod public_key;
mod renewal;
mod spki;
mod svid;
#[cfg(test)]
mod tests;

pub use authority::{Authority, AuthorityError, IssueError};
pub use bundle::{BundleError, TrustBundle};
pub use certificate::{
    Certificate, ExtendedKeyUsage, KeyUsage, certificates_from_der, certificates_from_pem,
    certificates_to_pem,
};
pub use csr::{Csr, CsrError};
pub use dns_name::{DnsName, DnsNameError};
pub use error::PkiError;
pub use key::{KeyAlgorithm, PrivateKey};
pub use lineage::sha256_hex;
pub use profile::Profile;
pub use public_key::PublicKey;
pub use renewal::RenewalPolicy;
pub use svid::{SvidError, X509Svid};
