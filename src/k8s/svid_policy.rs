//! The custom resource `SvidPolicy`, as the API server keeps it. What it means is the approver's.
//!
//! Every field has a default and is a plain text or number, so that no object can be there that
//! isn't read: what is wrong with it is said in its status, and denies.

use std::collections::BTreeMap;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{CustomResource, CustomResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which pods may have which identities.
///
/// Exactly one policy applies to a pod: of those whose selector matches, the one with the highest
/// priority, then the first by name. No policy means that a request is denied; so does a policy
/// that is invalid, and none of lower priority takes its place.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "svid.dev",
    version = "v1alpha1",
    kind = "SvidPolicy",
    plural = "svidpolicies",
    shortname = "svidpol",
    category = "svid",
    status = "SvidPolicyStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "SvidPolicy says which pods may have which SPIFFE identities, for how long and with what.",
    printcolumn = r#"{"name":"Priority","type":"integer","jsonPath":".spec.priority"}"#,
    printcolumn = r#"{"name":"ID","type":"string","jsonPath":".spec.id"}"#,
    printcolumn = r#"{"name":"Max-TTL","type":"string","jsonPath":".spec.x509.maxTTL"}"#,
    printcolumn = r#"{"name":"Pods","type":"integer","jsonPath":".status.matched.count"}"#,
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].reason"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase", default)]
pub struct SvidPolicySpec {
    /// Of several policies that match a pod, the one with the highest priority applies.
    #[schemars(range(min = -1_000_000, max = 1_000_000))]
    pub priority: i32,
    /// Which pods it is for. Without it, all.
    pub selector: PolicySelector,
    /// The path of the SPIFFE ID. Variables: `{trust-domain}`, `{namespace}`, `{service-account}`,
    /// `{pod-name}`, `{namespace-label:KEY}`.
    #[schemars(
        length(min = 2, max = 1024),
        regex(pattern = r"^(/([a-zA-Z0-9._-]|\{(trust-domain|namespace|service-account|pod-name|namespace-label:[A-Za-z0-9./_-]+)\})+)+$"),
        extend("x-kubernetes-validations" = [
            {"rule": "self != '/svid.dev' && !self.startsWith('/svid.dev/')", "message": "/svid.dev/… is reserved"},
            {"rule": "self.split('/').all(segment, segment != '.' && segment != '..')", "message": "a path has no . or .. segment"}
        ])
    )]
    pub id: String,
    /// What X.509-SVIDs are like.
    pub x509: X509Policy,
    /// DNS names that a pod may ask for by the volume attribute `dns-names`: templates with the
    /// variables of `id`, each of which gives one name. Without it, none.
    #[schemars(
        length(max = 16),
        inner(length(min = 1, max = 253), regex(pattern = r"^([a-z0-9.-]|\{(trust-domain|namespace|service-account|pod-name|namespace-label:[A-Za-z0-9./_-]+)\})+$")),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub dns_names: Vec<String>,
    /// Which JWT-SVIDs a pod may have.
    pub jwt: JwtPolicy,
    /// Other trust domains whose bundles the pod gets.
    #[schemars(
        length(max = 100),
        inner(length(min = 1, max = 255), regex(pattern = r"^[a-z0-9._-]+$")),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub federates_with: Vec<String>,
    /// cert-manager's issuers that a pod may name by the volume attribute `issuer-name`, where
    /// cert-manager signs: `KIND/NAME` or `KIND.GROUP/NAME`. The installation's own is always allowed.
    #[schemars(
        length(max = 32),
        inner(length(min = 3, max = 760), regex(pattern = r"^[A-Za-z0-9]+(\.[a-z0-9.-]+)?/[a-z0-9.-]+$")),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub issuers: Vec<String>,
    /// CEL expressions, all of which must be true. They see `pod`, `serviceAccount`,
    /// `namespaceObject`, `node` and `request`, and nothing that a node can write.
    #[schemars(
        length(max = 16),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub rules: Vec<PolicyRule>,
}

/// Which pods a policy is for. Whatever is left out matches every pod; all that is there must match.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PolicySelector {
    /// By the labels of the pod's namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<Labels>,
    /// By the pod's own labels. Whoever makes pods chooses them: don't grant more by them alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pods: Option<Labels>,
    /// By the pod's ServiceAccount: `name` in any namespace, or `namespace/name`.
    #[schemars(
        length(max = 256),
        inner(length(min = 1, max = 317), regex(pattern = r"^([a-z0-9-]+/)?[a-z0-9.-]+$")),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub service_accounts: Vec<String>,
}

/// A label selector, as everywhere in Kubernetes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Labels {
    /// Labels that must be there with this value.
    #[schemars(extend("maxProperties" = 64))]
    pub match_labels: BTreeMap<String, String>,
    /// Requirements, all of which must be met.
    #[schemars(length(max = 64))]
    pub match_expressions: Vec<LabelRequirement>,
}

/// A requirement on one label.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "(has(self.values) && size(self.values) > 0) == (self.operator in ['In', 'NotIn'])", "message": "In and NotIn need values, Exists and DoesNotExist have none"}
]))]
pub struct LabelRequirement {
    /// The label's key.
    #[schemars(length(min = 1, max = 317))]
    pub key: String,
    /// `In`, `NotIn`, `Exists` or `DoesNotExist`.
    #[schemars(extend("enum" = ["In", "NotIn", "Exists", "DoesNotExist"]))]
    pub operator: String,
    /// For `In` and `NotIn`.
    #[serde(default)]
    #[schemars(length(max = 256), inner(length(max = 63)))]
    pub values: Vec<String>,
}

/// What X.509-SVIDs are like.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct X509Policy {
    /// The lifetime for a pod that asks for none; lowered to `maxTTL`.
    #[serde(rename = "defaultTTL")]
    #[schemars(with = "Ttl")]
    pub default_ttl: String,
    /// The longest lifetime that a pod may ask for; one that asks for more is denied.
    #[serde(rename = "maxTTL")]
    #[schemars(with = "Ttl")]
    pub max_ttl: String,
    /// The key algorithms allowed: `ecdsa-p256`, `ecdsa-p384`, `ed25519`, `rsa-2048`, `rsa-4096`. A
    /// pod that asks for none gets the first.
    #[schemars(
        with = "Vec<KeyAlgorithmName>",
        length(min = 1, max = 5),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub key_algorithms: Vec<String>,
}

/// Which JWT-SVIDs a pod may have.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct JwtPolicy {
    /// The audiences allowed, to the letter; `*` alone means any. Without it, no JWT-SVIDs.
    #[schemars(
        length(max = 64),
        inner(length(min = 1, max = 1024)),
        extend("x-kubernetes-list-type" = "set", "x-kubernetes-validations" = [
            {"rule": "!('*' in self) || size(self) == 1", "message": "* means any audience and stands alone"}
        ])
    )]
    pub audiences: Vec<String>,
    /// The longest lifetime. Whatever it says, none lives longer than an hour.
    #[serde(rename = "maxTTL")]
    #[schemars(with = "Ttl")]
    pub max_ttl: String,
    /// Other claims, by name: texts with the variables of `id`. What says what a token is or proves
    /// (`iss`, `sub`, `aud`, `exp` and the like) is not among them.
    #[schemars(with = "BTreeMap<String, ClaimText>", extend("maxProperties" = 16))]
    pub claims: BTreeMap<String, String>,
}

/// A CEL expression that must be true.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyRule {
    /// What denials call it.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"))]
    pub name: String,
    /// The expression.
    #[schemars(length(min = 1, max = 2048))]
    pub expression: String,
    /// What a person should know or do if it is false.
    #[serde(default)]
    #[schemars(length(max = 512))]
    pub message: String,
}

/// What the controller has found out about a policy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SvidPolicyStatus {
    /// The generation that this is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The pods that it applies to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub matched: Option<MatchedPods>,
    /// `Ready`: whether it can be used, and if not, what is wrong with it.
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<PolicyCondition>,
}

/// The pods that use the driver and that a policy applies to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct MatchedPods {
    /// How many there are.
    pub count: i64,
    /// Ten of them at most, as `namespace/name`.
    #[schemars(length(max = 10))]
    pub examples: Vec<String>,
}

/// A condition, as everywhere in Kubernetes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyCondition {
    /// `Ready`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    #[schemars(extend("enum" = ["True", "False", "Unknown"]))]
    pub status: String,
    /// In one word.
    pub reason: String,
    /// For a person.
    pub message: String,
    /// Since when the status is what it is.
    #[schemars(extend("format" = "date-time"))]
    pub last_transition_time: String,
    /// The generation that this is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}

/// The schema of a lifetime.
#[derive(JsonSchema)]
#[schemars(transparent, extend("x-kubernetes-validations" = [
    {"rule": "duration(self) >= duration('10s') && duration(self) <= duration('24h')", "message": "a lifetime is 10s to 24h"}
]))]
#[expect(dead_code, reason = "only its schema is used")]
struct Ttl(
    #[schemars(length(min = 2, max = 32), regex(pattern = r"^([0-9]+(\.[0-9]+)?(h|m|s))+$"))]
    String,
);

/// The schema of a claim's template.
#[derive(JsonSchema)]
#[schemars(transparent)]
#[expect(dead_code, reason = "only its schema is used")]
struct ClaimText(#[schemars(length(min = 1, max = 256))] String);

/// A key algorithm.
#[derive(JsonSchema)]
#[schemars(transparent)]
#[expect(dead_code, reason = "only its schema is used")]
struct KeyAlgorithmName(
    #[schemars(extend("enum" = ["ecdsa-p256", "ecdsa-p384", "ed25519", "rsa-2048", "rsa-4096"]))]
    String,
);

/// One policy and which version of it this is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PolicyFacts {
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// Grows with each change of `spec`.
    pub generation: i64,
    /// What it says.
    pub spec: SvidPolicySpec,
    /// What is said of it now.
    pub status: SvidPolicyStatus,
}

/// The CustomResourceDefinition. The chart holds a copy.
pub fn svid_policy_definition() -> CustomResourceDefinition {
    SvidPolicy::crd()
}

// === impl SvidPolicySpec ===

impl Default for SvidPolicySpec {
    fn default() -> Self {
        Self {
            priority: 0,
            selector: PolicySelector::default(),
            id: crate::id::IdTemplate::default().to_string(),
            x509: X509Policy::default(),
            dns_names: Vec::new(),
            jwt: JwtPolicy::default(),
            federates_with: Vec::new(),
            issuers: Vec::new(),
            rules: Vec::new(),
        }
    }
}

// === impl X509Policy ===

impl Default for X509Policy {
    fn default() -> Self {
        Self {
            default_ttl: "1h".to_owned(),
            max_ttl: "24h".to_owned(),
            key_algorithms: ["ecdsa-p256", "ecdsa-p384", "ed25519", "rsa-2048", "rsa-4096"]
                .map(str::to_owned)
                .into(),
        }
    }
}

// === impl JwtPolicy ===

impl Default for JwtPolicy {
    fn default() -> Self {
        Self { audiences: Vec::new(), max_ttl: "5m".to_owned(), claims: BTreeMap::new() }
    }
}

// === impl PolicyFacts ===

impl From<SvidPolicy> for PolicyFacts {
    fn from(object: SvidPolicy) -> Self {
        Self {
            name: object.metadata.name.unwrap_or_default(),
            uid: object.metadata.uid.unwrap_or_default(),
            generation: object.metadata.generation.unwrap_or_default(),
            spec: object.spec,
            status: object.status.unwrap_or_default(),
        }
    }
}
