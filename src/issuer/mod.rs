//! Direct issuing: `svid.issuer.v1` over TLS 1.3, by which nodes have their pods' identities signed
//! without any API object. Each call proves twice who asks: by the driver's own token and by the pod's.

mod accept;
mod certificate;
mod connection;
mod gate;
mod limits;
mod metrics;
mod proof;
mod read;
mod server;
mod service;
mod status;
#[cfg(test)]
mod tests;

pub use self::{
    metrics::Metrics,
    server::{Ground, Server, ServerError},
};
