//! The table in docs/clients.md.

use std::{fmt::Write, fs, path::PathBuf};

use super::spec::{COLUMNS, rows};

const BEGIN: &str = "<!-- table -->\n";
const END: &str = "<!-- end of table -->\n";

/// The document with the table that it should have.
pub fn with_table(document: &str) -> String {
    let (before, rest) = document.split_once(BEGIN).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    format!("{before}{BEGIN}{}{END}{after}", rendered())
}

pub fn document() -> (PathBuf, String) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/clients.md");
    let text = fs::read_to_string(&path).unwrap();
    (path, text)
}

fn rendered() -> String {
    let mut text = format!("| client | version | from | run | {} |\n", COLUMNS.join(" | "));
    text += &"|---".repeat(4 + COLUMNS.len());
    text += "|\n";
    for row in rows() {
        let results = row.results.join(" | ");
        let (client, version) = (row.client, row.version);
        let _ =
            writeln!(text, "| {client} | {version} | {} | {} | {results} |", row.registry, row.run);
    }
    text
}
