//! Where the Workload API is (Workload_Endpoint.md §4).

use std::{fmt, net::SocketAddr, path::PathBuf, str::FromStr, time::Duration};

use svid_csi_proto::workload::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use tonic::{
    Request,
    metadata::MetadataValue,
    transport::{self, Channel},
};

use super::trouble::Trouble;
use crate::cli::channel;

/// The address of a Workload API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Endpoint {
    Unix(PathBuf),
    Tcp(SocketAddr),
}

/// What is no address of one.
const MALFORMED: &str = "must be the socket's path, unix:///path or tcp://IP:port";

// === impl Endpoint ===

impl Endpoint {
    /// Connects; each call may take so long.
    pub(super) async fn channel(&self, patience: Duration) -> Result<Channel, Trouble> {
        let channel = match self {
            Self::Unix(path) => channel::unix(path.clone(), patience).await,
            Self::Tcp(address) => match transport::Endpoint::new(format!("http://{address}")) {
                Ok(endpoint) => endpoint.timeout(patience).connect().await,
                Err(error) => Err(error),
            },
        };
        channel.map_err(Trouble::connection)
    }

    pub(super) async fn client(
        &self,
        patience: Duration,
    ) -> Result<SpiffeWorkloadApiClient<Channel>, Trouble> {
        Ok(SpiffeWorkloadApiClient::new(self.channel(patience).await?))
    }
}

/// A request with the header without which nobody may answer (Workload_Endpoint.md §3).
pub(super) fn request<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("workload.spiffe.io", MetadataValue::from_static("true"));
    request
}

impl FromStr for Endpoint {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(address) = text.strip_prefix("tcp://") {
            return address.parse().map(Self::Tcp).or(Err(MALFORMED));
        }
        let path = match text.strip_prefix("unix:") {
            // An empty host before the path, or none; another host is a mistake, such as `unix://svid`.
            Some(rest) => match rest.strip_prefix("//") {
                Some(path) if path.starts_with('/') => path,
                Some(_) => return Err(MALFORMED),
                None if rest.starts_with('/') => rest,
                None => return Err(MALFORMED),
            },
            None if text.contains("://") => return Err(MALFORMED),
            None => text,
        };
        match path.is_empty() || path.ends_with('/') {
            true => Err(MALFORMED),
            false => Ok(Self::Unix(path.into())),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp://{address}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_the_standard_and_bare_paths_are_read() {
        let unix = |path: &str| Ok(Endpoint::Unix(path.into()));
        for (text, endpoint) in [
            ("unix:///svid/spiffe.sock", unix("/svid/spiffe.sock")),
            ("unix:/svid/spiffe.sock", unix("/svid/spiffe.sock")),
            ("/svid/spiffe.sock", unix("/svid/spiffe.sock")),
            ("spiffe.sock", unix("spiffe.sock")),
            ("tcp://127.0.0.1:8000", Ok(Endpoint::Tcp(([127, 0, 0, 1], 8000).into()))),
            ("tcp://localhost:8000", Err(MALFORMED)),
            ("tcp://127.0.0.1:8000/x", Err(MALFORMED)),
            ("unix://svid/spiffe.sock", Err(MALFORMED)),
            ("unix:svid/spiffe.sock", Err(MALFORMED)),
            ("unix:", Err(MALFORMED)),
            ("http://127.0.0.1", Err(MALFORMED)),
            ("/svid/", Err(MALFORMED)),
            ("", Err(MALFORMED)),
        ] {
            assert_eq!(text.parse::<Endpoint>(), endpoint, "{text}");
        }
    }
}
