//! `svid-csi fetch healthcheck`.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use serde_json::json;
use tonic::Request;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use super::Session;
use crate::cli::output::OutputFormat;

const EXAMPLES: &str = "\
Examples:
  By hand:
    svid-csi fetch healthcheck

  As a probe of a container that has the program:
    startupProbe: { exec: { command: [svid-csi, fetch, healthcheck, --silent] } }

Exit status: 0 if it serves, 1 if it does not or can't be reached.";

/// Arguments of `svid-csi fetch healthcheck`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct HealthArgs {
    /// How to print it
    #[arg(short, long, value_enum, default_value = "text", value_name = "FORMAT")]
    output: OutputFormat,
}

pub(super) async fn run(session: &Session<'_>, args: &HealthArgs) -> Result<ExitCode> {
    let answer = session
        .within(async {
            let mut client = HealthClient::new(session.endpoint.channel(session.patience).await?);
            Ok(client.check(Request::new(HealthCheckRequest::default())).await?.into_inner())
        })
        .await?;
    let status = answer.status();
    let healthy = status == ServingStatus::Serving;
    match args.output {
        OutputFormat::Text => {
            let word = if healthy { "healthy" } else { "unhealthy" };
            session.print(&format!("{}: {word}\n", session.endpoint))?;
        }
        OutputFormat::Json => {
            let document = json!({ "healthy": healthy, "status": status.as_str_name() });
            session.print(&format!("{document}\n"))?;
        }
    }
    Ok(ExitCode::from(u8::from(!healthy)))
}
