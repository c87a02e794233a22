//! `svid-csi version`.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use serde_json::json;

use super::output::{OutputFormat, print};

/// Arguments of `svid-csi version`.
#[derive(Debug, Args)]
pub(super) struct VersionArgs {
    /// How to print it
    #[arg(short, long, value_enum, default_value = "text", value_name = "FORMAT")]
    output: OutputFormat,
}

/// Prints the program's version.
pub(super) fn run(args: &VersionArgs) -> Result<ExitCode> {
    let version = env!("CARGO_PKG_VERSION");
    match args.output {
        OutputFormat::Text => print(&format!("svid-csi {version}\n"))?,
        OutputFormat::Json => print(&format!("{}\n", json!({ "version": version })))?,
    }
    Ok(ExitCode::SUCCESS)
}
