//! What callers may cost. Whatever exceeds a limit is refused at once; nothing waits in a queue.

use std::time::Duration;

use tonic::transport::Server;

/// Connections at the same time; one takes about 50 KiB.
pub(super) const CONNECTIONS: usize = 10_000;
/// Connections that have not proven yet that a driver is at the other end.
pub(super) const STRANGERS: usize = 2_048;
/// The same, of one address: a pod that floods is in nobody's way but its own.
pub(super) const STRANGERS_OF_ONE: usize = 32;
/// How long a connection may take for its handshake.
pub(super) const HANDSHAKE: Duration = Duration::from_secs(5);
/// How long a connection may take for its first call with a driver's token.
pub(super) const PROOF: Duration = Duration::from_secs(10);
/// Connections of one driver.
pub(super) const CONNECTIONS_OF_ONE: usize = 8;
/// Calls at the same time, all connections together.
pub(super) const CALLS: usize = 2_048;
/// Calls at the same time of one driver.
pub(super) const CALLS_OF_ONE: usize = 128;
/// How long a call may take: what it rests on may have to be read live.
pub(super) const CALL: Duration = Duration::from_secs(20);
/// The longest message, in bytes: an RSA-4096 request, a token, and as many names as there may be.
pub(super) const MAX_MESSAGE: usize = 32 << 10;
/// How long calls that are under way may take at the end.
pub(super) const DRAIN: Duration = Duration::from_secs(5);

/// Calls at the same time on one connection.
const STREAMS: u32 = CALLS_OF_ONE as u32;
/// A call's header fields, uncompressed: the driver's token is one.
const HEADER_LIST: u32 = 16 << 10;
/// What may lie unread, in bytes, of one call and of all calls of a connection.
const WINDOW: u32 = 65_535;
/// Calls that the client took back before they were begun (CVE-2023-44487).
const TAKEN_BACK: usize = 20;
/// Calls of a connection that we reset, over its whole life.
const RESET: usize = 1_024;
/// How long a connection may live: then its node looks up anew which replicas there are, and proves
/// anew that it trusts this one.
const AGE: Duration = Duration::from_secs(30 * 60);
const AGE_GRACE: Duration = Duration::from_secs(30);
/// How often a silent peer is asked whether it is still there, and how long it may take to say so.
const KEEPALIVE: Duration = Duration::from_secs(60);
const KEEPALIVE_ANSWER: Duration = Duration::from_secs(20);

/// `server` with these limits.
pub(super) fn limited<L>(server: Server<L>) -> Server<L> {
    server
        .max_concurrent_streams(STREAMS)
        .http2_max_header_list_size(HEADER_LIST)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .http2_max_pending_accept_reset_streams(Some(TAKEN_BACK))
        .http2_max_local_error_reset_streams(Some(RESET))
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE_ANSWER))
        .max_connection_age(AGE)
        .max_connection_age_grace(AGE_GRACE)
}
