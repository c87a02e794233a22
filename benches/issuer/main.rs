//! Measures identities issued by gRPC: the controller's process as it is, with every check, tokens of
//! an API server, TLS 1.3 and the audit stream, beside what the same calls and signatures cost alone.
//! The load generator has one thread on the same cores. Arguments: `x509`, `jwt`, `memory`, or all.
//!
//! Nothing here fails because it is slow: the table says what was measured and what we aim at.

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
mod bare;
#[path = "../fleet/mod.rs"]
mod fleet;
mod memory;
#[path = "../volumes/report.rs"]
mod report;
#[path = "../volumes/sample.rs"]
mod sample;
mod steps;

use std::{env, path::PathBuf, process::ExitCode};

use self::report::Report;

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    if env::var_os(bare::PART).is_some() {
        runtime.block_on(bare::serve());
        return ExitCode::SUCCESS;
    }
    let quick = env::args().any(|argument| argument == "--quick");
    let mut report = Report::new(quick);
    let named = |part: &str| {
        let parts: Vec<_> = env::args().skip(1).filter(|part| !part.starts_with("--")).collect();
        parts.is_empty() || parts.iter().any(|one| one == part)
    };
    runtime.block_on(async {
        if named("x509") {
            steps::x509(quick, &mut report).await;
        }
        if named("jwt") {
            steps::jwt(quick, &mut report).await;
        }
        if named("memory") {
            memory::run(quick, &mut report).await;
        }
    });
    report.print();
    let output = env::var_os("BENCH_OUTPUT")
        .map_or_else(|| PathBuf::from("bench-results/issuer.json"), PathBuf::from);
    report.write(&output).unwrap();
    println!("\n{}", output.display());
    ExitCode::SUCCESS
}
