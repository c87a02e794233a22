//! The calls that a socket serves, as metrics and logs name them.

/// What a method's answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// One message.
    Unary,
    /// Messages for as long as the client listens.
    Stream,
    /// The same, and the client may send several, too.
    Conversation,
}

/// A method, named `service/method`. Unknown ones are all the same: who calls chooses the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Method(&'static str);

const STREAMS: [&str; 6] = [
    "SpiffeWorkloadAPI/FetchX509SVID",
    "SpiffeWorkloadAPI/FetchX509Bundles",
    "SpiffeWorkloadAPI/FetchJWTBundles",
    "SpiffeWorkloadAPI/FetchWITSVID",
    "SpiffeWorkloadAPI/FetchWITBundles",
    "grpc.health.v1.Health/Watch",
];

const CONVERSATIONS: [&str; 4] = [
    "envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets",
    "envoy.service.secret.v3.SecretDiscoveryService/DeltaSecrets",
    "grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];

const UNARY: [&str; 4] = [
    "SpiffeWorkloadAPI/FetchJWTSVID",
    "SpiffeWorkloadAPI/ValidateJWTSVID",
    "envoy.service.secret.v3.SecretDiscoveryService/FetchSecrets",
    "grpc.health.v1.Health/Check",
];

// === impl Method ===

impl Method {
    const OTHER: Self = Self("other");

    /// The method with this path, `/service/method`.
    pub(super) fn of(path: &str) -> Self {
        let name = path.strip_prefix('/').unwrap_or(path);
        let mut methods = STREAMS.iter().chain(&CONVERSATIONS).chain(&UNARY);
        let known = methods.find(|known| **known == name);
        known.map_or(Self::OTHER, |known| Self(known))
    }

    /// The label.
    pub(super) fn name(self) -> &'static str {
        self.0
    }

    pub(super) fn kind(self) -> Kind {
        match self.0 {
            name if STREAMS.contains(&name) => Kind::Stream,
            name if CONVERSATIONS.contains(&name) => Kind::Conversation,
            _ => Kind::Unary,
        }
    }
}
