//! The controller: who may have which identity, and the CA that signs it.

mod annotated;
pub mod approver;
pub mod audit;
pub mod ca;
pub mod certificate_requests;
pub mod issuance;
pub mod metrics;
pub mod pod_certificates;
pub mod policy_status;
pub mod reconcile;
pub mod requests;
pub mod tokens;
pub mod world;
