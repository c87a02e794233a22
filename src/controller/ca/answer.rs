//! What is done about a person's request.

use std::time::Duration;

use super::{
    entry::{Entry, Origin},
    jwt::JwtEntry,
    lifecycle::{MAX_ENTRIES, Step, Unfinished},
    moment::Moment,
    request::{Action, Answer, Outcome, Request},
    stage::{Life, Stage},
    state::Refused,
    status::LastRequest,
};
use crate::pki::sha256_hex;

/// An older request is not meant for now: it was found in a restored ConfigMap, or beside a restored
/// Secret that does not know it.
const MAX_AGE: Duration = Duration::from_secs(600);

pub(super) type Reply = (Outcome, String, Option<String>);

// === impl Step ===

impl Step<'_> {
    /// Acts on a request, once.
    pub(super) fn answer(
        &mut self,
        request: &Request,
        answered: Option<&LastRequest>,
    ) -> Result<(), Unfinished> {
        if self.state.answer.as_ref().is_some_and(|answer| answer.uid == request.uid) {
            return Ok(());
        }
        // Answered while the Secret was away or another: nobody waits for it any more.
        if let Some(told) = answered.filter(|told| told.uid == request.uid) {
            self.state.answer = Some(told.answer());
            return Ok(());
        }
        let (outcome, message, waits_for) = match stale(request, self.now) {
            Some(reason) => refuse(reason),
            None => match request.action {
                Action::Rotate => self.rotate()?,
                Action::RotateJwt => self.rotate_jwt()?,
                Action::Taint => self.taint(request.key_id.as_deref())?,
                Action::Retire => self.retire(request.key_id.as_deref(), request.force),
                Action::ReplaceLost => refuse("the CA Secret is there: nothing is lost"),
            },
        };
        self.state.answer = Some(Answer {
            uid: request.uid.clone(),
            action: request.action,
            outcome,
            message,
            at: self.now,
            waits_for,
        });
        Ok(())
    }

    /// A request that waited for a CA is done when that CA signs.
    pub(super) fn finish_answer(&mut self) {
        let now = self.now;
        let Some(answer) = &self.state.answer else { return };
        let Some(waits_for) = answer.waits_for.clone() else { return };
        let (stage, name, lives) = self.waited_for(&waits_for);
        let (outcome, message) = match stage {
            Some(Stage::Active { .. }) => {
                // Whoever had the old key may sign with it for the time of the handover.
                let telling = lives
                    .iter()
                    .any(|old| old.tainted && old.signs().is_some_and(|(_, until)| now < until));
                if answer.action == Action::Taint && telling {
                    return;
                }
                let told = match (answer.action, self.state.jwt_key(&waits_for)) {
                    (Action::Taint, None) => "; nodes now renew everything under the tainted one",
                    (Action::Taint, Some(_)) => {
                        "; take the tainted one out with retire --force, and nodes replace the tokens under it"
                    }
                    _ => "",
                };
                (Outcome::Done, format!("{name} signs{told}"))
            }
            Some(Stage::Prepared { .. }) => return,
            _ => (Outcome::Refused, "the key that was to sign is gone; ask again".to_owned()),
        };
        if let Some(answer) = &mut self.state.answer {
            *answer = Answer { outcome, message, at: now, waits_for: None, ..answer.clone() };
        }
    }

    /// Where the CA or JWT key is that a request waits for, its name, and the life of all its kind.
    fn waited_for(&self, id: &str) -> (Option<Stage>, String, Vec<Life>) {
        let state = &self.state;
        if let Some(key) = state.jwt_key(id) {
            let lives = state.jwt_keys.iter().map(JwtEntry::life).collect();
            return (Some(key.stage), format!("the JWT key {}", key.key_id()), lives);
        }
        let lives = state.entries.iter().map(Entry::life).collect();
        match state.entry(id) {
            Some(entry) => (Some(entry.stage), format!("the CA {}", entry.ca.key_id), lives),
            None => (None, String::new(), lives),
        }
    }

    fn rotate(&mut self) -> Result<Reply, Unfinished> {
        if let Some(upstream) = &self.settings.upstream {
            return Ok(refuse(format!(
                "the CA comes from the Secret {upstream}: whatever renews that one rotates this one"
            )));
        }
        if let Some(reason) = self.too_many() {
            return Ok(refuse(reason));
        }
        self.hurry()
    }

    fn too_many(&self) -> Option<String> {
        let entries = &self.state.entries;
        let first = entries.iter().filter_map(Entry::remove_at).min();
        (entries.len() >= MAX_ENTRIES).then(|| {
            let when = first.map(|at| format!(", at {at}")).unwrap_or_default();
            format!("there are {} CAs already; wait until the oldest is gone{when}", entries.len())
        })
    }

    /// Lets the next CA sign as soon as it is published for long enough; makes one if there is none.
    fn hurry(&mut self) -> Result<Reply, Unfinished> {
        if self.state.next().is_none() {
            self.prepare(true)?;
        }
        let prepared = |entry: &&mut Entry| entry.is_prepared() && !entry.tainted;
        let Some(next) = self.state.entries.iter_mut().find(prepared) else {
            return Ok(refuse("no CA could be made"));
        };
        if let Stage::Prepared { hurry, .. } = &mut next.stage {
            *hurry = true;
        }
        let message = format!(
            "the CA {} is published and signs {} s later",
            next.ca.key_id,
            self.settings.propagation.as_secs()
        );
        Ok((Outcome::Accepted, message, Some(next.ca.id.clone())))
    }

    fn taint(&mut self, key_id: Option<&str>) -> Result<Reply, Unfinished> {
        let Some(key_id) = key_id else { return Ok(refuse("no key was named")) };
        if let Some(reply) = self.taint_jwt(key_id)? {
            return Ok(reply);
        }
        let mut signs = false;
        let mut found = false;
        for entry in self.state.entries.iter_mut().filter(|entry| entry.has_key(key_id)) {
            found = true;
            signs |= entry.is_active();
            entry.tainted = true;
            if entry.origin != Origin::Root {
                let key = sha256_hex(entry.ca.certificate.spki_der());
                self.state.refused.entry(key).or_insert(Refused::Tainted);
            }
        }
        if !found {
            return Ok(refuse(unknown(key_id)));
        }
        // It never signed anything, so nothing needs it.
        self.state.entries.retain(|entry| !(entry.tainted && entry.is_prepared()));
        if !signs {
            return Ok(done(format!(
                "nodes renew everything under {key_id}; then take its root out with retire --force"
            )));
        }
        match (&self.settings.upstream, self.state.next()) {
            (Some(upstream), None) => Ok((
                Outcome::Accepted,
                format!(
                    "noted; put a CA with a new key into the Secret {upstream}: it signs once its root is published for long enough, and then everything under {key_id} is renewed"
                ),
                None,
            )),
            _ => self.hurry(),
        }
    }

    fn retire(&mut self, key_id: Option<&str>, force: bool) -> Reply {
        let Some(key_id) = key_id else { return refuse("no key was named") };
        if let Some(reply) = self.retire_jwt(key_id, force) {
            return reply;
        }
        let of_key = |entry: &&Entry| entry.has_key(key_id);
        let Some(entry) = self.state.entries.iter().find(of_key) else {
            return refuse(unknown(key_id));
        };
        if self.state.entries.iter().filter(of_key).any(Entry::is_active) {
            return refuse("this CA signs; rotate or taint it first, and wait until another signs");
        }
        if let Stage::Prepared { .. } = entry.stage {
            if self.settings.upstream.is_some() {
                return refuse(
                    "this CA is what the upstream Secret holds; put another one there first",
                );
            }
            if self.state.active().is_none() {
                return refuse("this CA is the only one");
            }
            let id = entry.ca.id.clone();
            self.state.entries.retain(|entry| entry.ca.id != id);
            return done(format!("the CA {key_id} never signed and is gone"));
        }
        let shared = self.state.entries.iter().filter(|other| other.signs_or_will()).any(|other| {
            let of = self.state.entries.iter().filter(of_key);
            of.flat_map(|entry| &entry.ca.anchors).any(|root| other.ca.anchors.contains(root))
        });
        if shared {
            return refuse(
                "its root is also that of the CA that signs; only another root can take its place",
            );
        }
        if !force {
            let at = entry.remove_at().map(|at| at.to_string()).unwrap_or_default();
            return refuse(format!(
                "SVIDs under it may live until {at}, when it goes by itself; --force takes it out at once, and they fail"
            ));
        }
        self.drop_by_force(key_id);
        done(format!("the root of {key_id} is out of the bundle"))
    }

    fn drop_by_force(&mut self, key_id: &str) {
        let now = self.now;
        for entry in self.state.entries.iter_mut().filter(|entry| entry.has_key(key_id)) {
            entry.drop_now(now);
        }
    }
}

// === impl Entry ===

impl Entry {
    fn signs_or_will(&self) -> bool {
        self.is_active() || self.is_prepared()
    }
}

pub(super) fn refuse(reason: impl Into<String>) -> Reply {
    (Outcome::Refused, reason.into(), None)
}

pub(super) fn done(message: String) -> Reply {
    (Outcome::Done, message, None)
}

fn unknown(key_id: &str) -> String {
    let shown: String = key_id.chars().take(64).collect();
    format!("there is no CA or JWT key {shown:?}; see svid-csi ca show")
}

/// Why a request is not meant for now.
pub(super) fn stale(request: &Request, now: Moment) -> Option<String> {
    let apart = now.since(request.at).max(request.at.since(now));
    (apart > MAX_AGE).then(|| {
        format!(
            "it was made at {}, and now it is {now}; check the clocks and ask again",
            request.at
        )
    })
}
