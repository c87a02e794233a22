//! What happened in each second.

use std::time::{Duration, Instant};

use crate::{
    report::Row,
    sample::{Sample, millis},
};

/// Issuances, by when they were done.
pub struct Seconds {
    began: Instant,
    done: Vec<(Duration, Duration)>,
    pub retries: usize,
}

// === impl Seconds ===

impl Seconds {
    pub fn new() -> Self {
        Self { began: Instant::now(), done: Vec::new(), retries: 0 }
    }

    /// One took so long.
    pub fn add(&mut self, took: Duration, retries: usize) {
        self.done.push((self.began.elapsed(), took));
        self.retries += retries;
    }

    pub fn count(&self) -> usize {
        self.done.len()
    }

    pub fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// What was done between these two instants.
    pub fn row(&self, what: &str, from: Duration, to: Duration) -> Row {
        let within: Vec<_> = self.done.iter().filter(|(at, _)| (from..to).contains(at)).collect();
        let each: Sample = within.iter().map(|(_, took)| *took).collect();
        let mean = each.len() as f64 / (to - from).as_secs_f64();
        let peak = (from.as_secs()..to.as_secs())
            .map(|second| within.iter().filter(|(at, _)| at.as_secs() == second).count())
            .max()
            .unwrap_or_default() as f64;
        let row = Row::new(what).figure("mean", mean, "/s").figure("peak", peak, "/s");
        let row = row.figure("peak/mean", peak / mean, "");
        match each.len() {
            0 => row,
            _ => row
                .figure("p50", millis(each.median()), "ms")
                .figure("p99", millis(each.percentile(99)), "ms")
                .figure("longest", millis(each.percentile(100)), "ms"),
        }
    }
}
