//! `svid-csi demo`: a node without a cluster, for people to watch and programs to read.

mod application;
mod handshake;
mod openssl;
mod plugin;
mod pod;
mod process;
mod script;
mod show;
mod stage;
mod watch;

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use crate::sys::namespace::{self, Isolation};

use script::{Script, Summary};
use show::Show;
use stage::Stage;

const DRIVER: &str = "csi.svid.dev";
const TRUST_DOMAIN: &str = "example.org";

const ABOUT: &str = "\
Makes a temporary CA, starts the real node plugin on real sockets, publishes the volumes of five \
pods by the CSI calls that kubelet makes, rotates their SVIDs every few seconds, kills the plugin \
with SIGKILL and starts it again. OpenSSL verifies every SVID, and two of the pods talk mutual TLS \
and ask the sockets in their volumes for X.509- and JWT-SVIDs.

Needs openssl, and root or unprivileged user namespaces. All mounts are made in a mount namespace \
of the demo's own. When it ends, also by Ctrl-C, no process, mount or directory is left.";

const EXAMPLES: &str = "\
Examples:
  Watch it; it takes about half a minute:
    svid-csi demo

  The same, for a program:
    svid-csi demo --json | jq -r 'select(.event == \"rotated\") | .pod'

Environment: NO_COLOR for plain lines, TMPDIR for another place than /tmp.

Exit status: 0 if every step held, 1 otherwise.";

/// Arguments of `svid-csi demo`.
#[derive(Debug, Args)]
#[command(
    about = "See it work on this machine: pods, rotation, a crash, mutual TLS",
    long_about = ABOUT,
    after_help = EXAMPLES
)]
pub(super) struct DemoArgs {
    /// Write one JSON object a line; the last has the event `done`
    #[arg(long)]
    json: bool,
}

/// Runs the demo. It must be called before the process has a second thread.
pub(super) fn run(args: &DemoArgs) -> Result<ExitCode> {
    let mut show = Show::new(args.json);
    show.begin()?;
    match perform(&mut show) {
        Ok(summary) => {
            show.done(&summary)?;
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            // Standard output may be what failed.
            let _ = show.failed(&error);
            Err(error)
        }
    }
}

fn perform(show: &mut Show) -> Result<Summary> {
    let openssl = openssl::version()?;
    let isolation = namespace::isolate().context(
        "cannot make a mount namespace: run the demo as root, allow unprivileged user namespaces \
         (sysctl kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns), \
         or give its container SYS_ADMIN",
    )?;
    // One thread is enough, and blocking for a moment does no harm.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut stage = Stage::build()?;
        let (played, asked) = tokio::select! {
            played = play(&mut stage, show, isolation, openssl) => (played, false),
            stopped = stopped() => (stopped, true),
        };
        if played.is_err() && !asked {
            show.log(stage.log_tail());
        }
        // The first fault is the one to tell.
        let cleared = stage.clear();
        let summary = played?;
        cleared?;
        Ok(summary)
    })
}

async fn play(
    stage: &mut Stage,
    show: &mut Show,
    isolation: Isolation,
    openssl: String,
) -> Result<Summary> {
    Script::new(stage, show).play(isolation, &openssl).await
}

/// Ctrl-C and its kin.
async fn stopped() -> Result<Summary> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
    bail!("interrupted")
}
