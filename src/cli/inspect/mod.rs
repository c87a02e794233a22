//! `svid-csi inspect`: shows a volume, certificate, chain, trust bundle, key or JWT-SVID, and
//! whether it is good.

mod content;
mod delivered;
mod directory;
mod facts;
mod file;
mod human;
mod judge;
mod moment;
mod names;
mod ownership;
mod recorded;
mod report;
mod socket;
mod style;
mod token;
mod volume;

use std::{
    io::{IsTerminal, stdout},
    path::{Path, PathBuf},
    process::ExitCode,
    time::SystemTime,
};

use anyhow::Result;
use clap::Args;

use self::judge::Against;
pub(super) use self::{
    delivered::{Delivered, SecretPem, delivered_bundle, delivered_svid},
    human::render,
    moment::Moment,
    report::{Inspected, Report, Status},
    style::{Style, clean},
};
use super::{
    UsageError,
    output::{OutputFormat, print},
};
use crate::clock::Clock;

const EXAMPLES: &str = "\
Examples:
  A pod's volume, on its node (as root it tells more: next renewal, last error):
    svid-csi inspect /var/lib/kubelet/pods/*/volumes/kubernetes.io~csi/svid/mount

  A pod's volume, from inside or from a debug container:
    svid-csi inspect /svid

  A certificate against a bundle, PEM or SPIFFE JWKS:
    svid-csi inspect --bundle bundle.json tls.crt

  A JWT-SVID, from a file or a pipe:
    svid-csi inspect --bundle /svid/bundle.json /svid/token

  For a program:
    svid-csi inspect -o json /svid | jq '.results[0].svid.expiresInSeconds'

Exit status: 0 if all is good; 1 if something is wrong (expired, key mismatch, not chained, failing
renewal, wrong modes …); 2 if something can't be read or is nothing of the above; 64 for a setting
that can't be used. Of several paths, the highest counts.";

/// Arguments of `svid-csi inspect`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct InspectArgs {
    /// Volumes (directories) and files, PEM, DER or SPIFFE bundle; - is standard input
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,

    /// Verify against this bundle (PEM, DER or SPIFFE JWKS), not the volume's own
    #[arg(long, value_name = "FILE")]
    bundle: Option<PathBuf>,

    /// Name of the CSI driver, which a mount of its has as its source
    #[arg(long, env = "SVID_CSI_DRIVER_NAME", default_value = "csi.svid.dev")]
    driver_name: String,

    /// How to print it
    #[arg(short, long, value_enum, default_value = "text", value_name = "FORMAT")]
    output: OutputFormat,
}

/// What everything is judged by.
struct Setting {
    now: SystemTime,
    bundle: Option<Against>,
    driver_name: String,
}

/// Looks at every path and prints what it finds.
pub(super) fn run(args: InspectArgs, clock: &dyn Clock) -> Result<ExitCode> {
    let usage = |reason| UsageError::new("--bundle", reason);
    let bundle = args.bundle.as_deref().map(file::bundle).transpose();
    let setting =
        Setting { now: clock.now(), bundle: bundle.map_err(usage)?, driver_name: args.driver_name };
    let results = args.paths.iter().map(|path| inspect(path, &setting));
    let report = Report::new(Moment(setting.now), results.collect());
    match args.output {
        OutputFormat::Json => print(&format!("{}\n", serde_json::to_string_pretty(&report)?))?,
        OutputFormat::Text => {
            let style = Style::of(stdout().is_terminal(), |name| std::env::var_os(name));
            print(&render(&report, style))?;
        }
    }
    Ok(ExitCode::from(report.status.code()))
}

fn inspect(path: &Path, setting: &Setting) -> Inspected {
    let mut result = Inspected::new(path.to_string_lossy());
    if path.is_dir() {
        volume::inspect(&mut result, path, setting);
    } else {
        file::inspect(&mut result, path, setting);
    }
    result
}

#[cfg(test)]
mod tests;
