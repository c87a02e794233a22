//! What the demo tells: a table that changes in place, plain lines, or JSON.

mod live;
mod output;

use std::time::{Duration, SystemTime};

use anyhow::{Error, Result};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    script::Summary,
    watch::{Rotation, Watch},
};
use live::Table;
use output::{is_terminal, merge, print};

pub(super) use output::{rounded, short};

const TITLE: &str = "svid-csi demo: SPIFFE identities for pods, without a cluster";

const PROVEN: &str = "\
What was proven
  - Each pod has the SPIFFE ID of its ServiceAccount and a key of its own, in a tmpfs.
  - OpenSSL accepts every SVID, two pods talk mutual TLS, a forgery is refused.
  - SVIDs rotate by themselves; every read found a key with its own certificate.
  - Each pod's socket gives that pod's X.509- and JWT-SVIDs; another pod verifies the token.
  - kill -9 changed nothing for the pods, and nothing fresh was issued again;
    an open stream went on by itself.

Next
  svid-csi demo --json      the same for a program
  svid-csi node --help      the node plugin, to run on a node
  svid-csi fetch --help     ask a volume's socket
  svid-csi inspect --help   look into a volume, a certificate or a bundle
";

/// Tells what happens, on standard output.
pub(super) struct Show {
    style: Style,
    begun: Instant,
    step: u32,
    checks: u32,
    /// The plugin's last lines, after a failure.
    tail: Vec<String>,
}

enum Style {
    /// A terminal.
    Live(Table),
    /// Lines without colour.
    Plain,
    /// One object a line.
    Json,
}

// === impl Show ===

impl Show {
    pub(super) fn new(json: bool) -> Self {
        let style = if json {
            Style::Json
        } else if is_terminal() {
            Style::Live(Table::default())
        } else {
            Style::Plain
        };
        Self { style, begun: Instant::now(), step: 0, checks: 0, tail: Vec::new() }
    }

    /// How long to let a person read between checks.
    pub(super) fn pace(&self) -> Duration {
        match self.style {
            Style::Live(_) => Duration::from_millis(600),
            Style::Plain | Style::Json => Duration::ZERO,
        }
    }

    /// The first words.
    pub(super) fn begin(&mut self) -> Result<()> {
        let version = env!("CARGO_PKG_VERSION");
        match &mut self.style {
            Style::Live(table) => table.print(&format!("\n{}\n", live::bold(TITLE)))?,
            Style::Plain => print(&format!("{TITLE}\n"))?,
            Style::Json => self.event("start", json!({ "version": version }))?,
        }
        Ok(())
    }

    /// The next step begins.
    pub(super) fn step(&mut self, title: &str, about: &str) -> Result<()> {
        self.step += 1;
        let step = self.step;
        match &mut self.style {
            Style::Live(table) => {
                let title = live::bold(&format!("{step:>2}  {title}"));
                table.print(&format!("\n{title}\n    {}\n", live::dim(about)))?;
            }
            Style::Plain => print(&format!("\n{step:>2}  {title}\n    {about}\n"))?,
            Style::Json => {
                let fields = json!({ "step": step, "title": title, "about": about });
                self.event("step", fields)?;
            }
        }
        Ok(())
    }

    /// Something held. `check` names it for programs, and `fields` are for them too.
    pub(super) fn check(&mut self, check: &str, text: &str, fields: Value) -> Result<()> {
        self.checks += 1;
        match &mut self.style {
            Style::Live(table) => table.print(&format!("    {} {text}\n", live::green("✓")))?,
            Style::Plain => print(&format!("    ✓ {text}\n"))?,
            Style::Json => {
                let mut all = json!({ "step": self.step, "check": check, "ok": true });
                merge(&mut all, fields);
                merge(&mut all, json!({ "text": text }));
                self.event("check", all)?;
            }
        }
        Ok(())
    }

    /// A volume has a new SVID.
    pub(super) fn rotated(&mut self, rotation: &Rotation) -> Result<()> {
        let Rotation { pod, from, to, lifetime } = rotation;
        match &mut self.style {
            // The table shows it.
            Style::Live(_) => {}
            Style::Plain => {
                let (from, to) = (short(from), short(to));
                let left = lifetime.as_secs_f64();
                let name = pod.name;
                print(&format!(
                    "      {name:<9} renewed: serial {from} -> {to}, expires in {left:.1} s\n"
                ))?;
            }
            Style::Json => {
                let fields = json!({
                    "pod": pod.name,
                    "namespace": pod.namespace,
                    "spiffeId": pod.spiffe_id(),
                    "previousSerial": from,
                    "serial": to,
                    "expiresIn": rounded(lifetime.as_secs_f64()),
                });
                self.event("rotated", fields)?;
            }
        }
        Ok(())
    }

    /// The plugin's process, or that there is none.
    pub(super) fn plugin(&mut self, pid: Option<u32>) {
        if let Style::Live(table) = &mut self.style {
            table.set_plugin(pid);
        }
    }

    /// How the volumes are now.
    pub(super) fn volumes(&mut self, watch: &Watch, now: SystemTime) -> Result<()> {
        if let Style::Live(table) = &mut self.style {
            table.set_volumes(watch, now)?;
        }
        Ok(())
    }

    /// What to show of the plugin's log if the demo fails.
    pub(super) fn log(&mut self, tail: Vec<String>) {
        self.tail = tail;
    }

    /// A step did not hold. The reason itself goes to standard error besides.
    pub(super) fn failed(&mut self, error: &Error) -> Result<()> {
        let reason = format!("{error:#}");
        let mut text = format!("    ✗ {reason}\n");
        if let Style::Live(table) = &mut self.style {
            text = format!("    {} {reason}\n", live::red("✗"));
            table.print(&text)?;
            table.freeze();
            text.clear();
        }
        if let Style::Json = self.style {
            let fields = json!({
                "ok": false,
                "step": self.step,
                "reason": reason,
                "seconds": rounded(self.begun.elapsed().as_secs_f64()),
                "log": self.tail,
            });
            return self.event("done", fields);
        }
        if !self.tail.is_empty() {
            text.push_str("\nThe end of the node plugin's log:\n");
            for line in &self.tail {
                text.push_str(&format!("  {line}\n"));
            }
        }
        print(&format!("{text}\n"))
    }

    /// Every step held.
    pub(super) fn done(&mut self, summary: &Summary) -> Result<()> {
        let Summary { rotations, reads } = summary;
        let checks = self.checks;
        let seconds = self.begun.elapsed().as_secs_f64();
        let held = format!(
            "All {checks} checks held in {seconds:.0} s: {rotations} rotations, {reads} reads, \
             every one whole."
        );
        match &mut self.style {
            Style::Live(table) => {
                let held = live::bold(&live::green(&held));
                table.print(&format!("\n{held}\n\n{PROVEN}\n"))?;
            }
            Style::Plain => print(&format!("\n{held}\n\n{PROVEN}"))?,
            Style::Json => {
                let fields = json!({
                    "ok": true,
                    "checks": checks,
                    "rotations": rotations,
                    "reads": reads,
                    "seconds": rounded(seconds),
                });
                self.event("done", fields)?;
            }
        }
        Ok(())
    }

    fn event(&self, event: &str, fields: Value) -> Result<()> {
        let at = rounded(self.begun.elapsed().as_secs_f64());
        let mut line = json!({ "event": event, "at": at });
        merge(&mut line, fields);
        print(&format!("{line}\n"))
    }
}
