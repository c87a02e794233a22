//! Whoever owns a node gets the identities of that node's pods and nothing else (invariant 5).
//!
//! Node A is the attacker's: its kubelet is stopped, and what follows is done with that kubelet's
//! certificate and with the token that lies in the driver's pod there. The controllers run on node B.

mod approval;
mod csr;
mod direct;
mod fences;
mod field;
mod power;
mod request;
mod scene;
mod time;
mod what;
mod who;
mod whom;

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::{
    ground::Ground,
    patience::{eventually, still_wanted},
    say,
    signer::Signer,
    story::{Seen, Story},
};

use self::{
    field::{Field, Outcome},
    request::Request,
};

/// What must become of an attack.
#[derive(Clone, Copy)]
enum Expected {
    /// The API server refuses it with these words.
    Refused(&'static str),
    /// The controller denies it for this reason, or one of these.
    Denied(&'static [&'static str]),
    /// The controller signs nothing, though it was approved, for this reason.
    Unsigned(&'static str),
}

/// An attack and what came of it.
struct Attack {
    name: String,
    expected: Expected,
    outcome: Outcome,
}

/// Attacks of one kind.
type Stage = fn(&Field<'_>, &mut Attacks) -> Result<()>;

/// All that was tried.
#[derive(Default)]
struct Attacks(Vec<Attack>);

pub fn run(ground: &Ground, story: &Story) -> Result<Seen> {
    let field = Field::taken(ground)?;
    story.step(&format!(
        "{} is the attacker's, with the driver's token and the kubelet's certificate there; the \
         controllers run on {}",
        field.here, field.there
    ));
    let result = attacked(&field, story);
    // Whatever came of it, the node comes back, and the controllers go where they were.
    let back = field.given_back();
    let heard = field.listen();
    let placed = ground.install(&[]);
    let attacks = result?;
    back.and(heard).and(placed).context("giving the node back")?;
    attacks.show();
    attacks.have_failed()?;
    attacks.are_in_audit(&field.heard())?;
    let (refused, denied, unsigned) = attacks.count();
    Ok(Seen::new(format!(
        "{} attacks with the credentials of a node: {refused} refused by the API server or for their \
         token, {denied} denied and {unsigned} left unsigned by the controller with their reasons in the audit stream; \
         an honest request was signed before and after",
        attacks.0.len()
    ))
    .with(attacks.figures()))
}

fn attacked(field: &Field<'_>, story: &Story) -> Result<Attacks> {
    let mut attacks = Attacks::default();
    let objects = field.ground.signer == Signer::Csr;
    if objects {
        honest(field).context("before the attacks")?;
        story.step(
            "an honest request for a pod of that node, made by the attacker's means, is signed",
        );
    }
    let stages: [(&str, Stage); 10] = [
        ("other pods", whom::try_all),
        ("hostile requests", what::try_all),
        ("other tokens", who::try_all),
        ("the API server's fences", fences::try_all),
        ("annotations, status and labels", scene::try_all),
        ("approvals by others", approval::try_all),
        ("a pod that is long being deleted", time::try_all),
        ("what else lies about", power::try_all),
        ("the controller asked directly", direct::try_all),
        ("… for a pod that is long being deleted", direct::try_deleted),
    ];
    // Where nodes may make no CertificateSigningRequests, RBAC ends those attacks.
    for (name, stage) in stages.into_iter().skip(if objects { 0 } else { 7 }) {
        still_wanted()?;
        let before = attacks.0.len();
        stage(field, &mut attacks).with_context(|| name.to_owned())?;
        let good = attacks.0[before..].iter().filter(|attack| attack.has_failed()).count();
        story.step(&format!("{name}: {good} of {} failed as they must", attacks.0.len() - before));
    }
    if objects {
        honest(field).context("after the attacks")?;
    }
    Ok(attacks)
}

/// The same means for an honest end: else all that follows would prove nothing.
fn honest(field: &Field<'_>) -> Result<()> {
    let request = Request::honest(field, &field.own);
    match field.ask(&field.driver, &request)? {
        Outcome::Won(_) => Ok(()),
        other => anyhow::bail!("an honest request was not signed: {}", other.seen()),
    }
}

// === impl Attacks ===

impl Attacks {
    fn add(&mut self, name: impl Into<String>, expected: Expected, outcome: Outcome) {
        self.0.push(Attack { name: name.into(), expected, outcome });
    }

    /// Every decision of the controller's is in its audit stream, with the same reason.
    fn are_in_audit(&self, audit: &[Value]) -> Result<()> {
        let mut by_request: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
        for line in audit {
            // Who asks directly makes no object; its name for the request is the volume's.
            let name = |key: &str| line[key].as_str().filter(|name| !name.is_empty());
            let name = name("requestUid").or_else(|| name("request")).unwrap_or_default();
            by_request.entry(name).or_default().push(line);
        }
        for attack in &self.0 {
            let (decision, uid, reason) = match &attack.outcome {
                Outcome::Denied { uid, reason, .. } => ("deny", uid, reason),
                Outcome::Failed { uid, reason, .. } => ("fail", uid, reason),
                Outcome::Won(_) | Outcome::Refused(_) => continue,
            };
            let lines = by_request.get(uid.as_str()).map_or(&[][..], Vec::as_slice);
            let found = lines
                .iter()
                .any(|line| line["decision"] == decision && line["reason"] == reason.as_str());
            ensure!(found, "{}: {reason} is not in the audit stream: {lines:?}", attack.name);
        }
        Ok(())
    }

    fn show(&self) {
        say(&format!("{:<66} {:<28} {:<8} reason", "attack", "expected", "seen"));
        for attack in &self.0 {
            let (seen, reason) = attack.outcome.parts();
            let expected = attack.expected.shown();
            say(&format!("{:<66} {expected:<28} {seen:<8} {reason}", attack.name));
        }
    }

    fn have_failed(&self) -> Result<()> {
        let won: Vec<_> = self.0.iter().filter(|attack| !attack.has_failed()).collect();
        let shown = won.iter().map(|attack| {
            format!(
                "{}: wanted {}, {}",
                attack.name,
                attack.expected.shown(),
                attack.outcome.seen()
            )
        });
        let shown = shown.collect::<Vec<_>>().join("; ");
        ensure!(won.is_empty(), "{} attacks did not end as they must: {shown}", won.len());
        Ok(())
    }

    fn count(&self) -> (usize, usize, usize) {
        let count = |word: &str| self.0.iter().filter(|a| a.outcome.parts().0 == word).count();
        (count("refused"), count("denied"), count("failed"))
    }

    fn figures(&self) -> Value {
        let rows = self.0.iter().map(|attack| {
            let (seen, reason) = attack.outcome.parts();
            let expected = attack.expected.shown();
            json!({"attack": attack.name, "expected": expected, "seen": seen, "reason": reason})
        });
        rows.collect()
    }
}

// === impl Attack ===

impl Attack {
    fn has_failed(&self) -> bool {
        match (self.expected, &self.outcome) {
            (Expected::Refused(words), Outcome::Refused(said)) => said.contains(words),
            (Expected::Denied(reasons), Outcome::Denied { reason, .. }) => {
                reasons.contains(&reason.as_str())
            }
            (Expected::Unsigned(wanted), Outcome::Failed { reason, .. }) => wanted == reason,
            _ => false,
        }
    }
}

// === impl Expected ===

impl Expected {
    fn shown(self) -> String {
        match self {
            Self::Refused(words) => format!("refused: {words}"),
            Self::Denied(reasons) => format!("denied: {}", reasons.join(" or ")),
            Self::Unsigned(reason) => format!("unsigned: {reason}"),
        }
    }
}

/// Waits until an object is as wanted.
fn until<T>(what: &str, look: impl FnMut() -> Result<T>) -> Result<T> {
    eventually(what, std::time::Duration::from_mins(2), look)
}
