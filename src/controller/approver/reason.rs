//! Why a request is denied.

use crate::k8s::{IdentityIs, LifetimeIs, names::IDENTITY_IS_REASON};

/// A refusal: a code for programs, a message for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// The code.
    pub reason: ReasonCode,
    /// What is wrong and what to do.
    pub message: String,
    /// What the pod may have instead, with [`ReasonCode::IdentityIs`].
    pub identity_is: Option<IdentityIs>,
    /// The lifetime that the pod may have instead, with [`ReasonCode::LifetimeIs`].
    pub lifetime_is: Option<LifetimeIs>,
}

/// A kind of object that a decision can rest on. What the caches don't hold, or hold in an old
/// version, is read live before it is a reason to deny.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fact {
    /// The driver's pod, from which the request came.
    DriverPod,
    /// The ServiceAccount that the driver's pods run as.
    DriverServiceAccount,
    /// The node that it runs on.
    Node,
    /// The pod that the SVID is for.
    Pod,
    /// That pod's ServiceAccount.
    ServiceAccount,
    /// That pod's namespace.
    Namespace,
    /// The policies.
    Policies,
}

macro_rules! reasons {
    ($($(#[$doc:meta])+ $name:ident rests on $($fact:ident)*;)+) => {
        /// The code of a refusal; also the reason of the condition Denied or Failed, the `reason` of
        /// the audit stream and a metric's label.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum ReasonCode {
            $($(#[$doc])+ $name,)+
        }

        impl ReasonCode {
            /// All of them, in the order in which they are checked.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// As conditions hold it.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)+ }
            }

            /// The objects that a refusal for this reason rests on; none if the request alone is
            /// at fault.
            pub fn rests_on(self) -> &'static [Fact] {
                match self { $(Self::$name => &[$(Fact::$fact),*],)+ }
            }
        }
    };
}

reasons! {
    /// The request is for another signer.
    WrongSigner rests on ;
    /// Somebody else than the driver's ServiceAccount made it.
    NotTheDriver rests on ;
    /// The requester's token is not bound to one pod on one node.
    UnboundToken rests on ;
    /// The label `csi.svid.dev/node-uid` is not the requester's node.
    NodeLabelMismatch rests on ;
    /// The driver's pod does not exist.
    DriverPodMissing rests on DriverPod;
    /// The driver's pod has another UID.
    DriverPodReplaced rests on DriverPod;
    /// The driver's pod runs as another ServiceAccount.
    DriverPodServiceAccount rests on DriverPod;
    /// The driver's pod is on another node.
    DriverPodElsewhere rests on DriverPod;
    /// The driver's pod has finished.
    DriverPodFinished rests on DriverPod;
    /// The driver's pod should have been gone for more than a minute.
    DriverPodDeleted rests on DriverPod;
    /// The driver's ServiceAccount has another UID than the requester's token says.
    DriverServiceAccountReplaced rests on DriverServiceAccount;
    /// The Node does not exist.
    NodeMissing rests on Node;
    /// The Node has another UID.
    NodeReplaced rests on Node;
    /// The annotations don't name a pod.
    PodNotNamed rests on ;
    /// The pod's token was not the API server's, not for us, or not of now.
    PodTokenRefused rests on ;
    /// The pod's token is of another pod than the one that the request names.
    PodTokenMismatch rests on ;
    /// The pod's token was made for another node than the driver's.
    PodTokenElsewhere rests on ;
    /// The pod does not exist.
    PodMissing rests on Pod;
    /// The pod has another UID.
    PodReplaced rests on Pod;
    /// The pod is on another node than the requester.
    PodElsewhere rests on Pod;
    /// The pod is a mirror pod.
    MirrorPod rests on Pod;
    /// The pod has no inline volume of this driver.
    PodWithoutVolume rests on Pod;
    /// The pod projects no `podCertificate` of our signer.
    PodWithoutProjection rests on Pod;
    /// The pod has finished.
    PodFinished rests on Pod;
    /// The pod should have been gone for more than a minute.
    PodDeleted rests on Pod;
    /// The pod's ServiceAccount does not exist.
    ServiceAccountMissing rests on Pod ServiceAccount;
    /// The pod's ServiceAccount has another name or UID than the request says.
    ServiceAccountReplaced rests on Pod ServiceAccount;
    /// The pod's namespace does not exist.
    NamespaceMissing rests on Namespace;
    /// An annotation under our prefix that isn't known.
    UnknownAnnotation rests on ;
    /// Not one PKCS#10 request in PEM.
    MalformedCsr rests on ;
    /// The CSR's signature is wrong, or of a weak or unknown key.
    BadSignature rests on ;
    /// The CSR has a subject.
    SubjectNotEmpty rests on ;
    /// The CSR has other attributes than one extensionRequest.
    ForbiddenAttribute rests on ;
    /// The CSR asks for other extensions than subjectAltName.
    ForbiddenExtension rests on ;
    /// The CSR's subjectAltName is not exactly one URI.
    ForbiddenName rests on ;
    /// The CSR's URI is no SPIFFE ID.
    NotASpiffeId rests on ;
    /// The CSR asks for an ID of another trust domain.
    ForeignTrustDomain rests on ;
    /// The CSR asks for an ID under `/svid.dev`.
    ReservedId rests on ;
    /// The key is of a kind or size that nobody may have.
    WeakKey rests on ;
    /// The usages are not exactly the three.
    WrongUsages rests on ;
    /// A CertificateRequest asks for a CA.
    CaRequested rests on ;
    /// The annotation `ttl` is no duration.
    MalformedTtl rests on ;
    /// `expirationSeconds` is absent or not what the lifetime makes it, or a CertificateRequest's
    /// `duration` is none.
    WrongExpiration rests on ;
    /// The annotation `key-algorithm` is unknown, or the key is of another one.
    WrongKeyAlgorithm rests on ;
    /// The annotation `dns-names` is no list of DNS names.
    MalformedDnsNames rests on ;
    /// Not one to so many audiences, or they are too long.
    MalformedAudience rests on ;
    /// No policy matches the pod.
    NoPolicy rests on Policies Pod Namespace;
    /// The policy that applies is broken.
    PolicyInvalid rests on Policies Pod Namespace;
    /// The policy's template gives this pod no legal ID or DNS name.
    NoIdentity rests on Policies Pod Namespace;
    /// The issuer asked for is not allowed.
    IssuerNotAllowed rests on Policies Pod Namespace;
    /// The lifetime asked for is outside what is allowed.
    TtlNotAllowed rests on Policies Pod Namespace;
    /// The key algorithm asked for is not allowed.
    KeyAlgorithmNotAllowed rests on Policies Pod Namespace;
    /// A DNS name asked for is not allowed.
    DnsNameNotAllowed rests on Policies Pod Namespace;
    /// A JWT-SVID is asked for another identity than the policy gives this pod.
    OtherIdentity rests on Policies Pod Namespace;
    /// A JWT-SVID is asked for an audience that is not allowed.
    AudienceNotAllowed rests on Policies Pod Namespace;
    /// The policy's template of a claim can't be filled for this pod.
    NoClaim rests on Policies Pod Namespace;
    /// The policy gives this pod another ID or key algorithm than the node supposed.
    IdentityIs rests on Policies Pod Namespace;
    /// The policy gives this pod another lifetime than a CertificateRequest says.
    LifetimeIs rests on Policies Pod Namespace;
    /// The policy that applies has rules that could cost too much.
    PolicyTooExpensive rests on Policies Pod Namespace ServiceAccount Node;
    /// A rule of the policy is not met.
    RuleNotMet rests on Policies Pod Namespace ServiceAccount Node;
    /// A rule of the policy could not be evaluated.
    RuleFailed rests on Policies Pod Namespace ServiceAccount Node;
}

/// Names in it may be as long as their writers like.
fn cut(mut message: String) -> String {
    const MAX: usize = 1024;
    if let Some((end, _)) = message.char_indices().nth(MAX) {
        message.truncate(end);
        message.push('…');
    }
    message
}

// === impl Denial ===

impl Denial {
    /// A refusal for this reason.
    pub fn new(reason: ReasonCode, message: impl Into<String>) -> Self {
        Self { reason, message: cut(message.into()), identity_is: None, lifetime_is: None }
    }

    /// Refused, because the pod may have something else.
    pub fn identity_is(identity: IdentityIs, message: impl Into<String>) -> Self {
        Self { identity_is: Some(identity), ..Self::new(ReasonCode::IdentityIs, message) }
    }

    /// Refused, because the pod may have it for another time.
    pub fn lifetime_is(lifetime: LifetimeIs, message: impl Into<String>) -> Self {
        Self { lifetime_is: Some(lifetime), ..Self::new(ReasonCode::LifetimeIs, message) }
    }

    /// The message of the condition Denied: JSON with [`ReasonCode::IdentityIs`] and
    /// [`ReasonCode::LifetimeIs`], else the message.
    pub fn condition_message(&self) -> String {
        match (&self.identity_is, &self.lifetime_is) {
            (Some(identity), _) => identity.to_json(),
            (None, Some(lifetime)) => lifetime.to_json(),
            (None, None) => self.message.clone(),
        }
    }

    /// The objects that it rests on.
    pub fn rests_on(&self) -> &'static [Fact] {
        self.reason.rests_on()
    }
}

const _: () = assert!(matches!(IDENTITY_IS_REASON.as_bytes(), b"IdentityIs"));
