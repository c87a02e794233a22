//! What a person sees of a suite: a line a step, and at the end one line that says what was seen.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::say;

/// A suite's progress.
pub struct Story {
    began: Instant,
}

/// What a suite has seen: the end of its last line, and figures for `results.json`.
pub struct Seen {
    pub line: String,
    pub figures: Value,
}

// === impl Story ===

impl Story {
    pub fn begin(title: &str) -> Self {
        say(&format!("=== {title}"));
        Self { began: Instant::now() }
    }

    pub fn step(&self, what: &str) {
        say(&format!("{:7.1} s  {what}", self.elapsed().as_secs_f64()));
    }

    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }
}

// === impl Seen ===

impl Seen {
    pub fn new(line: impl Into<String>) -> Self {
        Self { line: line.into(), figures: Value::Null }
    }

    pub fn with(mut self, figures: Value) -> Self {
        self.figures = figures;
        self
    }
}
