//! What a command prints, for people or for machines.

use std::io::{self, Write, stdout};

use anyhow::Result;
use clap::ValueEnum;

/// The form of what is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum OutputFormat {
    /// For people.
    #[default]
    Text,
    /// For machines: one JSON document.
    Json,
}

/// Writes to standard output. A reader that has seen enough and went is no failure.
pub(super) fn print(text: &str) -> Result<()> {
    let mut out = stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}
