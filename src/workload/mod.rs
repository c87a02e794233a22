//! What is served at the socket in every volume: one gRPC server for all of them. The accepting
//! socket says whose a connection is.

mod api;
mod bundles;
mod call;
mod connection;
mod entitlement;
mod health;
mod jwt;
mod limits;
mod messages;
mod method;
mod metrics;
mod reflection;
mod sds;
mod server;
mod status;
mod x509;

pub use self::{metrics::Metrics, server::Server};
