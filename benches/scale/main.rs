//! A cluster of 5,000 nodes and 150,000 pods in front of real controllers: every pod's first SVID,
//! then their renewals at the instants that the node's own schedule gives, only so many times faster.
//! In between the leading replica is killed and starts again, and the CA is replaced.
//!
//! API server and nodes are one process with one thread; it and the two replicas share the cores.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::large_futures,
    missing_docs,
    unreachable_pub,
    dead_code,
    reason = "a program that nobody depends on, and modules of which it needs a part"
)]

#[path = "../../tests/it/api_server.rs"]
mod api_server;
mod crowd;
#[path = "../fleet/mod.rs"]
mod fleet;
#[path = "../volumes/report.rs"]
mod report;
#[path = "../volumes/sample.rs"]
mod sample;
mod seconds;
mod story;

use std::{env, path::PathBuf, process::ExitCode};

use self::report::Report;

fn main() -> ExitCode {
    let quick = env::args().any(|argument| argument == "--quick");
    let mut report = Report::new(quick);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(story::run(quick, &mut report));
    report.print();
    let output = env::var_os("BENCH_OUTPUT")
        .map_or_else(|| PathBuf::from("bench-results/scale.json"), PathBuf::from);
    report.write(&output).unwrap();
    println!("\n{}", output.display());
    ExitCode::SUCCESS
}
