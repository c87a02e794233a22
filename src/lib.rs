//! svid-csi: SPIFFE identities for Kubernetes pods, mounted by a CSI node driver.
//!
//! The layers, lowest first; each uses only what stands above it in this list
//! (`tests/it/layering.rs` checks it).

pub mod class;
pub mod clock;

pub mod encoding;
pub mod id;
pub mod jitter;
pub mod jose;
pub mod pki;

pub mod k8s;
pub mod sys;
pub mod volume;

pub mod signer;
pub mod trust;

pub mod controller;
pub mod node;

pub mod csi;
pub mod http;
pub mod issuer;
pub mod workload;

pub mod cli;
