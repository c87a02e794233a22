//! DESIGN.md §3: which module may use which, which crates belong to one module only, and that
//! there are four public traits.

mod checker;

use std::{
    fs,
    path::{Path, PathBuf},
};

use checker::{Source, check, place};

/// The modules of each layer; a layer uses only the layers before it.
const LAYERS: [&[&str]; 6] = [
    &["class", "clock", "encoding", "id", "jitter", "jose", "pki"],
    &["sys", "k8s", "volume"],
    &["signer", "trust"],
    &["node", "controller"],
    &["csi", "workload", "http", "issuer"],
    &["cli"],
];

/// Who may use whom on one level: (user, used).
const NEIGHBOURS: [(&str, &str); 13] = [
    ("clock", "class"),
    ("id", "class"),
    ("pki", "class"),
    ("pki", "clock"),
    ("pki", "encoding"),
    ("pki", "id"),
    // A bundle holds the JWT authorities too.
    ("pki", "jose"),
    ("jose", "class"),
    ("jose", "clock"),
    ("jose", "encoding"),
    ("jose", "id"),
    // A volume's specification holds the ownership that sys gives its files.
    ("volume", "sys"),
    // A signer hands out the bundle that its certificates chain to.
    ("signer", "trust"),
];

/// Crates that only these modules may use. `main` is `src/main.rs`.
const CRATES: [(&str, &[&str]); 4] = [
    ("anyhow", &["cli", "main"]),
    ("kube", &["k8s"]),
    ("nix", &["sys"]),
    // Services translate; the domain has its own types.
    ("svid_csi_proto", &["cli", "csi", "issuer", "signer", "workload"]),
];

/// The lowest layer is pure.
const NOT_IN_LOWEST: [&str; 4] = ["axum", "tokio", "tokio_util", "tonic"];

const TRAITS: [&str; 4] = ["BundleSource", "Clock", "Mounter", "Signer"];

/// A longer file is two files.
const MAX_LINES: usize = 500;

#[test]
fn every_module_uses_only_the_layers_before_it() {
    let mut faults = Vec::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = rust_files(&root);
    assert!(files.len() > 5, "no sources below src/");
    for path in files {
        let name = path.strip_prefix(&root).expect("below src").to_owned();
        let (module, depth) = place(&name);
        let text = fs::read_to_string(&path).expect("readable source");
        let source = Source { module: &module, depth, text: &text };
        faults.extend(check(&source).into_iter().map(|f| format!("src/{}: {f}", name.display())));
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn no_file_is_longer_than_500_lines() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut long = Vec::new();
    for dir in ["src", "tests", "benches", "fuzz/fuzz_targets"] {
        for path in rust_files(&package.join(dir)) {
            let lines = fs::read_to_string(&path).expect("readable source").lines().count();
            if lines > MAX_LINES {
                long.push(format!("{}: {lines} lines", path.display()));
            }
        }
    }
    assert!(long.is_empty(), "split these:\n{}", long.join("\n"));
}

#[test]
fn the_checker_sees_what_is_forbidden() {
    let cases: [(&str, usize, &str, &str); 15] = [
        ("id", 1, "use crate::sys::Mounter;", "id may not use sys"),
        ("id", 2, "use crate::{class::Class, volume::{self, Layout}};", "id may not use volume"),
        ("sys", 2, "fn f() { crate::volume::parse() }", "sys may not use volume"),
        ("id", 1, "use super::sys::Mounter;", "id may not use sys"),
        ("id", 2, "use super::super::sys;", "id may not use sys"),
        ("id", 1, "mod tests { use super::super::sys; }", "id may not use sys"),
        ("node", 1, "mod a { fn f() -> crate::csi::X {} }", "node may not use csi"),
        ("metrics", 1, "", "metrics is in no layer"),
        ("id", 1, "use crate::telemetry::X;", "telemetry is in no layer"),
        ("node", 1, "use nix::mount;", "node may not use the crate nix"),
        ("csi", 1, "use {std::io, ::kube::Client};", "csi may not use the crate kube"),
        ("node", 1, "fn f() -> anyhow::Result<()> {}", "node may not use the crate anyhow"),
        (
            "pki",
            1,
            "async fn f() { tokio::task::yield_now().await }",
            "pki may not use the crate tokio",
        ),
        ("node", 1, "pub trait Store {}", "a fifth trait: Store"),
        ("node", 1, "pub(crate) unsafe trait Store {}", "a fifth trait: Store"),
    ];
    for (module, depth, text, fault) in cases {
        let faults = check(&Source { module, depth, text });
        assert_eq!(faults, [fault], "{text}");
    }
}

#[test]
fn the_checker_lets_pass_what_is_allowed() {
    let cases: [(&str, usize, &str); 9] = [
        ("pki", 2, "use crate::id::SpiffeId; use super::key;"),
        ("csi", 2, "use crate::{id, node::Issuer}; mod tests { use super::super::node; }"),
        ("csi", 2, "use super::node;"),
        ("sys", 2, "use nix::mount::MsFlags; pub trait Mounter {}"),
        ("id", 1, "// crate::sys and nix::mount\n/// crate::sys\nconst S: &str = \"crate::sys\";"),
        ("id", 1, "trait Private {} pub fn f() {}"),
        ("sys", 1, "pub use self::nix_like::kube; fn f(x: S) { x.nix }"),
        ("main", 0, "fn main() -> anyhow::Result<()> { svid_csi::cli::run() }"),
        ("lib", 0, "pub mod id; pub mod cli;"),
    ];
    for (module, depth, text) in cases {
        assert_eq!(check(&Source { module, depth, text }), [""; 0], "{text}");
    }
}

fn rust_files(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.expect("a directory entry").path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}
