//! How the suites ended: a table, `results.json` and the line that CI counts.

use std::{fs, path::Path};

use anyhow::Result;
use serde_json::{Value, json};

use crate::{say, story::Seen};

pub enum Outcome {
    Passed(Seen),
    Failed(String),
    Skipped,
}

#[derive(Default)]
pub struct Results {
    suites: Vec<(String, f64, Outcome)>,
}

// === impl Results ===

impl Results {
    pub fn add(&mut self, name: &str, seconds: f64, outcome: Outcome) {
        self.suites.push((name.to_owned(), seconds, outcome));
    }

    pub fn are_good(&self) -> bool {
        self.suites.iter().all(|(_, _, outcome)| !matches!(outcome, Outcome::Failed(_)))
    }

    pub fn show(&self, directory: &Path) -> Result<()> {
        let mut counts = [0; 3];
        let mut suites = Vec::new();
        say(&format!("\n{:<19} {:<8} {:>5}  seen", "suite", "", "s"));
        for (name, seconds, outcome) in &self.suites {
            let (index, word, seen, figures) = match outcome {
                Outcome::Passed(seen) => (0, "passed", seen.line.as_str(), &seen.figures),
                Outcome::Failed(why) => (1, "FAILED", why.as_str(), &Value::Null),
                Outcome::Skipped => (2, "skipped", "", &Value::Null),
            };
            counts[index] += 1;
            let line = seen.lines().next().unwrap_or_default();
            say(&format!("{name:<19} {word:<8} {seconds:>5.0}  {line}"));
            suites.push(json!({
                "name": name, "result": word, "seconds": seconds, "seen": seen, "figures": figures,
            }));
        }
        let path = directory.join("results.json");
        fs::write(&path, serde_json::to_string_pretty(&json!({"suites": suites}))? + "\n")?;
        let [passed, failed, skipped] = counts;
        say(&format!("\ne2e: {passed} passed, {failed} failed, {skipped} skipped"));
        Ok(())
    }
}
