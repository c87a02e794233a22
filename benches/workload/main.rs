//! Measures the Workload API of the real node plugin as a pod sees it: release binary, real mounts
//! in a mount namespace that ends with the run, gRPC over the volumes' sockets.
//!
//! Nothing here fails because it is slow: the table says what was measured and what we aim at.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    missing_docs,
    unreachable_pub,
    dead_code,
    reason = "a program that nobody depends on, and a harness of which it needs a part"
)]

mod bare;
mod calls;
mod client;
mod held;
#[path = "../volumes/load.rs"]
mod load;
#[path = "../../tests/it/plugin.rs"]
mod plugin;
#[path = "../volumes/process.rs"]
mod process;
#[path = "../volumes/report.rs"]
mod report;
#[path = "../volumes/rotation.rs"]
mod rotation;
#[path = "../volumes/sample.rs"]
mod sample;
mod tokens;

use std::{path::PathBuf, time::Duration};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use svid_csi::sys::in_private_mount_namespace;

use self::report::Report;

/// How much of everything.
pub struct Sizes {
    /// Calls one at a time.
    calls: usize,
    /// Calls of which many are under way.
    wide: usize,
    /// Volumes with two streams each.
    volumes: usize,
    idle: Duration,
}

/// Nothing may become due, and no new CA active, while something else is measured; and the one pod
/// that calls is greedier than any may be.
const QUIET: [&str; 8] = [
    "--default-ttl",
    "24h",
    "--ca-propagation",
    "24h",
    "--workload-calls",
    "1000000",
    "--workload-signatures",
    "1000000",
];

const FULL: Sizes =
    Sizes { calls: 2_000, wide: 20_000, volumes: 1_000, idle: Duration::from_secs(20) };
/// Enough to see that it works.
const QUICK: Sizes = Sizes { calls: 200, wide: 1_000, volumes: 50, idle: Duration::from_secs(3) };

fn main() {
    let arguments: Vec<_> = std::env::args().collect();
    if let [_, flag, path] = &arguments[..]
        && flag == bare::FLAG
    {
        return bare::serve(path);
    }
    // A connection for each volume, at both ends.
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
    let quick = std::env::var_os("BENCH_QUICK").is_some_and(|value| value != "0")
        || arguments.iter().any(|argument| argument == "--quick");
    let output = std::env::var_os("BENCH_OUTPUT")
        .map_or_else(|| PathBuf::from("bench-results/workload.json"), PathBuf::from);
    let sizes = if quick { QUICK } else { FULL };
    let mut report = Report::new(quick);
    in_private_mount_namespace(|| {
        // One thread: the plugin shares the cores with this client.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.unwrap().block_on(async {
            calls::run(&sizes, &mut report).await;
            tokens::run(&sizes, &mut report).await;
            held::run(&sizes, &mut report).await;
        });
    });
    report.print();
    report.write(&output).unwrap();
    println!("\n{}", output.display());
}
