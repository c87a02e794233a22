//! What one connection may cost. What one volume may cost, all its connections together, is
//! `node`'s to limit.
//!
//! Whatever exceeds a limit here is answered as HTTP/2 has it (RFC 9113 §7): the stream is refused
//! or reset, or the connection ends with ENHANCE_YOUR_CALM.

use tonic::transport::Server;

/// The longest message in bytes that a client may send; every service gets it as its
/// `max_decoding_message_size`. Beyond it a call fails with OUT_OF_RANGE.
///
/// The longest that make sense are a token to validate and a list of audiences.
pub(super) const MAX_MESSAGE: usize = 64 * 1024;

/// Calls at the same time on one connection; RFC 9113 §6.5.2 wants 100 at least.
const STREAMS: u32 = 100;
/// A call's header fields, uncompressed; larger ones are answered 431, four times as large ones
/// end the connection.
const HEADER_LIST: u32 = 8 * 1024;
/// What may lie unread, in bytes, of one call and of all calls of a connection. HTTP/2's default:
/// hyper's is 1 MiB each.
const WINDOW: u32 = 65_535;
/// Calls that the client took back before they were begun (CVE-2023-44487).
const TAKEN_BACK: usize = 20;
/// Calls of a connection that we reset, over its whole life: because the client broke the protocol, or
/// because its request was still on its way when it was refused. So no fewer than `h2` has it.
const RESET: usize = 1024;
/// `server` with these limits. The frame size stays at its default: `sys::RewriteAuthority` counts
/// on it. There is no keepalive: on a Unix socket the kernel tells of a peer that is gone.
pub(super) fn limited<L>(server: Server<L>) -> Server<L> {
    server
        .max_concurrent_streams(STREAMS)
        .http2_max_header_list_size(HEADER_LIST)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .http2_max_pending_accept_reset_streams(Some(TAKEN_BACK))
        .http2_max_local_error_reset_streams(Some(RESET))
}
