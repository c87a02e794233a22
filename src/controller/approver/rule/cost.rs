//! How much work an expression can be, told from its shape and its input before it runs.
//!
//! Every step is charged as if no condition ever cut it short. What a comprehension repeats is
//! charged once for each element that its range can have; the ranges of input are counted, those of
//! values that the expression makes are bounded. There is no loop but comprehensions, and nothing
//! that they make can be named inside them, so that a bound is always found in one pass.

use cel::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedExpr, LiteralValue};
use serde_json::Value as Json;

/// What a value can be: one of these pieces of the input, or something made that is no larger than
/// this in any part.
#[derive(Clone, Debug, Default)]
struct Bound<'j> {
    json: Vec<&'j Json>,
    made: Sizes,
}

/// The most of each, anywhere inside.
#[derive(Clone, Copy, Debug, Default)]
struct Sizes {
    /// Elements of one list or map.
    len: u64,
    /// Bytes of one text.
    text: u64,
    /// All of it, in steps that copying or comparing it takes.
    total: u64,
}

/// Counts while it walks.
struct Counter<'j> {
    input: &'j Json,
    /// The variables of the comprehensions around, innermost last.
    scope: Vec<(String, Bound<'j>)>,
}

/// Bytes of text that are as much work as one step.
const BYTES_A_STEP: u64 = 32;
/// More pieces are no longer told apart.
const MAX_PIECES: usize = 1024;

/// The steps that an expression takes at most on this input, a map of all variables.
pub(super) fn steps(expression: &IdedExpr, input: &Json) -> u64 {
    Counter { input, scope: Vec::new() }.visit(expression).0
}

// === impl Counter ===

impl<'j> Counter<'j> {
    fn visit(&mut self, node: &IdedExpr) -> (u64, Bound<'j>) {
        match &node.expr {
            Expr::Literal(literal) => (1, Bound::literal(literal)),
            Expr::Ident(name) => (1, self.variable(name)),
            Expr::Select(select) => {
                let (cost, operand) = self.visit(&select.operand);
                (cost.saturating_add(1), operand.field(&select.field))
            }
            Expr::Call(call) => self.call(call),
            Expr::List(list) => self.collection(list.elements.iter()),
            Expr::Map(map) => {
                let entries = map.entries.iter().flat_map(|entry| match &entry.expr {
                    EntryExpr::MapEntry(entry) => [&entry.key, &entry.value],
                    EntryExpr::StructField(field) => [&field.value, &field.value],
                });
                self.collection(entries)
            }
            Expr::Comprehension(comprehension) => self.comprehension(comprehension),
            // Refused when the rule was read.
            Expr::Struct(_) | Expr::Unspecified => (u64::MAX, Bound::default()),
        }
    }

    fn variable(&self, name: &str) -> Bound<'j> {
        match self.scope.iter().rev().find(|(known, _)| known == name) {
            Some((_, bound)) => bound.clone(),
            None => Bound { json: self.input.get(name).into_iter().collect(), ..Bound::default() },
        }
    }

    fn collection<'e>(&mut self, elements: impl Iterator<Item = &'e IdedExpr>) -> (u64, Bound<'j>) {
        let mut cost = 1u64;
        let mut made = Sizes::default();
        let mut count = 0;
        for element in elements {
            let (steps, bound) = self.visit(element);
            let sizes = bound.sizes();
            cost = cost.saturating_add(steps).saturating_add(sizes.total);
            made = made.plus(sizes).with_parts(made.max(sizes));
            count += 1;
        }
        made.len = made.len.max(count);
        made.total = made.total.saturating_add(1);
        (cost, Bound { json: Vec::new(), made })
    }

    fn call(&mut self, call: &CallExpr) -> (u64, Bound<'j>) {
        let mut cost = 1u64;
        let mut arguments = Vec::new();
        for argument in call.target.as_deref().into_iter().chain(&call.args) {
            let (steps, bound) = self.visit(argument);
            cost = cost.saturating_add(steps);
            arguments.push((argument, bound));
        }
        let sizes = |at: usize| arguments.get(at).map_or_else(Sizes::default, |(_, b)| b.sizes());
        let (work, result) = match call.func_name.as_str() {
            "_&&_" | "_||_" | "!_" | "@not_strictly_false" => (0, Bound::default()),
            "_?_:_" => {
                let mut branches = arguments.iter().skip(1).map(|(_, bound)| bound.clone());
                let first = branches.next().unwrap_or_default();
                (0, first.or(branches.next().unwrap_or_default()))
            }
            "_[_]" => match arguments.as_slice() {
                [(_, target), (key, _)] => (0, target.index(key)),
                _ => (0, Bound::default()),
            },
            "_==_" | "_!=_" => (sizes(0).total.min(sizes(1).total), Bound::default()),
            "@in" => (sizes(1).total.saturating_add(sizes(0).total), Bound::default()),
            "_+_" => {
                let made = sizes(0).plus(sizes(1));
                (made.total, Bound { json: Vec::new(), made })
            }
            "string" => {
                let text = sizes(0).text.max(32);
                let made = Sizes { len: 0, text, total: 1 + text / BYTES_A_STEP };
                (made.total, Bound { json: Vec::new(), made })
            }
            // Whatever looks at texts: once through the longest.
            _ => {
                let text = sizes(0).text.max(sizes(1).text);
                (1 + text / (BYTES_A_STEP / 8), Bound::default())
            }
        };
        (cost.saturating_add(work), result)
    }

    fn comprehension(&mut self, of: &ComprehensionExpr) -> (u64, Bound<'j>) {
        let (range_cost, range) = self.visit(&of.iter_range);
        let (init_cost, _) = self.visit(&of.accu_init);
        let rounds = range.len();
        let copying = range.sizes().total;
        // What is accumulated can't be named by the expression's author: each round adds its own.
        self.scope.push((of.accu_var.clone(), Bound::default()));
        self.scope.push((of.iter_var.clone(), range.elements()));
        let (condition, _) = self.visit(&of.loop_cond);
        let (step, added) = self.visit(&of.loop_step);
        self.scope.pop();
        let (result, _) = self.visit(&of.result);
        self.scope.pop();
        let added = added.sizes();
        let made = Sizes {
            len: added.len.max(rounds),
            text: added.text,
            total: added.total.saturating_add(1).saturating_mul(rounds),
        };
        let round = condition.saturating_add(step).saturating_add(1);
        let cost = [init_cost, copying, result, made.total, rounds.saturating_mul(round)]
            .into_iter()
            .fold(range_cost, u64::saturating_add);
        (cost, Bound { json: Vec::new(), made })
    }
}

// === impl Bound ===

impl<'j> Bound<'j> {
    fn literal(literal: &LiteralValue) -> Self {
        let text = match literal {
            LiteralValue::String(text) => text.inner().len() as u64,
            _ => 0,
        };
        let made = Sizes { len: 0, text, total: 1 + text / BYTES_A_STEP };
        Self { json: Vec::new(), made }
    }

    fn pieces(json: impl Iterator<Item = &'j Json>, made: Sizes) -> Self {
        let json: Vec<_> = json.take(MAX_PIECES + 1).collect();
        match json.len() > MAX_PIECES {
            false => Self { json, made },
            true => Self {
                json: Vec::new(),
                // Of pieces that weren't even looked at, nothing is known.
                made: Sizes { len: u64::MAX, text: u64::MAX, total: u64::MAX },
            },
        }
    }

    fn field(&self, name: &str) -> Self {
        Self::pieces(self.json.iter().filter_map(|json| json.get(name)), self.made)
    }

    fn index(&self, key: &IdedExpr) -> Self {
        match &key.expr {
            Expr::Literal(LiteralValue::String(name)) => self.field(name.inner()),
            _ => Self::pieces(self.json.iter().flat_map(|json| children(json)), self.made),
        }
    }

    /// What a comprehension's variable can be: a list's elements or a map's keys.
    fn elements(&self) -> Self {
        let lists = self.json.iter().filter_map(|json| json.as_array()).flatten();
        let keys = self.json.iter().filter_map(|json| json.as_object()).flatten();
        let text = keys.map(|(key, _)| key.len() as u64).max().unwrap_or_default();
        let key = Sizes { len: 0, text, total: 1 + text / BYTES_A_STEP };
        Self::pieces(lists, self.made.max(key))
    }

    fn or(self, other: Self) -> Self {
        Self::pieces(self.json.into_iter().chain(other.json), self.made.max(other.made))
    }

    /// How many elements it has itself.
    fn len(&self) -> u64 {
        let own = |json: &&Json| match json {
            Json::Array(list) => list.len() as u64,
            Json::Object(map) => map.len() as u64,
            _ => 0,
        };
        self.json.iter().map(own).max().unwrap_or_default().max(self.made.len)
    }

    fn sizes(&self) -> Sizes {
        self.json.iter().map(|json| measure(json)).fold(self.made, Sizes::max)
    }
}

fn children(json: &Json) -> Box<dyn Iterator<Item = &Json> + '_> {
    match json {
        Json::Array(list) => Box::new(list.iter()),
        Json::Object(map) => Box::new(map.values()),
        _ => Box::new(std::iter::empty()),
    }
}

fn measure(json: &Json) -> Sizes {
    let text = |text: &str| {
        let text = text.len() as u64;
        Sizes { len: 0, text, total: 1 + text / BYTES_A_STEP }
    };
    let part = |whole: Sizes, part: Sizes| Sizes {
        total: whole.total.saturating_add(part.total),
        ..whole.max(part)
    };
    let one = |len: usize| Sizes { len: len as u64, text: 0, total: 1 };
    match json {
        Json::String(string) => text(string),
        Json::Array(list) => list.iter().map(measure).fold(one(list.len()), part),
        Json::Object(map) => map
            .iter()
            .flat_map(|(key, value)| [text(key), measure(value)])
            .fold(one(map.len()), part),
        _ => one(0),
    }
}

// === impl Sizes ===

impl Sizes {
    fn max(self, other: Self) -> Self {
        Self {
            len: self.len.max(other.len),
            text: self.text.max(other.text),
            total: self.total.max(other.total),
        }
    }

    /// Of both put together.
    fn plus(self, other: Self) -> Self {
        Self {
            len: self.len.saturating_add(other.len),
            text: self.text.saturating_add(other.text),
            total: self.total.saturating_add(other.total),
        }
    }

    /// The whole of `self`, the largest part of `parts`.
    fn with_parts(self, parts: Self) -> Self {
        Self { total: self.total, ..parts }
    }
}
