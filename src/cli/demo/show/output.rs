//! Standard output, and how numbers look there.

use std::{
    env,
    io::{self, IsTerminal, Write, stdout},
};

use anyhow::Result;
use serde_json::Value;

pub(super) fn print(text: &str) -> Result<()> {
    let mut out = stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

pub(super) fn merge(into: &mut Value, fields: Value) {
    if let (Value::Object(into), Value::Object(fields)) = (into, fields) {
        into.extend(fields);
    }
}

/// To three digits, as many as mean something here.
pub(in crate::cli::demo) fn rounded(number: f64) -> f64 {
    (number * 1e3).round() / 1e3
}

/// As much of a serial number as tells two apart.
pub(in crate::cli::demo) fn short(serial: &str) -> &str {
    serial.get(..8).unwrap_or(serial)
}

/// Whether colour and moving the cursor are welcome (no-color.org).
pub(super) fn is_terminal() -> bool {
    let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
    io::stdout().is_terminal()
        && set("NO_COLOR").is_none()
        && set("TERM").is_some_and(|term| term != "dumb")
}
