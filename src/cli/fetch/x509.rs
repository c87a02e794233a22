//! `svid-csi fetch x509`.

use std::{
    io::{IsTerminal, stdout},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, ensure};
use clap::Args;
use svid_csi_proto::workload::{X509svidRequest, X509svidResponse};

use super::{
    Session, endpoint,
    files::{self, PRIVATE, PUBLIC},
    trouble::Trouble,
};
use crate::{
    cli::{
        UsageError,
        inspect::{Inspected, Moment, Report, SecretPem, Status, Style, delivered_svid, render},
        output::OutputFormat,
    },
    pki::PrivateKey,
};

const EXAMPLES: &str = "\
Examples:
  Show it:
    svid-csi fetch x509

  Files for an application that reads files, as spire-agent names them: svid.0.pem, svid.0.key (mode
  0600), bundle.0.pem, and federated.<trust domain>.pem for each federated trust domain:
    svid-csi fetch x509 --write /run/app

  For a program; the private key only if it is asked for:
    svid-csi fetch x509 -o json | jq -r '.results[0].certificates'
    svid-csi fetch x509 -o json --include-key | jq -r '.results[0].privateKey'

The certificate is verified against the bundle that came with it, and the key against the
certificate. Nothing is written if either is wrong.";

/// Arguments of `svid-csi fetch x509`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct X509Args {
    /// Write key, certificates and bundles to this directory, which must be there
    #[arg(long, value_name = "DIR")]
    write: Option<PathBuf>,

    /// Print the private key, too; with -o json
    #[arg(long)]
    include_key: bool,

    /// How to print it
    #[arg(short, long, value_enum, default_value = "text", value_name = "FORMAT")]
    output: OutputFormat,
}

/// What a message held, judged, with the private keys.
pub(super) struct Fetched {
    pub(super) report: Report,
    keys: Vec<Option<PrivateKey>>,
}

pub(super) async fn run(session: &Session<'_>, args: &X509Args) -> Result<ExitCode> {
    if args.include_key && args.output != OutputFormat::Json {
        return Err(UsageError::new("--include-key", "needs -o json").into());
    }
    let response = session.within(first(session)).await?;
    let mut fetched = Fetched::of(session, &response);
    if args.include_key {
        fetched.include_keys();
    }
    show(session, &fetched.report, args.output)?;
    if let Some(directory) = &args.write {
        for line in fetched.write(directory)? {
            if args.output == OutputFormat::Text {
                session.print(&line)?;
            }
        }
    }
    Ok(ExitCode::from(u8::from(fetched.report.status != Status::Ok)))
}

/// Prints a report as `inspect` does.
pub(super) fn show(session: &Session<'_>, report: &Report, output: OutputFormat) -> Result<()> {
    match output {
        OutputFormat::Json => {
            session.print(&format!("{}\n", serde_json::to_string_pretty(report)?))
        }
        OutputFormat::Text => {
            let style = Style::of(stdout().is_terminal(), |name| std::env::var_os(name));
            session.print(&render(report, style))
        }
    }
}

async fn first(session: &Session<'_>) -> Result<X509svidResponse, Trouble> {
    let mut client = session.endpoint.client(session.patience).await?;
    let stream = client.fetch_x509svid(endpoint::request(X509svidRequest {})).await?;
    stream.into_inner().message().await?.ok_or(Trouble::Empty)
}

// === impl Fetched ===

impl Fetched {
    pub(super) fn of(session: &Session<'_>, response: &X509svidResponse) -> Self {
        let (at, now) = (session.endpoint.to_string(), session.clock.now());
        let (results, keys): (Vec<Inspected>, Vec<Option<PrivateKey>>) = response
            .svids
            .iter()
            .map(|svid| delivered_svid(&at, svid, &response.federated_bundles, now))
            .unzip();
        Self { report: Report::new(Moment(now), results), keys }
    }

    fn include_keys(&mut self) {
        for (result, key) in self.report.results.iter_mut().zip(&self.keys) {
            if let Some(delivered) = &mut result.delivered {
                delivered.private_key = key.as_ref().map(|key| SecretPem(key.to_pem()));
            }
        }
    }

    /// A line about each file.
    fn write(&self, directory: &Path) -> Result<Vec<String>> {
        ensure!(
            self.report.status == Status::Ok && !self.keys.is_empty(),
            "nothing is written, because what came is not good"
        );
        ensure!(directory.is_dir(), "{} is no directory; make it first", directory.display());
        let mut lines = Vec::new();
        let mut write = |name: String, content: &str, mode| {
            files::write(directory, &name, content, mode)?;
            lines.push(format!("  wrote  {}\n", directory.join(name).display()));
            Ok::<_, anyhow::Error>(())
        };
        for (index, (result, key)) in self.report.results.iter().zip(&self.keys).enumerate() {
            let delivered = result.delivered.as_ref().context("no SVID")?;
            let key = key.as_ref().context("no private key")?;
            let pem = |text: &Option<String>| text.clone().unwrap_or_default();
            write(format!("bundle.{index}.pem"), &pem(&delivered.bundle_pem), PUBLIC)?;
            write(format!("svid.{index}.key"), &key.to_pem(), PRIVATE)?;
            write(format!("svid.{index}.pem"), &pem(&delivered.certificates), PUBLIC)?;
            for (domain, pem) in delivered.federated.iter().filter(|_| index == 0) {
                write(format!("federated.{domain}.pem"), pem, PUBLIC)?;
            }
        }
        Ok(lines)
    }
}
