//! Measures the real node plugin as kubelet would see it: release binary, real mounts in a mount
//! namespace that ends with the run, gRPC over csi.sock.
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

mod floor;
mod load;
#[path = "../../tests/it/plugin.rs"]
mod plugin;
mod process;
mod report;
mod rotation;
mod sample;
mod steps;

use std::path::PathBuf;

use svid_csi::sys::in_private_mount_namespace;

use self::{report::Report, steps::Sizes};

fn main() {
    let quick = std::env::var_os("BENCH_QUICK").is_some_and(|value| value != "0")
        || std::env::args().any(|argument| argument == "--quick");
    let output = std::env::var_os("BENCH_OUTPUT")
        .map_or_else(|| PathBuf::from("bench-results/volumes.json"), PathBuf::from);
    let sizes = if quick { Sizes::QUICK } else { Sizes::FULL };
    let mut report = Report::new(quick);
    in_private_mount_namespace(|| {
        // One thread: the plugin shares the cores with this client, and waking further threads of
        // it would be measured too.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.unwrap().block_on(steps::run(&sizes, &mut report));
    });
    report.print();
    report.write(&output).unwrap();
    println!("\n{}", output.display());
}
