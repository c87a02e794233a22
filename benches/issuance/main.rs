//! Measures issuances through CertificateSigningRequest objects on a real API server: the node's
//! signer and the controller's process as they are, thousands of pods that exist only as objects,
//! beside a client that makes the same writes and thinks of nothing.
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
    reason = "a program that nobody depends on, and a report of which it needs a part"
)]

mod floor;
mod ours;
#[path = "../volumes/report.rs"]
mod report;
#[path = "../volumes/sample.rs"]
mod sample;
mod stage;
mod steps;
mod tools;

use std::{env, path::PathBuf, process::ExitCode};

use self::{report::Report, stage::Stage, tools::Tools};

/// Which of its three parts the program plays: none, to bring the cluster up; `stage`, in the control
/// plane's network and as administrator; `measure`, as the driver.
const PART: &str = "SVID_CSI_BENCH_PART";

fn main() -> ExitCode {
    let quick = env::var_os("BENCH_QUICK").is_some_and(|value| value != "0")
        || env::args().any(|argument| argument == "--quick");
    match env::var(PART).as_deref() {
        Ok("stage") => Stage::set(&Tools::new(), if quick { 300 } else { 3000 }).measured(),
        Ok("measure") => measured(quick),
        _ => with_cluster(quick),
    }
}

fn measured(quick: bool) -> ExitCode {
    let mut report = Report::new(quick);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(steps::run(quick, &mut report));
    report.print();
    let output = env::var_os("BENCH_OUTPUT")
        .map_or_else(|| PathBuf::from("bench-results/issuance.json"), PathBuf::from);
    report.write(&output).unwrap();
    println!("\n{}", output.display());
    ExitCode::SUCCESS
}

/// Brings a cluster up, runs all of it in there, and takes the cluster down again.
fn with_cluster(quick: bool) -> ExitCode {
    let tools = Tools::new();
    tools.cluster(&["down"]);
    assert!(tools.cluster(&["up", "--nodes", "1"]), "hack/cluster up");
    let program = env::current_exe().unwrap().display().to_string();
    let part = format!("{PART}=stage");
    let quick = if quick { "BENCH_QUICK=1" } else { "BENCH_QUICK=0" };
    let ended = tools.cluster(&["run", "env", &part, quick, &program]);
    tools.cluster(&["down"]);
    if ended { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
