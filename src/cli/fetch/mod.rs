//! `svid-csi fetch`: a client of the SPIFFE Workload API.

mod bundle;
mod claims;
mod endpoint;
mod files;
mod health;
mod jwt;
mod trouble;
mod validate;
mod watch;
mod x509;

use std::{future::Future, process::ExitCode, time::Duration};

use anyhow::Result;
use clap::{Args, Subcommand};
use tokio::time::timeout;

use self::endpoint::Endpoint;
pub(super) use self::trouble::Trouble;
use super::{UsageError, output::print};
use crate::{clock::Clock, volume::duration};

const EXAMPLES: &str = "\
Examples:
  In a pod whose volume is mounted at /svid:
    export SPIFFE_ENDPOINT_SOCKET=unix:///svid/spiffe.sock
    svid-csi fetch x509
    svid-csi fetch jwt --audience https://bank.example.org

  From the node, for a pod's volume:
    svid-csi fetch x509 --socket /var/lib/kubelet/pods/…/mount/spiffe.sock

  Each command has more: svid-csi fetch jwt --help

Exit status: 0 if it is done and good; 1 if it failed, or what came is not good; 64 for an argument
that can't be used.";

const NO_SOCKET: &str = "give it, or set SPIFFE_ENDPOINT_SOCKET; in a pod that mounts its volume at \
                         /svid: SPIFFE_ENDPOINT_SOCKET=unix:///svid/spiffe.sock";

/// Arguments of `svid-csi fetch`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, arg_required_else_help = true)]
pub(super) struct FetchArgs {
    #[command(subcommand)]
    command: FetchCommand,

    /// The Workload API's socket: a path, unix:///path or tcp://IP:port
    #[arg(
        long,
        global = true,
        env = "SPIFFE_ENDPOINT_SOCKET",
        value_name = "SOCKET",
        alias = "socketPath"
    )]
    socket: Option<String>,

    /// How long all of it may take, such as 30s; watch takes as long as it is let
    #[arg(long, global = true, default_value = "5s", value_name = "DURATION")]
    timeout: String,

    /// Print nothing but errors: the exit status tells
    #[arg(long, global = true)]
    silent: bool,
}

#[derive(Debug, Subcommand)]
enum FetchCommand {
    /// Fetch the X.509-SVID, verify it against its bundle and its key, show it or write it to files
    X509(x509::X509Args),
    /// Fetch a JWT-SVID
    Jwt(jwt::JwtArgs),
    /// Fetch the trust bundles, X.509 and JWT, the own one and federated ones
    Bundle(bundle::BundleArgs),
    /// Ask whether a JWT-SVID is valid
    Validate(validate::ValidateArgs),
    /// Print the X.509-SVID and each that takes its place, until interrupted
    Watch(watch::WatchArgs),
    /// Ask whether the socket's server is healthy, by the gRPC health protocol; for exec probes
    Healthcheck(health::HealthArgs),
}

/// Where to ask, and how long and loudly.
struct Session<'a> {
    endpoint: Endpoint,
    patience: Duration,
    silent: bool,
    clock: &'a dyn Clock,
}

/// Fetches, and prints what came.
pub(super) fn run(args: FetchArgs, clock: &dyn Clock) -> Result<ExitCode> {
    // An empty variable of the environment is none.
    let socket = args.socket.filter(|socket| !socket.is_empty());
    let socket = socket.ok_or_else(|| UsageError::new("--socket", NO_SOCKET))?;
    let endpoint = socket.parse().map_err(|reason| UsageError::new("--socket", reason))?;
    let patience = duration::parse(&args.timeout);
    let patience = patience.map_err(|reason| UsageError::new("--timeout", reason))?;
    let session = Session { endpoint, patience, silent: args.silent, clock };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(async {
        match args.command {
            FetchCommand::X509(args) => x509::run(&session, &args).await,
            FetchCommand::Jwt(args) => jwt::run(&session, args).await,
            FetchCommand::Bundle(args) => bundle::run(&session, &args).await,
            FetchCommand::Validate(args) => validate::run(&session, args).await,
            FetchCommand::Watch(args) => watch::run(&session, &args).await,
            FetchCommand::Healthcheck(args) => health::run(&session, &args).await,
        }
    });
    // A connection that nobody accepts would be waited for.
    runtime.shutdown_background();
    result
}

// === impl Session ===

impl Session<'_> {
    /// Bounds a call, the connection included.
    async fn within<T>(
        &self,
        call: impl Future<Output = Result<T, Trouble>>,
    ) -> Result<T, Trouble> {
        match timeout(self.patience, call).await {
            Ok(result) => result.map_err(|trouble| trouble.at(&self.endpoint)),
            Err(_elapsed) => Err(Trouble::TimedOut(self.patience).at(&self.endpoint)),
        }
    }

    fn print(&self, text: &str) -> Result<()> {
        if self.silent {
            return Ok(());
        }
        print(text)
    }
}
