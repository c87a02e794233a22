//! What is served at the socket in every volume: one gRPC server for all of them. The accepting
//! socket says whose a connection is.

mod connection;
mod server;

pub use self::server::Server;
