//! Reads a source as tokens, so that comments and strings don't count, and judges its paths.

use std::{path::Path, str::FromStr};

use proc_macro2::{Delimiter, TokenStream, TokenTree};

use super::{CRATES, LAYERS, NEIGHBOURS, NOT_IN_LOWEST, TRAITS};

/// One source file: where it stands and what it says.
pub(super) struct Source<'a> {
    /// The first module of its path, or `main` or `lib`.
    pub(super) module: &'a str,
    /// How many modules deep the file is; the crate's root is 0.
    pub(super) depth: usize,
    pub(super) text: &'a str,
}

/// The module that a file below `src/` belongs to, and its depth.
pub(super) fn place(name: &Path) -> (String, usize) {
    let mut parts: Vec<String> =
        name.with_extension("").iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if parts.len() == 1 && (parts[0] == "lib" || parts[0] == "main") {
        return (parts.remove(0), 0);
    }
    if parts.last().is_some_and(|last| last == "mod") {
        parts.pop();
    }
    let depth = parts.len();
    (parts.remove(0), depth)
}

/// What in `source` breaks the rules, in the order of the text.
pub(super) fn check(source: &Source<'_>) -> Vec<String> {
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
                walk(source, depth + usize::from(is_module), group.stream(), faults);
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
    if level(source.module) == Some(0) && NOT_IN_LOWEST.contains(&first) && is_separator(tokens, 1)
    {
        faults.push(format!("{} may not use the crate {first}", source.module));
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
        return next;
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
