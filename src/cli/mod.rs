//! The command line: arguments become configuration, configuration becomes wiring.

mod ca;
mod channel;
mod controller;
mod demo;
mod fetch;
mod inspect;
mod node;
mod output;
mod policy;
mod signals;
mod telemetry;
mod version;

use std::process::ExitCode;

use clap::{Parser, Subcommand, error::ErrorKind};

use crate::clock::SystemClock;

/// A setting that can't be used (`EX_USAGE` of sysexits.h).
const EXIT_USAGE: u8 = 64;

/// SPIFFE identities for Kubernetes pods, mounted by a CSI node driver.
#[derive(Debug, Parser)]
#[command(name = "svid-csi", version, propagate_version = true, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the node plugin: serve CSI to kubelet and keep every volume fresh.
    Node(Box<node::NodeArgs>),
    /// Run the controller: decide on requests, sign them, keep the CA and publish its bundle.
    Controller(Box<controller::ControllerArgs>),
    /// Look at the controller's CA, rotate it, or act when a key is stolen or lost.
    Ca(ca::CaArgs),
    /// Ask a volume's socket, by the SPIFFE Workload API, for SVIDs and bundles.
    Fetch(fetch::FetchArgs),
    /// Show a volume, certificate, chain, trust bundle or key, and whether it is good.
    Inspect(inspect::InspectArgs),
    Demo(demo::DemoArgs),
    /// Try SvidPolicies out: which applies to a pod, what it gets, which rule refuses it.
    Policy(policy::PolicyArgs),
    /// Print the version.
    Version(version::VersionArgs),
}

/// A setting that can't be used; ends the process with status 64.
#[derive(Debug, thiserror::Error)]
#[error("{setting}: {reason}")]
struct UsageError {
    setting: &'static str,
    reason: String,
}

// === impl UsageError ===

impl UsageError {
    fn new(setting: &'static str, reason: impl std::fmt::Display) -> Self {
        Self { setting, reason: reason.to_string() }
    }
}

/// Runs the program.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
                _ => ExitCode::from(EXIT_USAGE),
            };
        }
    };
    let result = match cli.command {
        Command::Node(args) => node::run(*args),
        Command::Controller(args) => controller::run(*args),
        Command::Ca(args) => ca::run(args, &SystemClock),
        Command::Fetch(args) => fetch::run(args, &SystemClock),
        Command::Inspect(args) => inspect::run(args, &SystemClock),
        Command::Demo(args) => demo::run(&args),
        Command::Policy(args) => policy::run(args, &SystemClock),
        Command::Version(args) => version::run(&args),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            telemetry::complain(&error);
            let usage = error.downcast_ref::<UsageError>().is_some();
            ExitCode::from(if usage { EXIT_USAGE } else { 1 })
        }
    }
}
