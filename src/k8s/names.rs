//! Names on the wire between node, API server and controller.

/// The CSR signer whose requests are ours.
pub const SIGNER: &str = "svid.dev/workload";
/// What requests' names begin with; 40 hex digits follow.
pub const REQUEST_PREFIX: &str = "svid-";

/// Label of a request: the UID of the Node whose driver made it.
pub const NODE_UID_LABEL: &str = "csi.svid.dev/node-uid";

/// Annotations of a request. They say what is wished for and prove nothing.
pub mod annotation {
    /// What all of ours begin with.
    pub const PREFIX: &str = "csi.svid.dev/";
    /// The namespace of the pod.
    pub const POD_NAMESPACE: &str = "csi.svid.dev/pod-namespace";
    /// The name of the pod.
    pub const POD_NAME: &str = "csi.svid.dev/pod-name";
    /// The UID of the pod.
    pub const POD_UID: &str = "csi.svid.dev/pod-uid";
    /// The lifetime that the pod asks for; absent if it asks for none.
    pub const TTL: &str = "csi.svid.dev/ttl";
    /// The key algorithm that the pod asks for; absent if it asks for none.
    pub const KEY_ALGORITHM: &str = "csi.svid.dev/key-algorithm";
    /// The DNS names that the pod asks for, comma-separated; absent if it asks for none.
    pub const DNS_NAMES: &str = "csi.svid.dev/dns-names";
    /// On the bundle's ConfigMap: what a person wants done to the CA, as JSON.
    pub const CA_REQUEST: &str = "svid.dev/ca-request";
    /// On the bundle's ConfigMap: tells the controller what it wrote itself.
    pub const BUNDLE_SEAL: &str = "svid.dev/bundle-seal";
}

/// Keys of `spec.extra`, which the API server sets from the requester's token.
pub mod extra {
    /// The name of the node that the requester's pod runs on.
    pub const NODE_NAME: &str = "authentication.kubernetes.io/node-name";
    /// Its UID.
    pub const NODE_UID: &str = "authentication.kubernetes.io/node-uid";
    /// The name of the requester's pod.
    pub const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
    /// Its UID.
    pub const POD_UID: &str = "authentication.kubernetes.io/pod-uid";
}

/// What a request may be used for, in this order; no more and no less.
pub const USAGES: [&str; 3] = ["digital signature", "server auth", "client auth"];
/// The shortest `expirationSeconds` that the API server takes.
pub const MIN_EXPIRATION_SECONDS: u64 = 600;

/// Reason of the Approved condition.
pub const APPROVED_REASON: &str = "SvidPolicy";
/// Reason of a Denied condition whose message is JSON that says what to ask for instead.
pub const IDENTITY_IS_REASON: &str = "IdentityIs";
/// Reason of a Denied condition whose message is JSON that says which lifetime to ask for.
pub const LIFETIME_IS_REASON: &str = "LifetimeIs";

/// Keys of the bundle's ConfigMap.
pub mod bundle_map {
    /// The ConfigMap's usual name.
    pub const DEFAULT_NAME: &str = "svid-csi-bundle";
    /// The SPIFFE bundle of the trust domain (JWK Set).
    pub const BUNDLE: &str = "bundle.json";
    /// Key identifiers of CAs that are believed stolen, a line each.
    pub const TAINTED: &str = "tainted";
    /// What `svid-csi ca show` shows.
    pub const STATUS: &str = "status.json";
}

/// Keys of the ConfigMap that says who signs with cert-manager.
pub mod issuer_map {
    /// The issuer's name.
    pub const NAME: &str = "issuer-name";
    /// Its kind; `ClusterIssuer` without it.
    pub const KIND: &str = "issuer-kind";
    /// Its group; cert-manager's own without it.
    pub const GROUP: &str = "issuer-group";
}

/// The key of a ConfigMap under which issuers' roots are, in PEM.
pub const ROOTS: &str = "ca.crt";
