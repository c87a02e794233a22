//! CSI and kubelet's plugin registration, served on unix sockets: translation only.

mod identity;
mod node;
mod registration;
mod server;
mod status;

pub use self::server::{ServeError, Server, ServerConfig, SocketHealth};
