//! A table of the volumes that stays below whatever is printed, and changes in place.

use std::{
    fmt::Write,
    time::{Duration, SystemTime},
};

use anyhow::Result;
use tokio::time::Instant;

use super::output::{print, short};
use crate::cli::demo::watch::{Volume, Watch};

/// The shortest time between two drawings that only the clock is the reason for.
const REFRESH: Duration = Duration::from_millis(200);
/// How long a new serial stands out.
const FRESH: Duration = Duration::from_millis(1500);

/// The table, and how much of it is on the screen.
#[derive(Default)]
pub(super) struct Table {
    /// The plugin's state, once it has one.
    plugin: Option<Option<u32>>,
    text: String,
    /// Lines of it that are on the screen, just above the cursor.
    lines: usize,
    drawn: Option<Instant>,
    rotations: u32,
}

// === impl Table ===

impl Table {
    /// Prints lines that stay, above the table.
    pub(super) fn print(&mut self, text: &str) -> Result<()> {
        let mut out = String::new();
        if self.lines > 0 {
            let _ = write!(out, "\x1b[{}A", self.lines);
        }
        out.push_str("\r\x1b[J");
        out.push_str(text);
        if !self.text.is_empty() {
            // A terminal too narrow cuts the table off; a wrapped line would be counted wrongly.
            let _ = write!(out, "\x1b[?7l{}\x1b[?7h", self.text);
        }
        self.lines = self.text.lines().count();
        self.drawn = Some(Instant::now());
        print(&out)
    }

    /// What is on the screen stays.
    pub(super) fn freeze(&mut self) {
        *self = Self::default();
    }

    pub(super) fn set_plugin(&mut self, pid: Option<u32>) {
        self.plugin = Some(pid);
        self.drawn = None;
    }

    pub(super) fn set_volumes(&mut self, watch: &Watch, now: SystemTime) -> Result<()> {
        let rotations = watch.rotations;
        let recent = self.drawn.is_some_and(|drawn| drawn.elapsed() < REFRESH);
        if recent && self.rotations == rotations {
            return Ok(());
        }
        self.rotations = rotations;
        self.text = self.draw(watch, now);
        self.print("")
    }

    fn draw(&self, watch: &Watch, now: SystemTime) -> String {
        if watch.volumes.is_empty() {
            return String::new();
        }
        let mut text = String::from("\n");
        let head = format!(
            "    {:<8}  {:<38}  {:<8}  {:>7}  {:>7}",
            "pod", "SPIFFE ID", "serial", "expires", "renewed"
        );
        let _ = writeln!(text, "{}", dim(&head));
        for volume in &watch.volumes {
            let _ = writeln!(text, "{}", row(volume, now));
        }
        let plugin = match self.plugin {
            Some(Some(pid)) => format!("{} node plugin, pid {pid}", green("●")),
            _ => format!("{} node plugin: {}", red("●"), red("dead")),
        };
        let _ = writeln!(text, "    {plugin}");
        text
    }
}

fn row(volume: &Volume, now: SystemTime) -> String {
    let serial = short(volume.svid.serial_hex());
    let serial = match volume.rotations > 0 && volume.seen.elapsed() < FRESH {
        true => bold(&green(serial)),
        false => serial.to_owned(),
    };
    let left = format!("{:>5.1} s", volume.left(now).as_secs_f64());
    // Due is not late: renewal takes a moment.
    let left = match volume.renew_at.is_some_and(|due| due <= now) {
        true => yellow(&left),
        false => left,
    };
    format!(
        "    {:<8}  {:<38}  {serial}  {left}  {:>7}",
        volume.pod.name,
        volume.pod.spiffe_id(),
        volume.rotations
    )
}

pub(super) fn bold(text: &str) -> String {
    format!("\x1b[1m{text}\x1b[0m")
}

pub(super) fn dim(text: &str) -> String {
    format!("\x1b[2m{text}\x1b[0m")
}

pub(super) fn green(text: &str) -> String {
    format!("\x1b[32m{text}\x1b[39m")
}

pub(super) fn red(text: &str) -> String {
    format!("\x1b[31m{text}\x1b[39m")
}

pub(super) fn yellow(text: &str) -> String {
    format!("\x1b[33m{text}\x1b[39m")
}
