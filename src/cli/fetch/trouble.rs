//! What went wrong, and what a person should do about it.

use std::{error::Error, fmt, io, time::Duration};

use tonic::{Code, Status, transport};

use super::endpoint::Endpoint;
use crate::cli::inspect::clean;

/// Why a call failed.
#[derive(Debug)]
pub(in crate::cli) enum Trouble {
    /// There is no connection. The kind says why, if it is the socket's.
    Connection(Option<io::ErrorKind>, String),
    /// The server refused.
    Refused(Status),
    /// The stream or the answer had nothing in it.
    Empty,
    TimedOut(Duration),
    /// Any of these, and where.
    At(Box<(Trouble, Endpoint)>),
}

// === impl Trouble ===

impl Trouble {
    pub(in crate::cli) fn connection(error: transport::Error) -> Self {
        let mut cause: &dyn Error = &error;
        let mut text = error.to_string();
        loop {
            if let Some(error) = cause.downcast_ref::<io::Error>() {
                return Self::Connection(Some(error.kind()), error.to_string());
            }
            match cause.source() {
                Some(source) => cause = source,
                None => {
                    let last = cause.to_string();
                    if last != text {
                        text = format!("{text}: {last}");
                    }
                    return Self::Connection(None, text);
                }
            }
        }
    }

    pub(super) fn at(self, endpoint: &Endpoint) -> Self {
        Self::At(Box::new((self, endpoint.clone())))
    }

    /// The gRPC code, if the server refused.
    pub(super) fn code(&self) -> Option<Code> {
        match self {
            Self::Refused(status) => Some(status.code()),
            Self::At(inner) => inner.0.code(),
            Self::Connection(..) | Self::Empty | Self::TimedOut(_) => None,
        }
    }

    /// The server's own words.
    pub(super) fn message(&self) -> Option<&str> {
        match self {
            Self::Refused(status) => Some(status.message()),
            Self::At(inner) => inner.0.message(),
            Self::Connection(..) | Self::Empty | Self::TimedOut(_) => None,
        }
    }

    fn action(&self) -> &'static str {
        match self {
            Self::Connection(Some(kind), _) => connection_action(*kind),
            Self::Connection(None, _) => "is it the socket of a Workload API?",
            Self::Refused(status) => refusal_action(status),
            Self::Empty => "nothing came: report it to whoever serves the socket",
            Self::TimedOut(_) => {
                "the node plugin or its signer is busy or stuck: look at its log, or give --timeout \
                 more"
            }
            Self::At(inner) => inner.0.action(),
        }
    }
}

fn connection_action(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::NotFound => {
            "is the volume mounted here, and is this its socket? The attribute csi.svid.dev/socket \
             gives it another name, and none gives it none"
        }
        io::ErrorKind::ConnectionRefused => {
            "nobody serves it now: the node plugin is not running, or just starting; it binds the \
             socket again by itself"
        }
        io::ErrorKind::PermissionDenied => {
            "this user may not open it: the attributes uid, gid and mode of the volume, or the pod's \
             fsGroup, say who may"
        }
        _ => "is it the socket of a Workload API?",
    }
}

fn refusal_action(status: &Status) -> &'static str {
    match status.code() {
        Code::PermissionDenied => {
            "the pod has no such identity: its Events say why, svid-csi policy test says which rule \
             refuses it, and --spiffe-id may name the pod's own SPIFFE ID alone"
        }
        Code::Unavailable => {
            "starting, stopping, too many calls from this volume, or its signer is away: try again"
        }
        Code::Unimplemented => {
            "the server does not have this: JWT-SVIDs need a signer with a JWT key"
        }
        Code::InvalidArgument => "look at the arguments",
        Code::ResourceExhausted => "it is larger than this client takes",
        _ => "is it the socket of a Workload API?",
    }
}

impl From<Status> for Trouble {
    fn from(status: Status) -> Self {
        Self::Refused(status)
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connection(_, reason) => write!(f, "cannot connect: {reason}")?,
            Self::Refused(status) => {
                write!(f, "{:?}: {}", status.code(), clean(status.message()))?;
            }
            Self::Empty => f.write_str("no answer")?,
            Self::TimedOut(patience) => write!(f, "no answer within {} s", patience.as_secs())?,
            Self::At(inner) => return write!(f, "{}: {}", inner.1, inner.0),
        }
        write!(f, "; {}", self.action())
    }
}

impl Error for Trouble {}
