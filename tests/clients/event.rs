//! What clients tell: one JSON object a line, in whatever language.

use std::{collections::BTreeMap, time::Instant};

use serde::Deserialize;

#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// Its SVID, by this of its ways to follow it.
    X509 {
        by: String,
        id: String,
        serial: String,
        roots: usize,
    },
    X509Bundle {
        domain: String,
        authorities: usize,
    },
    JwtBundle {
        domain: String,
        kids: Vec<String>,
    },
    Jwt {
        id: String,
        token: String,
    },
    /// The token was found good, by the Workload API or with the bundle.
    Validated {
        by: String,
        id: String,
    },
    /// The token was not found good for another audience.
    Refused {
        code: String,
    },
    /// It was.
    Accepted {
        audience: String,
    },
    Error {
        what: String,
        text: String,
    },
    Listening {
        http: String,
        grpc: String,
    },
    /// How many calls of each kind were made so far.
    Calls {
        made: BTreeMap<String, u64>,
    },
    /// Whose certificate the other end of a new connection has now.
    Peer {
        id: String,
        serial: String,
    },
}

#[derive(Clone, Debug)]
pub struct Told {
    pub at: Instant,
    pub event: Event,
}

/// A serial number in hexadecimal as all of them are compared here.
pub fn serial(hex: &str) -> String {
    hex.trim_start_matches('0').to_ascii_lowercase()
}
