//! Where the controller's replicas are.

use std::{collections::BTreeSet, fmt, io, net::SocketAddr, str::FromStr, time::Duration};

use tokio::{net::lookup_host, time::timeout};

/// The port that the controller serves `svid.issuer.v1` at, unless it is told otherwise.
const DEFAULT_PORT: u16 = 9443;
/// More names than anyone needs.
const MAX_HOSTS: usize = 8;
/// The most replicas that a node connects to.
const MAX_REPLICAS: usize = 32;
/// How long a resolver may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// One or more names or IP addresses with ports, `host:port[,host:port…]`. A name stands for every
/// address that it resolves to, such as the replicas behind a headless Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControllerAddress(Vec<(String, u16)>);

/// Why an address is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{shown:?} is not HOST:PORT, such as svid-csi-issuer.svid-csi.svc:9443: {reason}")]
pub struct AddressError {
    shown: String,
    reason: &'static str,
}

// === impl ControllerAddress ===

impl ControllerAddress {
    /// All addresses that it stands for now, in order. Fails only if nothing could be resolved.
    pub(super) async fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        let mut found = BTreeSet::new();
        let mut failed = None;
        for (host, port) in &self.0 {
            match timeout(PATIENCE, lookup_host((host.as_str(), *port))).await {
                Ok(Ok(addresses)) => found.extend(addresses),
                Ok(Err(error)) => {
                    failed = Some(io::Error::new(error.kind(), format!("resolve {host}: {error}")));
                }
                Err(_) => {
                    let message = format!("resolve {host}: no answer within {PATIENCE:?}");
                    failed = Some(io::Error::new(io::ErrorKind::TimedOut, message));
                }
            }
        }
        match failed {
            Some(error) if found.is_empty() => Err(error),
            _ => Ok(found.into_iter().take(MAX_REPLICAS).collect()),
        }
    }
}

impl fmt::Display for ControllerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (host, port)) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            match host.contains(':') {
                true => write!(f, "{comma}[{host}]:{port}")?,
                false => write!(f, "{comma}{host}:{port}")?,
            }
        }
        Ok(())
    }
}

impl FromStr for ControllerAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let parse = |one: &str| {
            parse_one(one.trim())
                .map_err(|reason| AddressError { shown: one.chars().take(64).collect(), reason })
        };
        let hosts = text.split(',').map(parse).collect::<Result<Vec<_>, _>>()?;
        if hosts.len() > MAX_HOSTS {
            let shown = text.chars().take(64).collect();
            return Err(AddressError { shown, reason: "at most eight are taken" });
        }
        Ok(Self(hosts))
    }
}

fn parse_one(text: &str) -> Result<(String, u16), &'static str> {
    let (host, rest) = match text.strip_prefix('[') {
        Some(bracketed) => {
            let (host, rest) = bracketed.split_once(']').ok_or("a bracket is not closed")?;
            host.parse::<std::net::Ipv6Addr>().map_err(|_error| "no IPv6 address in brackets")?;
            (host, rest)
        }
        None => {
            let (host, rest) = text.split_at(text.find(':').unwrap_or(text.len()));
            let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
            if host.is_empty() || host.len() > 253 || !host.bytes().all(legal) {
                return Err("no host name");
            }
            (host, rest)
        }
    };
    let port = match rest.strip_prefix(':') {
        None if rest.is_empty() => DEFAULT_PORT,
        None => return Err("what follows the bracket is no port"),
        Some(port) => match port.parse::<u16>() {
            Ok(port) if port != 0 => port,
            _ => return Err("the port is no number from 1 to 65535"),
        },
    };
    Ok((host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_with_and_without_a_port() {
        for (text, shown) in [
            ("svid-csi-issuer.svid-csi.svc:9443", "svid-csi-issuer.svid-csi.svc:9443"),
            ("issuer", "issuer:9443"),
            ("10.0.0.1:1, [::1]:2", "10.0.0.1:1,[::1]:2"),
            ("[2001:db8::1]", "[2001:db8::1]:9443"),
        ] {
            assert_eq!(text.parse::<ControllerAddress>().unwrap().to_string(), shown);
        }
        let many = ["a"; 9].join(",");
        for bad in [
            "",
            ":9443",
            "a:",
            "a:0",
            "a:65536",
            "https://a:1",
            "::1",
            "[::1",
            "[a]",
            "a b",
            "a,",
            &many,
        ] {
            bad.parse::<ControllerAddress>().unwrap_err();
        }
    }

    #[tokio::test]
    async fn every_address_of_every_name_is_found_once() {
        let address: ControllerAddress = "127.0.0.2:9,[::1]:9,127.0.0.2:9".parse().unwrap();
        let found = address.resolve().await.unwrap();
        assert_eq!(found, ["127.0.0.2:9".parse().unwrap(), "[::1]:9".parse().unwrap()]);
    }
}
