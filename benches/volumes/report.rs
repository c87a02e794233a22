//! What was measured, for people and for programs.

use std::{fs, io, path::Path};

use serde_json::{Value, json};

/// Everything of one run.
pub struct Report {
    quick: bool,
    load: String,
    rows: Vec<Row>,
}

/// Figures about one thing.
pub struct Row {
    what: String,
    figures: Vec<Figure>,
}

struct Figure {
    name: &'static str,
    value: f64,
    unit: &'static str,
    aim: Option<Aim>,
}

/// What DESIGN.md §7 wants of a figure.
#[derive(Clone, Copy)]
pub enum Aim {
    AtMost(f64),
    AtLeast(f64),
}

// === impl Report ===

impl Report {
    pub fn new(quick: bool) -> Self {
        Self { quick, load: read("/proc/loadavg"), rows: Vec::new() }
    }

    /// Takes a row in, and shows that the run goes on.
    pub fn add(&mut self, row: Row) {
        println!("measured: {}", row.what);
        self.rows.push(row);
    }

    pub fn print(&self) {
        let machine = self.machine();
        println!(
            "\nsvid-csi {} · {} · {} CPUs · Linux {} · load before the run {}\n",
            env!("CARGO_PKG_VERSION"),
            text(&machine, "cpu"),
            machine["cpus"],
            text(&machine, "kernel"),
            text(&machine, "load"),
        );
        if cfg!(debug_assertions) {
            println!("This is a debug build: the figures mean nothing.\n");
        }
        let lines = self.rows.iter().flat_map(Row::lines);
        let lines: Vec<[String; 4]> = [["what", "measured", "aim", "met"].map(str::to_owned)]
            .into_iter()
            .chain(lines)
            .collect();
        let width = |column: usize| {
            let cells = lines.iter().map(|line| line[column].chars().count());
            cells.max().unwrap_or_default()
        };
        let widths = [0, 1, 2, 3].map(width);
        for (n, line) in lines.iter().enumerate() {
            let [what, measured, aim, met] = line;
            let [a, b, c, d] = widths;
            println!("| {what:a$} | {measured:>b$} | {aim:>c$} | {met:d$} |");
            if n == 0 {
                let [a, b, c, d] = widths.map(|width| "-".repeat(width));
                println!("|-{a}-|-{b}:|-{c}:|-{d}-|");
            }
        }
    }

    pub fn write(&self, path: &Path) -> io::Result<()> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let figure = |figure: &Figure| {
            json!({
                "name": figure.name,
                "value": figure.value,
                "unit": figure.unit,
                "atMost": figure.aim.and_then(Aim::at_most),
                "atLeast": figure.aim.and_then(Aim::at_least),
                "met": figure.met(),
            })
        };
        let rows: Vec<Value> = self
            .rows
            .iter()
            .map(|row| {
                let figures: Vec<Value> = row.figures.iter().map(figure).collect();
                json!({ "what": row.what, "figures": figures })
            })
            .collect();
        let report = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "quick": self.quick,
            "debugBuild": cfg!(debug_assertions),
            "machine": self.machine(),
            "results": rows,
        });
        fs::write(path, serde_json::to_vec_pretty(&report)?)
    }

    fn machine(&self) -> Value {
        let field = |file: &str, name: &str| {
            let file = read(file);
            let line = file.lines().find_map(|line| line.strip_prefix(name));
            line.map(|rest| rest.trim_start_matches([':', '\t', ' ']).to_owned())
        };
        json!({
            "cpu": field("/proc/cpuinfo", "model name"),
            "cpus": std::thread::available_parallelism().map_or(0, usize::from),
            "memory": field("/proc/meminfo", "MemTotal"),
            "kernel": read("/proc/sys/kernel/osrelease").trim(),
            "load": self.load.split(' ').next(),
        })
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or("unknown")
}

// === impl Row ===

impl Row {
    pub fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), figures: Vec::new() }
    }

    #[must_use]
    pub fn figure(self, name: &'static str, value: f64, unit: &'static str) -> Self {
        self.with(name, value, unit, None)
    }

    #[must_use]
    pub fn aimed(self, name: &'static str, value: f64, unit: &'static str, most: f64) -> Self {
        self.with(name, value, unit, Some(Aim::AtMost(most)))
    }

    #[must_use]
    pub fn at_least(self, name: &'static str, value: f64, unit: &'static str, least: f64) -> Self {
        self.with(name, value, unit, Some(Aim::AtLeast(least)))
    }

    fn with(
        mut self,
        name: &'static str,
        value: f64,
        unit: &'static str,
        aim: Option<Aim>,
    ) -> Self {
        self.figures.push(Figure { name, value, unit, aim });
        self
    }

    fn lines(&self) -> Vec<[String; 4]> {
        let line = |(n, figure): (usize, &Figure)| {
            let what = if n == 0 { self.what.as_str() } else { "" };
            let show = |value| number(value, figure.unit);
            let measured = format!("{} {}", figure.name, show(figure.value));
            let aim = figure.aim.map(|aim| match aim {
                Aim::AtMost(most) => format!("≤ {}", show(most)),
                Aim::AtLeast(least) => format!("≥ {}", show(least)),
            });
            let met = figure.met().map_or("", |met| if met { "yes" } else { "NO" });
            [
                what.to_owned(),
                measured.trim_start().to_owned(),
                aim.unwrap_or_default(),
                met.to_owned(),
            ]
        };
        self.figures.iter().enumerate().map(line).collect()
    }
}

// === impl Figure ===

impl Figure {
    fn met(&self) -> Option<bool> {
        self.aim.map(|aim| match aim {
            Aim::AtMost(most) => self.value <= most,
            Aim::AtLeast(least) => self.value >= least,
        })
    }
}

// === impl Aim ===

impl Aim {
    fn at_most(self) -> Option<f64> {
        if let Self::AtMost(most) = self { Some(most) } else { None }
    }

    fn at_least(self) -> Option<f64> {
        if let Self::AtLeast(least) = self { Some(least) } else { None }
    }
}

/// Three digits that matter, or all of a whole number.
fn number(value: f64, unit: &str) -> String {
    let digits = match value.abs() {
        v if v >= 100.0 || v == 0.0 => 0,
        v if v >= 10.0 => 1,
        _ => 2,
    };
    format!("{value:.digits$} {unit}").trim_end().to_owned()
}
