//! What the kernel tells of the plugin's process.

use std::{fs, time::Duration};

/// Resident memory by kind, in MiB. Pages of the volumes' tmpfs belong to neither.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    pub anonymous: f64,
    pub file: f64,
}

// === impl Memory ===

impl Memory {
    pub fn of(pid: u32) -> Self {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let mib = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let kib = line.unwrap().trim().trim_end_matches(" kB");
            kib.parse::<f64>().unwrap() / 1024.0
        };
        Self { anonymous: mib("RssAnon:"), file: mib("RssFile:") }
    }

    pub fn total(self) -> f64 {
        self.anonymous + self.file
    }
}

/// The time that a process was on a CPU, also of threads that have ended; in ticks of 10 ms.
pub fn cpu_time(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // The second field, a name in parentheses, may hold spaces; 14 and 15 are user and system.
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    let ticks = fields.split(' ').skip(11).take(2);
    let ticks: u64 = ticks.map(|field| field.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 10)
}
