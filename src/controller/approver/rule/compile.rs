//! Reading an expression: only what is bounded and can't change anything.

use std::thread::ScopedJoinHandle;

use cel::{
    common::ast::{CallExpr, EntryExpr, Expr, IdedExpr, LiteralValue},
    parser::Parser,
};
use regex::{Regex, RegexBuilder};

use crate::id::nearest;

/// The longest expression, in bytes. The CRD says the same.
const MAX_LENGTH: usize = 2048;
/// How deep brackets and operators may nest.
const MAX_DEPTH: usize = 24;
/// How deep comprehensions may nest.
const MAX_COMPREHENSIONS: usize = 3;
/// The stack for reading one expression, in bytes.
const STACK: usize = 64 << 20;
/// The longest pattern of `matches`.
const MAX_PATTERN: usize = 256;
/// How large a compiled pattern may be, in bytes.
const MAX_COMPILED_PATTERN: usize = 256 << 10;

/// What `matches` with a literal pattern becomes: the pattern is compiled once.
pub(super) const MATCHES: &str = "svid_matches";

/// The variables, and the fields that each has. CEL reserves the word `namespace`; Kubernetes' own
/// admission policies call it `namespaceObject`.
pub(super) const VARIABLES: [(&str, &[&str]); 5] = [
    ("pod", &["namespace", "name", "uid", "labels", "spec"]),
    ("serviceAccount", &["namespace", "name", "uid", "labels"]),
    ("namespaceObject", &["name", "uid", "labels"]),
    ("node", &["name", "uid", "labels", "taints"]),
    ("request", &["id", "ttl", "keyAlgorithm", "dnsNames", "audience"]),
];

/// Operators, and functions that are no more work than looking at their arguments.
const FUNCTIONS: [&str; 27] = [
    "_?_:_",
    "_&&_",
    "_||_",
    "!_",
    "_==_",
    "_!=_",
    "_<_",
    "_<=_",
    "_>_",
    "_>=_",
    "_+_",
    "_-_",
    "_*_",
    "_/_",
    "_%_",
    "-_",
    "_[_]",
    "@in",
    "@not_strictly_false",
    "size",
    "contains",
    "startsWith",
    "endsWith",
    "matches",
    "string",
    "int",
    "bool",
];

/// An expression that may be evaluated.
#[derive(Clone, Debug)]
pub(super) struct Compiled {
    pub(super) expression: IdedExpr,
    pub(super) patterns: Vec<Regex>,
}

/// Walks and checks.
#[derive(Default)]
struct Checker {
    patterns: Vec<Regex>,
    scope: Vec<String>,
}

/// Reads an expression. The error is for a person.
pub(super) fn compile(source: &str) -> Result<Compiled, String> {
    if source.len() > MAX_LENGTH {
        return Err(format!("it has {} bytes; {MAX_LENGTH} are allowed", source.len()));
    }
    if deepest(source) > MAX_DEPTH {
        return Err(format!("it nests deeper than {MAX_DEPTH}"));
    }
    // A chain as long as an expression may be (`a.b.b.b…`) takes more of the parser's stack than a
    // thread of the runtime has.
    std::thread::scope(|scope| {
        let parser = std::thread::Builder::new().name("cel".to_owned()).stack_size(STACK);
        match parser.spawn_scoped(scope, || parse(source)).map(ScopedJoinHandle::join) {
            Ok(Ok(compiled)) => compiled,
            Ok(Err(_panic)) => Err("it is not CEL".to_owned()),
            Err(error) => Err(format!("it can't be read now: {error}")),
        }
    })
}

fn parse(source: &str) -> Result<Compiled, String> {
    let parser = Parser::new().max_recursion_depth(MAX_DEPTH as u16 * 2).error_recovery_limit(4);
    let mut expression = parser.parse(source).map_err(|errors| {
        let first = errors.errors.first().map(|error| {
            let (line, column) = error.pos;
            let hint = match error.msg.ends_with("identifier: namespace") {
                true => "; the pod's namespace is called namespaceObject",
                false => "",
            };
            format!("line {line}, column {column}: {}{hint}", error.msg)
        });
        first.unwrap_or_else(|| "it is not CEL".to_owned())
    })?;
    let mut checker = Checker::default();
    checker.visit(&mut expression, 0)?;
    Ok(Compiled { expression, patterns: checker.patterns })
}

/// How deep it nests at most: the parser's own limit comes after its recursion. Brackets inside
/// texts count too, which is simpler and does no harm. Conditions and runs of prefix operators nest
/// as well.
fn deepest(source: &str) -> usize {
    let (mut depth, mut run, mut conditions, mut deepest) = (0usize, 0usize, 0usize, 0usize);
    for byte in source.bytes().filter(|byte| !byte.is_ascii_whitespace()) {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            b'?' => conditions += 1,
            _ => {}
        }
        run = if matches!(byte, b'!' | b'-') { run + 1 } else { 0 };
        deepest = deepest.max(depth + run);
    }
    deepest.max(conditions)
}

// === impl Checker ===

impl Checker {
    fn visit(&mut self, node: &mut IdedExpr, depth: usize) -> Result<(), String> {
        // Macros expand to a few levels each.
        if depth > MAX_DEPTH * 4 {
            return Err(format!("it nests deeper than {MAX_DEPTH}"));
        }
        let deeper = depth + 1;
        match &mut node.expr {
            Expr::Literal(_) => Ok(()),
            Expr::Ident(name) => self.variable(name),
            Expr::Select(select) => {
                if let Expr::Ident(root) = &select.operand.expr {
                    self.field(root, &select.field)?;
                }
                self.visit(&mut select.operand, deeper)
            }
            Expr::Call(call) => self.call(call, deeper),
            Expr::List(list) => {
                list.elements.iter_mut().try_for_each(|element| self.visit(element, deeper))
            }
            Expr::Map(map) => map.entries.iter_mut().try_for_each(|entry| match &mut entry.expr {
                EntryExpr::MapEntry(entry) => {
                    self.visit(&mut entry.key, deeper)?;
                    self.visit(&mut entry.value, deeper)
                }
                EntryExpr::StructField(field) => self.visit(&mut field.value, deeper),
            }),
            Expr::Comprehension(of) => {
                self.visit(&mut of.iter_range, deeper)?;
                self.visit(&mut of.accu_init, deeper)?;
                let known = VARIABLES.iter().any(|(name, _)| *name == of.iter_var);
                if known || of.iter_var2.is_some() {
                    return Err(format!(
                        "{} can't be the variable of a macro; call it something else",
                        of.iter_var
                    ));
                }
                self.scope.push(of.accu_var.clone());
                self.scope.push(of.iter_var.clone());
                if self.scope.len() > 2 * MAX_COMPREHENSIONS {
                    return Err(format!(
                        "all, exists, map and filter nest deeper than {MAX_COMPREHENSIONS}"
                    ));
                }
                self.visit(&mut of.loop_cond, deeper)?;
                self.visit(&mut of.loop_step, deeper)?;
                self.scope.pop();
                self.visit(&mut of.result, deeper)?;
                self.scope.pop();
                Ok(())
            }
            Expr::Struct(of) => Err(format!("there is no type {}", of.type_name)),
            Expr::Unspecified => Err("it is not CEL".to_owned()),
        }
    }

    fn variable(&self, name: &str) -> Result<(), String> {
        let names = VARIABLES.map(|(known, _)| known);
        if self.scope.iter().any(|known| known == name) || names.contains(&name) {
            return Ok(());
        }
        let hint = nearest(name, names).unwrap_or("pod");
        Err(format!(
            "there is no variable {name}; did you mean {hint}? There are {}",
            names.join(", ")
        ))
    }

    fn field(&self, variable: &str, field: &str) -> Result<(), String> {
        if self.scope.iter().any(|known| known == variable) {
            return Ok(());
        }
        match VARIABLES.iter().find(|(known, _)| *known == variable) {
            Some((_, fields)) if !fields.contains(&field) => Err(format!(
                "{variable} has no {field}; a rule sees its {} (nothing that a node can write)",
                fields.join(", ")
            )),
            _ => Ok(()),
        }
    }

    fn call(&mut self, call: &mut CallExpr, depth: usize) -> Result<(), String> {
        if !FUNCTIONS.contains(&call.func_name.as_str()) {
            let functions: Vec<_> = FUNCTIONS.into_iter().filter(|name| is_word(name)).collect();
            return Err(format!(
                "there is no function {}; there are {} and the macros has, all, exists, exists_one, \
                 map, filter",
                call.func_name,
                functions.join(", ")
            ));
        }
        let mut arguments: Vec<_> = call.target.take().map(|target| *target).into_iter().collect();
        if call.func_name == "matches" {
            arguments.append(&mut call.args);
            let [text, pattern] = arguments.as_mut_slice() else {
                return Err("matches has a text and a pattern".to_owned());
            };
            self.visit(text, depth)?;
            let index = self.pattern(pattern)?;
            pattern.expr = Expr::Literal(LiteralValue::Int(index.into()));
            call.func_name = MATCHES.to_owned();
            call.args = arguments;
            return Ok(());
        }
        if let Some(mut target) = arguments.pop() {
            self.visit(&mut target, depth)?;
            call.target = Some(Box::new(target));
        }
        call.args.iter_mut().try_for_each(|argument| self.visit(argument, depth))
    }

    /// Compiles the pattern and says which one it is.
    fn pattern(&mut self, node: &IdedExpr) -> Result<i64, String> {
        let Expr::Literal(LiteralValue::String(pattern)) = &node.expr else {
            return Err("the pattern of matches must be a literal text".to_owned());
        };
        let pattern = pattern.inner();
        if pattern.len() > MAX_PATTERN {
            return Err(format!(
                "a pattern has {} bytes; {MAX_PATTERN} are allowed",
                pattern.len()
            ));
        }
        let compiled = RegexBuilder::new(pattern)
            .size_limit(MAX_COMPILED_PATTERN)
            .dfa_size_limit(MAX_COMPILED_PATTERN)
            .nest_limit(16)
            .build()
            .map_err(|error| format!("the pattern {pattern:?}: {error}"))?;
        self.patterns.push(compiled);
        Ok(self.patterns.len() as i64 - 1)
    }
}

fn is_word(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_alphabetic())
}
