//! DESIGN.md §3: which module may use which, which crates belong to one module only, and that
//! there are four public traits.

use std::{
    fs,
    path::{Path, PathBuf},
    str::FromStr,
};

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// The modules of each layer; a layer uses only the layers before it.
const LAYERS: [&[&str]; 6] = [
    &["class", "clock", "id", "pki", "jose"],
    &["sys", "k8s", "volume"],
    &["signer", "trust"],
    &["node", "controller"],
    &["csi", "workload", "http", "issuer"],
    &["cli"],
];

/// Who may use whom on one level: (user, used).
const NEIGHBOURS: [(&str, &str); 10] = [
    ("clock", "class"),
    ("id", "class"),
    ("pki", "class"),
    ("pki", "clock"),
    ("pki", "id"),
    ("jose", "class"),
    ("jose", "clock"),
    ("jose", "id"),
    // A volume's specification holds the ownership that sys gives its files.
    ("volume", "sys"),
    // A signer hands out the bundle that its certificates chain to.
    ("signer", "trust"),
];

/// Crates that only these modules may use. `main` is `src/main.rs`.
const CRATES: [(&str, &[&str]); 5] = [
    ("anyhow", &["cli", "main"]),
    ("kube", &["k8s"]),
    ("nix", &["sys"]),
    // Services translate; the domain has its own types.
    (
        "svid_csi_proto",
        &["cli", "csi", "issuer", "signer", "workload"],
    ),
    // L0 is pure.
    (
        "tokio",
        &[
            "sys",
            "k8s",
            "volume",
            "signer",
            "trust",
            "node",
            "controller",
            "csi",
            "workload",
            "http",
            "issuer",
            "cli",
            "main",
        ],
    ),
];

const TRAITS: [&str; 4] = ["BundleSource", "Clock", "Mounter", "Signer"];

/// A longer file is two files.
const MAX_LINES: usize = 500;

/// One source file: where it stands and what it says.
struct Source<'a> {
    /// The first module of its path, or `main` or `lib`.
    module: &'a str,
    /// How many modules deep the file is; the crate's root is 0.
    depth: usize,
    text: &'a str,
}

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
        let source = Source {
            module: &module,
            depth,
            text: &text,
        };
        faults.extend(
            check(&source)
                .into_iter()
                .map(|f| format!("src/{}: {f}", name.display())),
        );
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn no_file_is_longer_than_500_lines() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut long = Vec::new();
    for dir in ["src", "tests", "benches", "fuzz/fuzz_targets"] {
        for path in rust_files(&package.join(dir)) {
            let lines = fs::read_to_string(&path)
                .expect("readable source")
                .lines()
                .count();
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
        (
            "id",
            2,
            "use crate::{class::Class, volume::{self, Layout}};",
            "id may not use volume",
        ),
        (
            "sys",
            2,
            "fn f() { crate::volume::parse() }",
            "sys may not use volume",
        ),
        ("id", 1, "use super::sys::Mounter;", "id may not use sys"),
        ("id", 2, "use super::super::sys;", "id may not use sys"),
        (
            "id",
            1,
            "mod tests { use super::super::sys; }",
            "id may not use sys",
        ),
        (
            "node",
            1,
            "mod a { fn f() -> crate::csi::X {} }",
            "node may not use csi",
        ),
        ("metrics", 1, "", "metrics is in no layer"),
        (
            "id",
            1,
            "use crate::telemetry::X;",
            "telemetry is in no layer",
        ),
        (
            "node",
            1,
            "use nix::mount;",
            "node may not use the crate nix",
        ),
        (
            "csi",
            1,
            "use {std::io, ::kube::Client};",
            "csi may not use the crate kube",
        ),
        (
            "node",
            1,
            "fn f() -> anyhow::Result<()> {}",
            "node may not use the crate anyhow",
        ),
        (
            "pki",
            1,
            "async fn f() { tokio::task::yield_now().await }",
            "pki may not use the crate tokio",
        ),
        ("node", 1, "pub trait Store {}", "a fifth trait: Store"),
        (
            "node",
            1,
            "pub(crate) unsafe trait Store {}",
            "a fifth trait: Store",
        ),
    ];
    for (module, depth, text, fault) in cases {
        let faults = check(&Source {
            module,
            depth,
            text,
        });
        assert_eq!(faults, [fault], "{text}");
    }
}

#[test]
fn the_checker_lets_pass_what_is_allowed() {
    let cases: [(&str, usize, &str); 9] = [
        ("pki", 2, "use crate::id::SpiffeId; use super::key;"),
        (
            "csi",
            2,
            "use crate::{id, node::Issuer}; mod tests { use super::super::node; }",
        ),
        ("csi", 2, "use super::node;"),
        ("sys", 2, "use nix::mount::MsFlags; pub trait Mounter {}"),
        (
            "id",
            1,
            "// crate::sys and nix::mount\n/// crate::sys\nconst S: &str = \"crate::sys\";",
        ),
        ("id", 1, "trait Private {} pub fn f() {}"),
        (
            "sys",
            1,
            "pub use self::nix_like::kube; fn f(x: S) { x.nix }",
        ),
        (
            "main",
            0,
            "fn main() -> anyhow::Result<()> { svid_csi::cli::run() }",
        ),
        ("lib", 0, "pub mod id; pub mod cli;"),
    ];
    for (module, depth, text) in cases {
        assert_eq!(
            check(&Source {
                module,
                depth,
                text
            }),
            [""; 0],
            "{text}"
        );
    }
}

/// The module that a file below `src/` belongs to, and its depth.
fn place(name: &Path) -> (String, usize) {
    let mut parts: Vec<String> = name
        .with_extension("")
        .iter()
        .map(|part| part.to_string_lossy().into_owned())
        .collect();
    if parts.len() == 1 && (parts[0] == "lib" || parts[0] == "main") {
        return (parts.remove(0), 0);
    }
    if parts.last().is_some_and(|last| last == "mod") {
        parts.pop();
    }
    let depth = parts.len();
    (parts.remove(0), depth)
}

fn check(source: &Source<'_>) -> Vec<String> {
    let mut faults = Vec::new();
    let rooted = source.module == "lib" || source.module == "main";
    if !rooted && level(source.module).is_none() {
        faults.push(format!("{} is in no layer", source.module));
        return faults;
    }
    match TokenStream::from_str(source.text) {
        Ok(tokens) => walk(source, source.depth, tokens, &mut faults),
        Err(error) => faults.push(format!("does not parse: {error}")),
    }
    faults.dedup();
    faults
}

/// Walks one level of braces. `depth` is that of the module around it.
fn walk(source: &Source<'_>, depth: usize, tokens: TokenStream, faults: &mut Vec<String>) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let mut at = 0;
    while at < tokens.len() {
        match &tokens[at] {
            TokenTree::Group(group) => {
                let is_module = at >= 2
                    && group.delimiter() == Delimiter::Brace
                    && ident(&tokens[at - 2]).as_deref() == Some("mod");
                walk(
                    source,
                    depth + usize::from(is_module),
                    group.stream(),
                    faults,
                );
            }
            TokenTree::Ident(name) => {
                let name = name.to_string();
                if name == "trait" {
                    check_trait(&tokens, at, faults);
                } else if !continues_path(&tokens, at) {
                    at += check_path(source, depth, &name, &tokens[at..], faults);
                }
            }
            _ => {}
        }
        at += 1;
    }
}

/// Judges the path that starts at `tokens[0]`; returns how many tokens to pass over.
fn check_path(
    source: &Source<'_>,
    depth: usize,
    first: &str,
    tokens: &[TokenTree],
    faults: &mut Vec<String>,
) -> usize {
    if let Some((krate, allowed)) = CRATES.iter().find(|(krate, _)| *krate == first)
        && is_separator(tokens, 1)
        && !allowed.contains(&source.module)
    {
        faults.push(format!("{} may not use the crate {krate}", source.module));
    }
    // `crate::`, or as many `super::` as lead to the crate's root.
    let mut next = 0;
    let mut supers = 0;
    if first == "crate" {
        supers = depth;
        next = 1;
    } else {
        while tokens.get(next).and_then(ident).as_deref() == Some("super") {
            supers += 1;
            next += if is_separator(tokens, next + 1) { 3 } else { 1 };
        }
        next = next.saturating_sub(2);
    }
    let at_root = first == "crate" || (first == "super" && supers == depth);
    if !at_root || !is_separator(tokens, next) {
        return if supers > 0 && first == "super" {
            next
        } else {
            0
        };
    }
    match tokens.get(next + 2) {
        Some(TokenTree::Ident(used)) => check_use(source, &used.to_string(), faults),
        Some(TokenTree::Group(group)) => {
            for used in first_of_each(group.stream()) {
                check_use(source, &used, faults);
            }
        }
        _ => {}
    }
    next
}

fn check_use(source: &Source<'_>, used: &str, faults: &mut Vec<String>) {
    let user = source.module;
    if user == used || user == "main" || user == "lib" || used == "self" {
        return;
    }
    let (Some(from), Some(to)) = (level(user), level(used)) else {
        faults.push(format!("{used} is in no layer"));
        return;
    };
    if to > from || (to == from && !NEIGHBOURS.contains(&(user, used))) {
        faults.push(format!("{user} may not use {used}"));
    }
}

fn check_trait(tokens: &[TokenTree], at: usize, faults: &mut Vec<String>) {
    let mut before = at;
    while before > 0 && ident(&tokens[before - 1]).is_some_and(|word| word == "unsafe") {
        before -= 1;
    }
    if before > 0
        && let TokenTree::Group(group) = &tokens[before - 1]
        && group.delimiter() == Delimiter::Parenthesis
    {
        before -= 1;
    }
    let public = before > 0 && ident(&tokens[before - 1]).as_deref() == Some("pub");
    let name = tokens.get(at + 1).and_then(ident).unwrap_or_default();
    if public && !TRAITS.contains(&name.as_str()) {
        faults.push(format!("a fifth trait: {name}"));
    }
}

/// The first name of each entry of `{a, b::c, d as e}`.
fn first_of_each(tokens: TokenStream) -> Vec<String> {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    tokens
        .split(|token| matches!(token, TokenTree::Punct(punct) if punct.as_char() == ','))
        .filter_map(|entry| entry.first().and_then(ident))
        .collect()
}

/// Whether the name at `at` goes on from `name::` or `.`. A leading `::` starts a path.
fn continues_path(tokens: &[TokenTree], at: usize) -> bool {
    let punct = |at: usize, c: char| matches!(tokens.get(at), Some(TokenTree::Punct(p)) if p.as_char() == c);
    if at >= 1 && punct(at - 1, '.') {
        return true;
    }
    at >= 3
        && is_separator(tokens, at - 2)
        && (ident(&tokens[at - 3]).is_some_and(|word| word != "use") || punct(at - 3, '>'))
}

fn is_separator(tokens: &[TokenTree], at: usize) -> bool {
    let colon =
        |at: usize| matches!(tokens.get(at), Some(TokenTree::Punct(p)) if p.as_char() == ':');
    colon(at) && colon(at + 1)
}

fn ident(token: &TokenTree) -> Option<String> {
    match token {
        TokenTree::Ident(ident) => Some(ident.to_string()),
        _ => None,
    }
}

fn level(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
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
