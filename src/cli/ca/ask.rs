//! Leaves a request for the leader and follows what becomes of it.

use std::{process::ExitCode, time::Duration};

use anyhow::{Context, Result, bail};
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use tokio::time::{Instant, sleep};

use super::{
    super::{UsageError, inspect::clean, output::print},
    Desk,
};
use crate::{
    clock::Clock,
    controller::ca::{Action, CaStatus, LastRequest, Moment, Outcome, Request},
};

const POLL: Duration = Duration::from_secs(1);
/// When to wonder why nobody answers.
const PATIENCE: Duration = Duration::from_secs(30);
/// Shorter ones are guesses.
const SHORTEST_KEY: usize = 8;

// === impl Desk ===

impl Desk {
    pub(super) async fn ask(
        &self,
        action: Action,
        key: Option<String>,
        force: bool,
        wait: bool,
        clock: &dyn Clock,
    ) -> Result<ExitCode> {
        let status = self.status(&self.read().await?)?;
        let key_id = key.map(|key| resolve(&key, &status)).transpose()?;
        let request = Request { uid: uid()?, action, key_id, force, at: Moment::of(clock.now()) };
        self.map.request(&serde_json::to_string(&request)?).await?;
        let about = request.key_id.as_deref().map(|key| format!(" {key}")).unwrap_or_default();
        print(&format!("asked the leading controller to {}{about}\n", action.as_str()))?;
        self.follow(&request.uid, wait).await
    }

    /// Prints each news until it is done.
    async fn follow(&self, uid: &str, wait: bool) -> Result<ExitCode> {
        let (asked, mut wondered, mut told) = (Instant::now(), false, None);
        loop {
            sleep(POLL).await;
            // The API server may be away for a while; the request stays.
            let status = match self.map.read().await {
                Ok(Some(map)) => self.status(&map).ok(),
                Ok(None) => None,
                Err(error) => {
                    if told.as_ref() != Some(&error.to_string()) {
                        print(&format!("{error}; trying again\n"))?;
                        told = Some(error.to_string());
                    }
                    continue;
                }
            };
            let answer = status.and_then(|status| status.last_request);
            let Some(answer) = answer.filter(|answer| answer.uid == uid) else {
                if asked.elapsed() > PATIENCE && !wondered {
                    wondered = true;
                    print(
                        "nobody has answered yet: does a controller run, and does one lead (its Lease, its logs)?\n",
                    )?;
                }
                continue;
            };
            let line = format!("{}: {}\n", answer.outcome.as_str(), clean(&answer.message));
            if told.as_ref() != Some(&line) {
                print(&line)?;
                told = Some(line);
            }
            if let Some(code) = ended(&answer, wait) {
                return Ok(code);
            }
        }
    }
}

fn ended(answer: &LastRequest, wait: bool) -> Option<ExitCode> {
    match answer.outcome {
        Outcome::Done => Some(ExitCode::SUCCESS),
        Outcome::Refused => Some(ExitCode::FAILURE),
        Outcome::Accepted => (!wait).then_some(ExitCode::SUCCESS),
    }
}

/// The one key that begins like this, of a CA (hexadecimal) or for JWT-SVIDs (base64url).
fn resolve(given: &str, status: &CaStatus) -> Result<String> {
    let given = given.trim_end_matches('…');
    let hexadecimal = given.bytes().all(|byte| byte.is_ascii_hexdigit());
    if given.len() < SHORTEST_KEY {
        let reason = "must be the first eight characters or more of a key, as show has it";
        return Err(UsageError::new("KEY", reason).into());
    }
    let lower = given.to_ascii_lowercase();
    let cas = status.authorities.iter().map(|ca| &ca.key_id).filter(|id| id.starts_with(&lower));
    let keys = status.jwt_keys.iter().map(|key| &key.key_id).filter(|id| id.starts_with(given));
    let mut found: Vec<&String> = cas.chain(keys).collect();
    found.dedup();
    match found.as_slice() {
        [one] => Ok((*one).clone()),
        // The root of an intermediate is not shown, and can be meant.
        [] if hexadecimal && given.len() == 40 => Ok(lower),
        [] => bail!("no CA or JWT key begins with {given:?}; see svid-csi ca show"),
        _ => bail!("several keys begin with {given:?}; give more of it"),
    }
}

fn uid() -> Result<String> {
    let mut bytes = [0; 16];
    SystemRandom::new().fill(&mut bytes).ok().context("no random numbers from the system")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_named_by_its_beginning() {
        let ca = |key: &str| {
            format!(
                r#"{{"id":"i","keyId":"{key}","subject":"","sha256":"","state":"active","origin":"own",
                "tainted":false,"published":true,"notBefore":"2026-01-01T00:00:00Z",
                "notAfter":"2027-01-01T00:00:00Z"}}"#
            )
        };
        let json = format!(
            r#"{{"updated":"2026-01-01T00:00:00Z","trustDomain":"example.org","propagation":"5m",
            "authorities":[{},{}],"jwtKeys":[{}],"lastRequest":null,"problem":null}}"#,
            ca(&"ab".repeat(20)),
            ca(&format!("{}{}", "ab".repeat(10), "cd".repeat(10))),
            r#"{"keyId":"-Xz_abababababababab","algorithm":"rsa-2048","state":"active",
                "tainted":false,"published":true,"made":"2026-01-01T00:00:00Z",
                "notAfter":"2026-02-01T00:00:00Z"}"#
        );
        let status = CaStatus::from_json(&json).unwrap();
        assert_eq!(resolve(&"AB".repeat(20), &status).unwrap(), "ab".repeat(20));
        assert_eq!(resolve(&format!("{}…", "ab".repeat(11)), &status).unwrap(), "ab".repeat(20));
        let root = "ef".repeat(20);
        assert_eq!(resolve(&root, &status).unwrap(), root);
        assert_eq!(resolve("-Xz_abab", &status).unwrap(), "-Xz_abababababababab");
        for (given, reason) in [
            ("abab", "eight"),
            ("zzzzzzzz", "no CA"),
            ("-xz_abab", "no CA"),
            ("abababab", "several"),
            ("12345678", "no CA"),
        ] {
            let error = resolve(given, &status).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }
}
