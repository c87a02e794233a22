//! `svid-csi node`: from arguments to a running node plugin.

mod agent;
mod cert_manager;
mod controller;
mod jwt;
mod serve;
mod signing;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum, builder::FalseyValueParser};

use self::{
    agent::AgentArgs,
    cert_manager::{CertManagerArgs, CertManagerSettings},
    controller::ControllerArgs,
    jwt::JwtArgs,
};
use super::{
    UsageError,
    telemetry::{self, LogFormat, LogLevel},
};
use crate::{
    csi::ServerConfig,
    id::TrustDomain,
    k8s::names::bundle_map,
    node::WorkloadLimits,
    signer::{controller::ControllerConfig, local::LocalConfig},
    sys::process::{forbid_core_dumps, raise_descriptor_limit},
    volume::{Limits, duration},
};

const EXAMPLES: &str = "\
Examples:
  In a DaemonSet, signed by the svid-csi controller; no CA key is on the node:
    SVID_CSI_NODE_NAME=worker-1 SVID_CSI_TRUST_DOMAIN=example.org \\
      svid-csi node --signer csr --http-listen 0.0.0.0:9809

  In a DaemonSet, beside a SPIRE agent whose authorized_delegates name this driver:
    SVID_CSI_NODE_NAME=worker-1 SVID_CSI_TRUST_DOMAIN=example.org \\
      svid-csi node --signer agent --agent-socket /run/spire/admin/admin.sock

  The same for thousands of pods, without an API object for each certificate:
    SVID_CSI_NODE_NAME=worker-1 SVID_CSI_TRUST_DOMAIN=example.org \\
      svid-csi node --signer controller --http-listen 0.0.0.0:9809 \\
      --controller-address svid-csi-issuer.svid-csi.svc:9443

  One machine with a CA of its own:
    svid-csi node --node-name $(hostname) --trust-domain example.org \\
      --ca-dir /var/lib/svid-csi/ca --ca-create

  In a DaemonSet, with a CA from a mounted Secret and settings from the environment:
    SVID_CSI_NODE_NAME=worker-1 SVID_CSI_TRUST_DOMAIN=example.org \\
      svid-csi node --ca-dir /etc/svid-csi/ca --http-listen 0.0.0.0:9809

Exit status: 0 after SIGTERM or SIGINT, 64 for a setting that can't be used, 1 for anything else.";

/// Arguments of `svid-csi node`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, args_override_self = true)]
pub(super) struct NodeArgs {
    /// Name of the CSI driver; also the source of every mount
    #[arg(long, env = "SVID_CSI_DRIVER_NAME", default_value = "csi.svid.dev")]
    driver_name: String,

    /// Name of this Kubernetes node
    #[arg(long, env = "SVID_CSI_NODE_NAME")]
    node_name: String,

    /// SPIFFE trust domain of every identity, such as example.org
    #[arg(long, env = "SVID_CSI_TRUST_DOMAIN")]
    trust_domain: String,

    /// kubelet's root directory
    #[arg(long, env = "SVID_CSI_KUBELET_DIR", default_value = "/var/lib/kubelet")]
    kubelet_dir: PathBuf,

    /// Where to serve CSI [default: <kubelet-dir>/plugins/<driver-name>/csi.sock]
    #[arg(long, env = "SVID_CSI_CSI_SOCKET")]
    csi_socket: Option<PathBuf>,

    /// kubelet's plugin registry [default: <kubelet-dir>/plugins_registry]
    #[arg(long, env = "SVID_CSI_REGISTRATION_DIR")]
    registration_dir: Option<PathBuf>,

    /// Who signs: a CA in a directory, the svid-csi controller by CertificateSigningRequests, which
    /// needs a pod in a cluster of Kubernetes 1.30 or newer, or a SPIRE agent on this node
    #[arg(long, env = "SVID_CSI_SIGNER", value_enum, default_value = "local")]
    signer: SignerKind,

    /// ConfigMap in the driver's own namespace that the controller publishes its bundle in; with
    /// --signer local its roots are trusted besides [default: svid-csi-bundle with --signer
    /// csr or controller]
    #[arg(long, env = "SVID_CSI_BUNDLE_CONFIG_MAP", value_name = "NAME")]
    bundle_config_map: Option<String>,

    /// With --signer local: directory of the CA: tls.crt, tls.key and, for an intermediate, ca.crt;
    /// without a usable one nothing is signed until there is; and jwt.key, which signs JWT-SVIDs
    #[arg(long, env = "SVID_CSI_CA_DIR", default_value = "/var/lib/svid-csi/ca")]
    ca_dir: PathBuf,

    /// With --signer local: make a CA and a JWT key in --ca-dir if there is none
    #[arg(long, env = "SVID_CSI_CA_CREATE", value_parser = FalseyValueParser::new())]
    ca_create: bool,

    /// With --signer local: how long a new CA or JWT key is in every bundle before it signs
    #[arg(long, env = "SVID_CSI_CA_PROPAGATION", default_value = "5m", value_name = "DURATION")]
    ca_propagation: String,

    #[command(flatten)]
    controller: ControllerArgs,

    #[command(flatten)]
    jwt: JwtArgs,

    #[command(flatten)]
    agent: AgentArgs,

    #[command(flatten)]
    cert_manager: CertManagerArgs,

    /// Lifetime of an SVID whose volume names none; --max-ttl if that is less
    #[arg(long, env = "SVID_CSI_DEFAULT_TTL", default_value = "1h", value_name = "DURATION")]
    default_ttl: String,

    /// The longest lifetime that a volume may ask for, 24h at most
    #[arg(long, env = "SVID_CSI_MAX_TTL", default_value = "24h", value_name = "DURATION")]
    max_ttl: String,

    /// Connections that one volume's pod may have open to its socket
    #[arg(long, env = "SVID_CSI_WORKLOAD_CONNECTIONS", default_value_t = 64, value_name = "N")]
    workload_connections: u32,

    /// Calls that it may have open, streams among them
    #[arg(long, env = "SVID_CSI_WORKLOAD_STREAMS", default_value_t = 512, value_name = "N")]
    workload_streams: u32,

    /// Calls and messages that it may send in a second; twice as many at once
    #[arg(long, env = "SVID_CSI_WORKLOAD_CALLS", default_value_t = 2000, value_name = "N")]
    workload_calls: u32,

    /// JWT-SVIDs a second that it may have signed; five times as many at once
    #[arg(long, env = "SVID_CSI_WORKLOAD_SIGNATURES", default_value_t = 100, value_name = "N")]
    workload_signatures: u32,

    /// Use KUBECONFIG or ~/.kube/config instead of the pod's ServiceAccount; with --signer csr its
    /// token must be bound to a pod on this node
    #[arg(long, env = "SVID_CSI_KUBECONFIG", value_parser = FalseyValueParser::new())]
    kubeconfig: bool,

    /// Address of /livez, /readyz and /metrics
    #[arg(long, env = "SVID_CSI_HTTP_LISTEN", default_value = "127.0.0.1:9809")]
    http_listen: String,

    /// How log lines look
    #[arg(long, env = "SVID_CSI_LOG_FORMAT", value_enum, default_value = "text")]
    log_format: LogFormat,

    /// How much is logged
    #[arg(long, env = "SVID_CSI_LOG_LEVEL", value_enum, default_value = "info")]
    log_level: LogLevel,
}

/// Which signer to use.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum SignerKind {
    /// A CA in a directory: every node that has it can make every identity.
    Local,
    /// The svid-csi controller, by CertificateSigningRequests.
    Csr,
    /// The svid-csi controller, by gRPC: no API object for each certificate.
    Controller,
    /// One of cert-manager's issuers, by CertificateRequests that the svid-csi controller approves.
    CertManager,
    /// SPIRE: its agent on this node hands out certificates and keys.
    Agent,
}

/// The signer with its settings.
struct SignerSettings {
    kind: SignerKind,
    local: LocalConfig,
    /// Whom to ask by gRPC.
    controller: Option<ControllerConfig>,
    /// The SPIRE agent's admin socket.
    agent_socket: Option<PathBuf>,
    /// How cert-manager is asked, where it signs.
    cert_manager: Option<CertManagerSettings>,
    /// The ConfigMap with the controller's bundle.
    bundle_map: Option<String>,
    /// Whether the API server is reached as a person does.
    kubeconfig: bool,
}

/// Arguments after every check that needs no file.
struct Settings {
    server: ServerConfig,
    kubelet_dir: PathBuf,
    limits: Limits,
    workload: WorkloadLimits,
    trust_domain: TrustDomain,
    signer: SignerSettings,
    http_listen: SocketAddr,
}

// === impl NodeArgs ===

impl NodeArgs {
    fn settings(self) -> Result<Settings, UsageError> {
        if !is_driver_name(&self.driver_name) {
            return Err(UsageError::new(
                "--driver-name",
                "must have 1 to 63 letters, digits, '-', '.' or '_', and begin and end with a \
                 letter or digit",
            ));
        }
        if self.node_name.is_empty() || self.node_name.len() > 253 {
            return Err(UsageError::new("--node-name", "must have 1 to 253 characters"));
        }
        let trust_domain: TrustDomain =
            self.trust_domain.parse().map_err(|error| UsageError::new("--trust-domain", error))?;
        let parse = |setting, text: &str| {
            duration::parse(text).map_err(|error| UsageError::new(setting, error))
        };
        let default_ttl = parse("--default-ttl", &self.default_ttl)?;
        let max_ttl = parse("--max-ttl", &self.max_ttl)?;
        let Limits { min_ttl: shortest, max_ttl: longest, .. } = Limits::default();
        if max_ttl < shortest || max_ttl > longest {
            return Err(UsageError::new("--max-ttl", "must be between 10s and 24h"));
        }
        if default_ttl < shortest || default_ttl > longest {
            return Err(UsageError::new("--default-ttl", "must be between 10s and 24h"));
        }
        let propagation = parse("--ca-propagation", &self.ca_propagation)?;
        let http_listen = self
            .http_listen
            .parse()
            .map_err(|error| UsageError::new("--http-listen", format!("{error}; give IP:PORT")))?;
        for (setting, path) in
            [("--kubelet-dir", Some(&self.kubelet_dir)), ("--csi-socket", self.csi_socket.as_ref())]
        {
            if path.is_some_and(|path| !path.is_absolute()) {
                return Err(UsageError::new(setting, "must be an absolute path"));
            }
        }
        let workload = WorkloadLimits {
            connections: self.workload_connections,
            streams: self.workload_streams,
            calls: self.workload_calls,
            signatures: self.workload_signatures,
        };
        for (setting, value) in [
            ("--workload-connections", workload.connections),
            ("--workload-streams", workload.streams),
            ("--workload-calls", workload.calls),
            ("--workload-signatures", workload.signatures),
        ] {
            if value == 0 {
                return Err(UsageError::new(setting, "must be at least 1"));
            }
        }
        let plugin = plugin_dir(&self.kubelet_dir, &self.driver_name);
        let has_ca = match self.signer {
            SignerKind::Local => None,
            SignerKind::Csr | SignerKind::Controller => {
                Some("is for --signer local; in a cluster the controller has the CA")
            }
            SignerKind::CertManager => Some("is for --signer local; cert-manager has its own CAs"),
            SignerKind::Agent => Some("is for --signer local; with agent SPIRE has the CA"),
        };
        if let (Some(reason), true) = (has_ca, self.ca_create) {
            return Err(UsageError::new("--ca-create", reason));
        }
        let agent_socket = self.agent.settings(self.signer)?;
        let cert_manager = self.cert_manager.settings(self.signer)?;
        let token_audience = self.controller.token_audience.clone();
        let controller = self.controller.settings(self.signer, &trust_domain)?;
        let jwt = self.jwt.settings(self.signer)?;
        let bundle_map = match (self.bundle_config_map, self.signer) {
            (Some(name), SignerKind::Agent) if !name.is_empty() => {
                let reason = "is of no use with --signer agent, which has its bundles from SPIRE";
                return Err(UsageError::new("--bundle-config-map", reason));
            }
            // An empty variable of the environment is none.
            (Some(name), _) if !name.is_empty() => Some(name),
            (_, SignerKind::Csr | SignerKind::Controller) => {
                Some(bundle_map::DEFAULT_NAME.to_owned())
            }
            // The controller's CA signs nothing for pods then.
            (_, SignerKind::Local | SignerKind::CertManager | SignerKind::Agent) => None,
        };
        let signer = SignerSettings {
            kind: self.signer,
            local: LocalConfig {
                directory: self.ca_dir,
                create: self.ca_create,
                trust_domain: trust_domain.clone(),
                propagation,
                jwt,
            },
            controller,
            agent_socket,
            cert_manager,
            bundle_map,
            kubeconfig: self.kubeconfig,
        };
        Ok(Settings {
            server: ServerConfig {
                csi_socket: self.csi_socket.unwrap_or_else(|| plugin.join("csi.sock")),
                registration_dir: self
                    .registration_dir
                    .unwrap_or_else(|| self.kubelet_dir.join("plugins_registry")),
                driver_name: self.driver_name,
                node_name: self.node_name,
                token_audience,
            },
            kubelet_dir: self.kubelet_dir,
            limits: Limits { default_ttl: default_ttl.min(max_ttl), min_ttl: shortest, max_ttl },
            workload,
            trust_domain,
            signer,
            http_listen,
        })
    }
}

/// CSI: at most 63 characters, alphanumeric at both ends.
fn is_driver_name(name: &str) -> bool {
    let middle = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    let ends = [name.bytes().next(), name.bytes().last()];
    name.len() <= 63
        && name.bytes().all(middle)
        && ends.iter().all(|byte| byte.is_some_and(|byte| byte.is_ascii_alphanumeric()))
}

/// Runs the node plugin until a signal ends it.
pub(super) fn run(args: NodeArgs) -> Result<ExitCode> {
    let (format, level) = (args.log_format, args.log_level);
    let settings = args.settings()?;
    telemetry::start(format, level);
    forbid_core_dumps().context("forbid core dumps")?;
    if let Err(error) = raise_descriptor_limit() {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ended = runtime.block_on(serve::serve(settings));
    // A start that was cut short may still be at work: nobody waits for it.
    runtime.shutdown_background();
    ended?;
    Ok(ExitCode::SUCCESS)
}

fn plugin_dir(kubelet_dir: &Path, driver_name: &str) -> PathBuf {
    kubelet_dir.join("plugins").join(driver_name)
}
