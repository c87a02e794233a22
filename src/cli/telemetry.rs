//! Logs, for people or for machines. What reaches them never holds a key or a token.

use std::io::{IsTerminal, stderr};

use clap::ValueEnum;
use tracing::level_filters::LevelFilter;

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    /// One line for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// How much is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum LogLevel {
    /// Only what makes the process end.
    Error,
    /// And what someone should look at.
    Warn,
    /// And every publish, renewal and unpublish.
    Info,
    /// And what helps to find a bug.
    Debug,
}

/// Sends log lines to standard error.
pub(super) fn start(format: LogFormat, level: LogLevel) {
    let level = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
    };
    let builder = tracing_subscriber::fmt().with_max_level(level).with_writer(stderr);
    // A second start, as in a test, keeps the first.
    let _ = match format {
        LogFormat::Text => builder.with_ansi(stderr().is_terminal()).with_target(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
}

/// Tells a person why the program ends.
#[expect(clippy::print_stderr, reason = "the log may be off, and a person asked")]
pub(super) fn complain(error: &anyhow::Error) {
    eprintln!("svid-csi: {error:#}");
}
