//! SPIFFE IDs, trust domains and the template that names a pod (SPIFFE-ID.md).

mod claim_template;
mod dns_template;
mod error;
mod nearest;
mod spiffe_id;
mod template;
mod trust_domain;

pub use claim_template::ClaimTemplate;
pub use dns_template::DnsTemplate;
pub use error::IdError;
pub use nearest::nearest;
pub use spiffe_id::SpiffeId;
pub use template::{IdTemplate, TemplateInput};
pub use trust_domain::TrustDomain;
