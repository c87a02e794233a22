//! `svid-csi policy`: tries policies out before pods do.

mod files;
mod report;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, ServiceAccount};

use self::{files::Document, report::Report};
use super::{
    UsageError,
    output::{OutputFormat, print},
};
use crate::{
    clock::Clock,
    controller::approver::{ApproverSettings, Case, PolicySet, explain},
    id::TrustDomain,
    k8s::{
        Cluster, Inventory, NamespaceFacts, NodeFacts, ObjectName, PodFacts, PolicyFacts,
        ServiceAccountFacts,
    },
    pki::{DnsName, KeyAlgorithm},
    volume::{AudienceSet, duration},
};

const EXAMPLES: &str = "\
Examples:
  A policy against a pod that isn't there yet, without a cluster:
    svid-csi policy test policy.yaml --pod-file pod.yaml --trust-domain example.org

  With the namespace's labels, and a volume that asks for things:
    svid-csi policy test policies/*.yaml --pod-file pod.yaml --namespace-file namespace.yaml \\
      --ttl 8h --key-algorithm ecdsa-p384 --dns-names web.shop.svc

  Whether it gets a JWT-SVID for an audience, too:
    svid-csi policy test policies/*.yaml --pod-file pod.yaml --audience https://api.example.org

  A running pod against the cluster's policies, or against what they are to become:
    svid-csi policy test --pod shop/web-0
    svid-csi policy test new.yaml --pod shop/web-0

  For a pipeline:
    svid-csi policy test policies/*.yaml --pod-file pod.yaml -o json | jq .decision

Exit status: 0 if the pod gets what it asks for, 1 if it is denied, 64 for an argument or a file that
can't be used.";

/// Try policies out.
#[derive(Debug, Args)]
#[command(arg_required_else_help = true)]
pub(super) struct PolicyArgs {
    #[command(subcommand)]
    command: PolicyCommand,
}

#[derive(Debug, Subcommand)]
enum PolicyCommand {
    /// Say what would be decided for a pod, by which policy, and by which rule
    Test(Box<TestArgs>),
}

/// Arguments of `svid-csi policy test`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
struct TestArgs {
    /// Files with SvidPolicy documents, YAML or JSON; none means the cluster's, with --pod
    #[arg(value_name = "POLICY")]
    policies: Vec<PathBuf>,

    /// A pod of the cluster, with its namespace, ServiceAccount and node
    #[arg(long, value_name = "NAMESPACE/NAME", required_unless_present = "pod_file")]
    pod: Option<String>,

    /// A file with a Pod; no cluster is asked
    #[arg(long, value_name = "FILE", conflicts_with = "pod")]
    pod_file: Option<PathBuf>,

    /// A file with the pod's Namespace [default: one with no label but its name]
    #[arg(long, value_name = "FILE", conflicts_with = "pod")]
    namespace_file: Option<PathBuf>,

    /// A file with the pod's ServiceAccount [default: one without labels]
    #[arg(long, value_name = "FILE", conflicts_with = "pod")]
    service_account_file: Option<PathBuf>,

    /// A file with the pod's Node [default: one without labels or taints]
    #[arg(long, value_name = "FILE", conflicts_with = "pod")]
    node_file: Option<PathBuf>,

    /// SPIFFE trust domain
    #[arg(long, env = "SVID_CSI_TRUST_DOMAIN", default_value = "example.org")]
    trust_domain: String,

    /// Name of the CSI driver
    #[arg(long, env = "SVID_CSI_DRIVER_NAME", default_value = "csi.svid.dev")]
    driver_name: String,

    /// Lifetime that the volume asks for, such as 8h
    #[arg(long, value_name = "DURATION")]
    ttl: Option<String>,

    /// Key algorithm that the volume asks for
    #[arg(long, value_name = "ALGORITHM")]
    key_algorithm: Option<String>,

    /// DNS names that the volume asks for
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    dns_names: Vec<String>,

    /// Audiences of a JWT-SVID that the pod asks for
    #[arg(long, value_name = "AUDIENCE", value_delimiter = ',')]
    audience: Vec<String>,

    /// Context of the kubeconfig [default: the current one]
    #[arg(long, requires = "pod")]
    context: Option<String>,

    /// How to print it
    #[arg(short, long, value_enum, default_value = "text", value_name = "FORMAT")]
    output: OutputFormat,
}

/// The pod and what stands around it.
struct Scene {
    pod: PodFacts,
    service_account: Option<ServiceAccountFacts>,
    namespace: NamespaceFacts,
    node: NodeFacts,
}

/// Prints what would be decided.
pub(super) fn run(args: PolicyArgs, clock: &dyn Clock) -> Result<ExitCode> {
    let PolicyCommand::Test(args) = args.command;
    let trust_domain: TrustDomain =
        args.trust_domain.parse().map_err(|error| UsageError::new("--trust-domain", error))?;
    let ttl = args.ttl.as_deref().map(parse_ttl).transpose()?;
    let key_algorithm: Option<KeyAlgorithm> = (args.key_algorithm.as_deref().map(str::parse))
        .transpose()
        .map_err(|error| UsageError::new("--key-algorithm", error))?;
    let names = args.dns_names.iter().map(|name| name.trim().parse());
    let dns_names: Vec<DnsName> =
        names.collect::<Result<_, _>>().map_err(|error| UsageError::new("--dns-names", error))?;
    let audience = (!args.audience.is_empty())
        .then(|| AudienceSet::new(args.audience.clone()))
        .transpose()
        .map_err(|error| UsageError::new("--audience", error))?;
    let (scene, policies) = match (&args.pod, &args.pod_file) {
        (Some(pod), _) => runtime()?.block_on(from_cluster(&args, pod))?,
        (None, Some(file)) => (from_files(&args, file)?, policies(&args)?),
        (None, None) => return Err(UsageError::new("--pod", "or --pod-file is needed").into()),
    };
    if policies.is_empty() && args.policies.is_empty() && args.pod.is_none() {
        return Err(
            UsageError::new("POLICY", "name a file; without a cluster there is none").into()
        );
    }
    let settings = ApproverSettings::for_trial(trust_domain, args.driver_name.clone());
    let policies = PolicySet::compile(&policies, None);
    let explanation = explain(&Case {
        pod: &scene.pod,
        service_account: scene.service_account.as_ref(),
        namespace: &scene.namespace,
        node: &scene.node,
        policies: &policies,
        settings: &settings,
        ttl,
        key_algorithm,
        dns_names: &dns_names,
        audience: audience.as_ref(),
        now: clock.now(),
    });
    let report = Report::new(&scene.pod, &scene.namespace, &policies, explanation);
    match args.output {
        OutputFormat::Json => print(&format!("{}\n", serde_json::to_string_pretty(&report)?))?,
        OutputFormat::Text => print(&report.to_text())?,
    }
    Ok(ExitCode::from(u8::from(!report.admitted())))
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

fn parse_ttl(text: &str) -> Result<Duration, UsageError> {
    duration::parse(text).map_err(|error| UsageError::new("--ttl", format!("{text:?}: {error}")))
}

fn policies(args: &TestArgs) -> Result<Vec<PolicyFacts>> {
    let mut policies = Vec::new();
    for path in &args.policies {
        policies.extend(files::policies(path)?);
    }
    Ok(policies)
}

fn from_files(args: &TestArgs, pod_file: &Path) -> Result<Scene> {
    let mut pod = PodFacts::from(files::one::<Pod>(pod_file, Document::Pod)?);
    let named = |name: &mut String, default: &str| {
        if name.is_empty() {
            *name = default.to_owned();
        }
    };
    named(&mut pod.namespace, "default");
    named(&mut pod.name, "pod");
    named(&mut pod.uid, "pod");
    let mut node = match &args.node_file {
        Some(file) => NodeFacts::from(files::one::<Node>(file, Document::Node)?),
        None => NodeFacts { name: pod.node_name().to_owned(), ..NodeFacts::default() },
    };
    named(&mut node.name, "node");
    named(&mut node.uid, "node");
    bind(&mut pod, &node);
    let mut namespace = match &args.namespace_file {
        Some(file) => NamespaceFacts::from(files::one::<Namespace>(file, Document::Namespace)?),
        None => NamespaceFacts { name: pod.namespace.clone(), ..NamespaceFacts::default() },
    };
    // The API server sets this one.
    let label = ("kubernetes.io/metadata.name".to_owned(), namespace.name.clone());
    namespace.labels.extend([label]);
    let mut service_account = match &args.service_account_file {
        Some(file) => {
            ServiceAccountFacts::from(files::one::<ServiceAccount>(file, Document::ServiceAccount)?)
        }
        None => ServiceAccountFacts {
            name: pod.service_account().to_owned(),
            ..ServiceAccountFacts::default()
        },
    };
    named(&mut service_account.namespace, &pod.namespace);
    Ok(Scene { pod, service_account: Some(service_account), namespace, node })
}

/// A pod that isn't scheduled yet is taken to be on this node.
fn bind(pod: &mut PodFacts, node: &NodeFacts) {
    pod.spec = pod.spec.on_node(&node.name);
}

async fn from_cluster(args: &TestArgs, pod: &str) -> Result<(Scene, Vec<PolicyFacts>)> {
    let (namespace, name) =
        pod.split_once('/').ok_or_else(|| UsageError::new("--pod", "write namespace/name"))?;
    let cluster = Cluster::from_kubeconfig(args.context.as_deref()).await?;
    let inventory = Inventory::new(cluster);
    let mut pod = inventory
        .read_pod(&ObjectName::new(namespace, name))
        .await?
        .with_context(|| format!("there is no pod {namespace}/{name}"))?;
    let account = ObjectName::new(namespace, pod.service_account());
    let service_account = inventory.read_service_account(&account).await?;
    let namespace = inventory
        .read_namespace(&ObjectName::cluster_wide(namespace))
        .await?
        .with_context(|| format!("there is no namespace {namespace}"))?;
    let node = match pod.node_name() {
        "" => None,
        name => inventory.read_node(&ObjectName::cluster_wide(name)).await?,
    };
    let unscheduled =
        || NodeFacts { name: "node".to_owned(), uid: "node".to_owned(), ..NodeFacts::default() };
    let node = node.unwrap_or_else(unscheduled);
    bind(&mut pod, &node);
    let policies = match args.policies.is_empty() {
        true => inventory.read_policies().await?,
        false => policies(args)?,
    };
    Ok((Scene { pod, service_account, namespace, node }, policies))
}
