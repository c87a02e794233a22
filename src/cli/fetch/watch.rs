//! `svid-csi fetch watch`.

use std::{process::ExitCode, time::Duration};

use anyhow::Result;
use clap::Args;
use svid_csi_proto::workload::{X509svidRequest, X509svidResponse};
use tokio::time::{sleep, timeout};
use tonic::Code;

use super::{Session, endpoint, trouble::Trouble, x509::Fetched};
use crate::cli::{
    inspect::{Inspected, Moment, clean},
    output::OutputFormat,
    signals::Signals,
    telemetry::complain,
};

const EXAMPLES: &str = "\
Examples:
  See rotations, one line each:
    svid-csi fetch watch

  For a program, one JSON document a line:
    svid-csi fetch watch -o json | jq -c '[.checkedAt, .results[].svid.serial]'

When the stream ends it is opened again, after 1 s at first and 30 s at last; what is wrong
meanwhile goes to standard error. It ends with status 0 when it is interrupted, and with 1 if the
server says that trying again is useless.";

const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Arguments of `svid-csi fetch watch`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct WatchArgs {
    /// How to print it
    #[arg(short, long, value_enum, default_value = "text", value_name = "FORMAT")]
    output: OutputFormat,
}

pub(super) async fn run(session: &Session<'_>, args: &WatchArgs) -> Result<ExitCode> {
    let mut signals = Signals::new()?;
    tokio::select! {
        () = signals.next() => Ok(ExitCode::SUCCESS),
        result = follow(session, args) => result.map(|()| ExitCode::SUCCESS),
    }
}

/// Never ends well.
async fn follow(session: &Session<'_>, args: &WatchArgs) -> Result<()> {
    let (mut pause, mut told) = (FIRST_PAUSE, None);
    loop {
        let mut came = |response: X509svidResponse| {
            pause = FIRST_PAUSE;
            told = None;
            let fetched = Fetched::of(session, &response);
            match args.output {
                OutputFormat::Json => {
                    session.print(&format!("{}\n", serde_json::to_string(&fetched.report)?))
                }
                OutputFormat::Text => {
                    let lines = fetched.report.results.iter().map(|svid| line(svid, session));
                    session.print(&lines.collect::<String>())
                }
            }
        };
        let trouble = match stream(session, &mut came).await? {
            trouble if is_final(&trouble) => return Err(trouble.at(&session.endpoint).into()),
            trouble => trouble.at(&session.endpoint),
        };
        let text = trouble.to_string();
        if told.as_ref() != Some(&text) {
            complain(&trouble.into());
            told = Some(text);
        }
        sleep(pause).await;
        pause = LONGEST_PAUSE.min(pause * 2);
    }
}

/// Hands on each message until the stream ends: why it did.
async fn stream(
    session: &Session<'_>,
    came: &mut impl FnMut(X509svidResponse) -> Result<()>,
) -> Result<Trouble> {
    let open = async {
        let mut client = session.endpoint.client(session.patience).await?;
        Ok(client.fetch_x509svid(endpoint::request(X509svidRequest {})).await?.into_inner())
    };
    let mut messages = match timeout(session.patience, open).await {
        Ok(Ok(messages)) => messages,
        Ok(Err(trouble)) => return Ok(trouble),
        Err(_elapsed) => return Ok(Trouble::TimedOut(session.patience)),
    };
    loop {
        match messages.message().await {
            Ok(Some(response)) => came(response)?,
            Ok(None) => return Ok(Trouble::Empty),
            Err(status) => return Ok(status.into()),
        }
    }
}

/// What clients should not try again (reference: Workload_Endpoint.md §6).
fn is_final(trouble: &Trouble) -> bool {
    matches!(trouble.code(), Some(Code::InvalidArgument | Code::Unimplemented))
}

fn line(result: &Inspected, session: &Session<'_>) -> String {
    let now = session.clock.now();
    let mut line = Moment(now).for_people();
    if let Some(svid) = &result.svid {
        let id = svid.spiffe_id.as_deref().unwrap_or("no SPIFFE ID");
        let serial = svid.serial.get(..8).unwrap_or(&svid.serial);
        let left = svid.not_after.relative(now);
        line.push_str(&format!("  {}  serial {serial}  ends {left}", clean(id)));
    }
    if let Some(bundle) = &result.bundle {
        line.push_str(&format!("  bundle of {}", bundle.authorities.len()));
    }
    let problems = result.problems.iter().map(|problem| clean(&problem.message));
    let problems: Vec<String> = problems.collect();
    match problems.is_empty() {
        true => line.push_str("  ok\n"),
        false => line.push_str(&format!("  NOT GOOD: {}\n", problems.join("; "))),
    }
    line
}
