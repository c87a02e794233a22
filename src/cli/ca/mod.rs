//! `svid-csi ca`: what a person sees of the controller's CA and does about it. It never reads a
//! key: the bundle's ConfigMap has the status, and takes the request that the leader acts on.

mod ask;
mod show;

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};

use super::output::{OutputFormat, print};
use crate::{
    clock::Clock,
    controller::ca::{Action, CaStatus},
    k8s::{BundleMap, BundlePublisher, Cluster, names::bundle_map},
};

const EXAMPLES: &str = "\
Examples:
  Every CA, and what happens next:
    svid-csi ca show -n svid-csi

  A new CA, now; the old one is trusted until its last SVID has ended:
    svid-csi ca rotate -n svid-csi

  A new key for JWT-SVIDs, now:
    svid-csi ca rotate --jwt -n svid-csi

  A key is believed stolen. Another CA signs once it is published for long enough, everything under
  the stolen one is renewed, and then its root is taken out of every bundle:
    svid-csi ca taint -n svid-csi 3c9e…
    svid-csi ca retire -n svid-csi 3c9e… --force

  The CA Secret is gone and there is no backup:
    svid-csi ca replace-lost -n svid-csi

A key may be given by its first eight digits or more. Stopping a command that waits stops nothing.

Exit status: 0 if it is done (with --no-wait: accepted), 1 if it was refused or failed, 64 for an
argument that can't be used. show: 1 if there is a problem.";

/// Look at the controller's CA, rotate it, or act when a key is stolen or lost.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, arg_required_else_help = true)]
pub(super) struct CaArgs {
    #[command(subcommand)]
    command: CaCommand,

    /// The controller's namespace [default: the kubeconfig's]
    #[arg(short, long, global = true, env = "SVID_CSI_NAMESPACE")]
    namespace: Option<String>,

    /// Context of the kubeconfig [default: the current one]
    #[arg(long, global = true)]
    context: Option<String>,

    /// The bundle's ConfigMap
    #[arg(
        long,
        global = true,
        env = "SVID_CSI_BUNDLE_CONFIG_MAP",
        default_value = bundle_map::DEFAULT_NAME,
        value_name = "NAME"
    )]
    config_map: String,
}

#[derive(Debug, Subcommand)]
enum CaCommand {
    /// Show every CA, what happens next and what is wrong
    Show {
        /// How to print it
        #[arg(short, long, value_enum, default_value = "text", value_name = "FORMAT")]
        output: OutputFormat,
    },
    /// Make the next CA or JWT key now; it signs once it is published for the propagation time
    Rotate {
        /// The key of JWT-SVIDs, not the CA
        #[arg(long)]
        jwt: bool,
        #[command(flatten)]
        wait: Wait,
    },
    /// Say that a CA's or a JWT key is believed stolen: another signs as soon as can be, nodes renew
    Taint {
        /// Identifier of the key, as show has it
        #[arg(allow_hyphen_values = true)]
        key: String,
        #[command(flatten)]
        wait: Wait,
    },
    /// Take a CA or JWT key that signs no longer out of the bundle
    Retire {
        /// Identifier of the key, as show has it
        #[arg(allow_hyphen_values = true)]
        key: String,
        /// At once: SVIDs and tokens under it that are not renewed yet fail
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        wait: Wait,
    },
    /// Make a new CA because the CA Secret is gone for good
    ReplaceLost(Wait),
}

/// Whether to see it through.
#[derive(Clone, Copy, Debug, Args)]
struct Wait {
    /// Come back as soon as the request is accepted
    #[arg(long, conflicts_with = "wait")]
    no_wait: bool,
    /// Show the progress until it is done; the default
    #[arg(long)]
    wait: bool,
}

/// The ConfigMap that everything goes through.
struct Desk {
    map: BundlePublisher,
}

/// Shows, or asks and waits.
pub(super) fn run(args: CaArgs, clock: &dyn Clock) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(args, clock))
}

async fn serve(args: CaArgs, clock: &dyn Clock) -> Result<ExitCode> {
    let cluster = Cluster::from_kubeconfig(args.context.as_deref()).await?;
    let namespace = args.namespace.as_deref().unwrap_or(cluster.namespace());
    let desk = Desk { map: BundlePublisher::new(&cluster, namespace, &args.config_map) };
    let (action, key, force, wait) = match args.command {
        CaCommand::Show { output } => return desk.show(output, clock).await,
        CaCommand::Rotate { jwt: false, wait } => (Action::Rotate, None, false, wait),
        CaCommand::Rotate { jwt: true, wait } => (Action::RotateJwt, None, false, wait),
        CaCommand::Taint { key, wait } => (Action::Taint, Some(key), false, wait),
        CaCommand::Retire { key, force, wait } => (Action::Retire, Some(key), force, wait),
        CaCommand::ReplaceLost(wait) => (Action::ReplaceLost, None, false, wait),
    };
    desk.ask(action, key, force, !wait.no_wait, clock).await
}

// === impl Desk ===

impl Desk {
    async fn show(&self, output: OutputFormat, clock: &dyn Clock) -> Result<ExitCode> {
        let status = self.status(&self.read().await?)?;
        match output {
            OutputFormat::Json => print(&status.to_json())?,
            OutputFormat::Text => print(&show::render(&status, clock.now()))?,
        }
        Ok(ExitCode::from(u8::from(status.problem.is_some())))
    }

    async fn read(&self) -> Result<BundleMap> {
        let map = self.map.read().await?;
        map.with_context(|| {
            format!(
                "there is no ConfigMap {}: is this the controller's namespace (-n), and has a \
                 controller ever led?",
                self.map.name()
            )
        })
    }

    fn status(&self, map: &BundleMap) -> Result<CaStatus> {
        let name = self.map.name();
        let Some(status) = map.status() else {
            bail!("the ConfigMap {name} has no status.json: no controller has written it yet");
        };
        CaStatus::from_json(status)
            .with_context(|| format!("status.json of the ConfigMap {name} can't be read"))
    }
}
