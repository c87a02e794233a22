//! The rules of a policy: CEL expressions that must be true.
//!
//! An expression comes from whoever may write policies, and runs in the process that holds the CA.
//! So it is limited when it is read, its work is bounded before it runs, and should evaluating it
//! ever break, that is a refusal.

mod compile;
mod cost;
mod input;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, LazyLock},
    time::Duration,
};

use cel::{Context, Env, ExecutionError, Value};
use serde_json::Value as Json;

use self::compile::{Compiled, MATCHES};
use super::{Denial, PolicyProblem, ReasonCode, whom::Subject};
use crate::{
    id::SpiffeId,
    k8s::PolicyRule,
    pki::{DnsName, KeyAlgorithm},
};

/// A rule, ready for use.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    name: String,
    message: String,
    compiled: Arc<Compiled>,
}

/// What would be granted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    pub(super) id: &'a SpiffeId,
    pub(super) ttl: Duration,
    /// None for a JWT-SVID.
    pub(super) key: Option<KeyAlgorithm>,
    pub(super) dns_names: &'a [DnsName],
    /// Empty for an X.509-SVID.
    pub(super) audience: &'a [String],
}

/// What a rule says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is true.
    Met,
    /// It is false.
    NotMet,
    /// It could take more steps than are allowed, and was not evaluated.
    TooExpensive {
        /// How many.
        steps: u64,
    },
    /// It could not be evaluated.
    Failed(String),
}

/// The steps that one rule may take; some milliseconds.
pub(super) const MAX_STEPS: u64 = 50_000;

static ENVIRONMENT: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(Env::stdlib()));

/// Checks that every rule is met.
pub(super) fn check(
    policy: &str,
    rules: &[Rule],
    subject: &Subject<'_>,
    asked: &Asked<'_>,
) -> Result<(), Denial> {
    for (rule, verdict) in judge(rules, subject, asked) {
        let name = &rule.name;
        let (reason, problem) = match verdict {
            Verdict::Met => continue,
            Verdict::NotMet if rule.message.is_empty() => {
                (ReasonCode::RuleNotMet, "is not met".to_owned())
            }
            Verdict::NotMet => (ReasonCode::RuleNotMet, format!("is not met: {}", rule.message)),
            Verdict::TooExpensive { steps } => (
                ReasonCode::PolicyTooExpensive,
                format!(
                    "could take {steps} steps for this pod; {MAX_STEPS} are allowed. Make it simpler"
                ),
            ),
            Verdict::Failed(problem) => (
                ReasonCode::RuleFailed,
                format!("can't be evaluated: {problem}. Ask with has() for what may be absent"),
            ),
        };
        return Err(Denial::new(reason, format!("the policy {policy}: its rule {name} {problem}")));
    }
    Ok(())
}

/// What each rule says, one after the other.
pub(super) fn judge<'r>(
    rules: &'r [Rule],
    subject: &Subject<'_>,
    asked: &Asked<'_>,
) -> impl Iterator<Item = (&'r Rule, Verdict)> {
    // Most policies have no rules, and need no input.
    let input = match rules {
        [] => Json::Null,
        _ => input::variables(subject, asked),
    };
    rules.iter().map(move |rule| (rule, rule.judge(&input)))
}

// === impl Rule ===

impl Rule {
    /// Reads a rule.
    pub(super) fn compile(rule: &PolicyRule) -> Result<Self, PolicyProblem> {
        let invalid = |problem: String| {
            PolicyProblem::new("InvalidRule", format!("the rule {}: {problem}", rule.name))
        };
        if rule.name.is_empty() {
            return Err(invalid("it has no name".to_owned()));
        }
        Ok(Self {
            name: rule.name.clone(),
            message: rule.message.clone(),
            compiled: Arc::new(compile::compile(&rule.expression).map_err(invalid)?),
        })
    }

    /// Its name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// What a person should know if it is not met.
    pub(super) fn message(&self) -> &str {
        &self.message
    }

    fn judge(&self, input: &Json) -> Verdict {
        let steps = cost::steps(&self.compiled.expression, input);
        if steps > MAX_STEPS {
            return Verdict::TooExpensive { steps };
        }
        match catch_unwind(AssertUnwindSafe(|| self.evaluate(input))) {
            Ok(verdict) => verdict,
            Err(_panic) => Verdict::Failed("the evaluation broke off".to_owned()),
        }
    }

    fn evaluate(&self, input: &Json) -> Verdict {
        let mut context = Context::with_env(Arc::clone(&ENVIRONMENT));
        let compiled = Arc::clone(&self.compiled);
        let matches = move |text: Arc<String>, pattern: i64| {
            let pattern = usize::try_from(pattern).ok().and_then(|at| compiled.patterns.get(at));
            pattern.is_some_and(|pattern| pattern.is_match(&text))
        };
        if context.add_function(MATCHES, matches).is_err() {
            return Verdict::Failed("matches is not available".to_owned());
        }
        for (name, json) in input.as_object().into_iter().flatten() {
            context.add_variable_from_value(name.clone(), input::value(json));
        }
        match Value::resolve(&self.compiled.expression, &context) {
            Ok(Value::Bool(true)) => Verdict::Met,
            Ok(Value::Bool(false)) => Verdict::NotMet,
            Ok(_) => Verdict::Failed("its value is neither true nor false".to_owned()),
            Err(error) => Verdict::Failed(explain(&error)),
        }
    }
}

/// Never a value: a pod's specification may hold what should have been a Secret.
fn explain(error: &ExecutionError) -> String {
    match error {
        ExecutionError::NoSuchKey(key) => format!("there is no {key:?}"),
        ExecutionError::NoSuchOverload(overload) => overload.to_string(),
        ExecutionError::UnexpectedType { got, want } => format!("found {got}, wanted {want}"),
        ExecutionError::IndexOutOfBounds(_) => "an index is out of bounds".to_owned(),
        ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => {
            "a division by zero".to_owned()
        }
        ExecutionError::Overflow(..) => "a number is too large".to_owned(),
        ExecutionError::DuplicateKey(_) => "a map has a key twice".to_owned(),
        ExecutionError::ValuesNotComparable(..)
        | ExecutionError::UnsupportedBinaryOperator(..)
        | ExecutionError::UnsupportedIndex(..)
        | ExecutionError::UnsupportedTargetType { .. }
        | ExecutionError::UnsupportedKeyType(_) => "a value is of the wrong type".to_owned(),
        _ => "an operation failed".to_owned(),
    }
}

#[cfg(test)]
mod tests;
