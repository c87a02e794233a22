//! What the leader does: decides on what was read, writes the Secret, then the ConfigMap.

use std::sync::Arc;

use tokio::{task::spawn_blocking, time::Instant};
use tracing::info;

use super::{
    super::{
        CaState, answer, document,
        lifecycle::{
            Advanced, Published, Unfinished, Upstream, World, advance, begin, begin_again,
        },
        moment::Moment,
        publish::{self, Standing},
        request::{Action, Request},
        restore::Stolen,
        retiring,
        state::Home,
        upstream,
    },
    Follower, Found, Round,
};
use crate::{
    jose::JwtKey,
    k8s::{ApiError, BundleMap, StoredSecret},
};

// === impl Follower ===

impl Follower {
    pub(super) async fn world(
        &self,
        published: Option<Published>,
        map: Option<&BundleMap>,
        now: Moment,
        problems: &mut Vec<String>,
    ) -> World {
        let settings = &self.keyring.settings;
        let upstream = match &self.upstream {
            None => Upstream::NotUsed,
            Some(secret) => match secret.read().await {
                Ok(read) => upstream::offered(
                    &secret.name().name,
                    read.as_ref().map(StoredSecret::data),
                    &settings.trust_domain,
                    now,
                ),
                Err(error) => Upstream::Unusable(error.to_string()),
            },
        };
        let retiring = match &settings.retiring_dir {
            None => Vec::new(),
            Some(directory) => {
                match retiring::certificates(directory, &settings.trust_domain, now) {
                    Ok(certificates) => certificates,
                    Err(problem) => {
                        problems.push(format!("the local CA that is being left: {problem}"));
                        Vec::new()
                    }
                }
            }
        };
        let request = map.and_then(BundleMap::request).and_then(|text| {
            serde_json::from_str::<Request>(text)
                .map_err(|error| problems.push(format!("the request to the CA: {error}")))
                .ok()
        });
        let status = map.and_then(publish::status);
        let stolen = status.iter().flat_map(|status| &status.authorities);
        let stolen = stolen.filter_map(Stolen::of);
        let keys = status.iter().flat_map(|status| &status.jwt_keys);
        let stolen = stolen.chain(keys.filter_map(Stolen::of_jwt_key)).collect();
        let answered = status.and_then(|status| status.last_request);
        let home = Home::default();
        World { published, retiring, upstream, request, answered, home, stolen, jwt_key: None }
    }

    pub(super) async fn lead(
        &mut self,
        found: Found,
        map: Option<BundleMap>,
        world: &World,
        now: Moment,
        mut problems: Vec<String>,
    ) -> Result<Round, ApiError> {
        let settings = self.keyring.settings.clone();
        problems.extend(self.trouble(&found).filter(|_| !matches!(found, Found::Nothing)));
        let last = self.keyring.state();
        let (made, stored) = match found {
            Found::There(state, stored) => {
                (advance(&state, world, &settings, now), Some((state, stored)))
            }
            Found::Nothing => match &world.upstream {
                Upstream::Unusable(reason) => {
                    problems.push(reason.clone());
                    return Ok(Round::Settled(problems));
                }
                _ => (begin(world, &settings, now), None),
            },
            Found::Lost if wants_replacement(world, now) => {
                (begin_again(last.as_deref(), world, &settings, now), None)
            }
            Found::Lost | Found::Damaged(_) | Found::Unknown(_) => {
                return self.stand_still(map, world, &problems, now).await;
            }
        };
        let Advanced { state, problems: found } = match made {
            Ok(advanced) => advanced,
            Err(Unfinished::NeedsJwtKey) => match self.make_jwt_key().await {
                Ok(()) => return Ok(Round::Again),
                Err(reason) => {
                    problems.push(format!("the next JWT key can't be made: {reason}"));
                    return self.stand_still(map, world, &problems, now).await;
                }
            },
            Err(error) => {
                problems.push(error.to_string());
                return self.stand_still(map, world, &problems, now).await;
            }
        };
        problems.extend(found);
        let (before, stored) = stored.unzip();
        let wrote = before.as_deref() != Some(&state);
        if wrote {
            let data = match document::encode(&state) {
                Ok(data) => data,
                Err(error) => {
                    problems.push(format!("the JWT keys can't be written down: {error}"));
                    return self.stand_still(map, world, &problems, now).await;
                }
            };
            let written = match stored {
                Some(stored) => self.secret.replace(*stored, data).await?,
                None => self.secret.create(data).await?,
            };
            self.wrote(written, &state);
            tell(before.as_deref(), &state);
        }
        let standing = Standing { state: &state, settings: &settings, problems: &problems, now };
        let content = match standing.content(map.as_ref()) {
            Ok(content) => content,
            Err(error) => {
                problems.push(format!("the bundle stays as it is: {error}"));
                return Ok(Round::Settled(problems));
            }
        };
        if let Some(content) = content {
            self.map.write(map, &content).await?;
            return Ok(Round::Again);
        }
        Ok(if wrote { Round::Again } else { Round::Settled(problems) })
    }

    /// Says what is wrong and changes nothing else; a ConfigMap that is gone is written again.
    async fn stand_still(
        &mut self,
        map: Option<BundleMap>,
        world: &World,
        problems: &[String],
        now: Moment,
    ) -> Result<Round, ApiError> {
        let settings = self.keyring.settings.clone();
        let content = match (&map, self.keyring.state()) {
            (Some(map), _) => publish::with_problem(map, world.request.as_ref(), problems, now),
            (None, Some(state)) => {
                let standing = Standing { state: &state, settings: &settings, problems, now };
                standing.content(None).ok().flatten()
            }
            (None, None) => None,
        };
        match content {
            Some(content) => {
                self.map.write(map, &content).await?;
                Ok(Round::Again)
            }
            None => Ok(Round::Settled(problems.to_vec())),
        }
    }

    /// Makes a JWT key for the next round. RSA takes up to seconds.
    async fn make_jwt_key(&mut self) -> Result<(), String> {
        let algorithm = self.keyring.settings.jwt.key_algorithm;
        let made = spawn_blocking(move || JwtKey::generate(algorithm)).await;
        let key = made.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        self.jwt_key = Some(Arc::new(key));
        Ok(())
    }

    fn wrote(&mut self, written: StoredSecret, state: &CaState) {
        self.decoded = Some((written.version().to_owned(), state.clone()));
        self.keyring.heard(Some(state.clone()), Instant::now());
    }
}

/// Whether a person asked for a new CA after this loss.
fn wants_replacement(world: &World, now: Moment) -> bool {
    let Some(request) = &world.request else { return false };
    request.action == Action::ReplaceLost
        && answer::stale(request, now).is_none()
        && world.answered.as_ref().is_none_or(|answered| answered.uid != request.uid)
        && !matches!(world.upstream, Upstream::Unusable(_))
}

/// Each CA's steps, in the log.
fn tell(before: Option<&CaState>, after: &CaState) {
    for entry in &after.entries {
        let id = &entry.ca.id;
        let was = before.and_then(|before| before.entry(id)).map(|entry| entry.stage.label());
        let is = entry.stage.label();
        if was != Some(is) {
            let not_after = Moment::of(entry.ca.certificate.not_after());
            info!(id, key_id = entry.ca.key_id, state = is, %not_after, "CA");
        }
    }
    for gone in before.iter().flat_map(|before| &before.entries) {
        if after.entry(&gone.ca.id).is_none() {
            info!(id = gone.ca.id, key_id = gone.ca.key_id, "CA removed from the bundle");
        }
    }
    tell_of_jwt_keys(before, after);
    let answered = |state: &CaState| state.answer.clone();
    if let Some(answer) = answered(after)
        && before.and_then(answered).as_ref() != Some(&answer)
    {
        let (action, outcome) = (answer.action.as_str(), answer.outcome.as_str());
        info!(action, outcome, message = answer.message, "request to the CA");
    }
}

fn tell_of_jwt_keys(before: Option<&CaState>, after: &CaState) {
    for entry in &after.jwt_keys {
        let was = before.and_then(|before| before.jwt_key(&entry.key.id));
        let is = entry.stage.label();
        if was.map(|was| was.stage.label()) != Some(is) {
            info!(key_id = entry.key_id(), state = is, not_after = %entry.end, "JWT key");
        }
    }
    for gone in before.iter().flat_map(|before| &before.jwt_keys) {
        if after.jwt_key(&gone.key.id).is_none() {
            info!(key_id = gone.key_id(), "JWT key removed from the bundle");
        }
    }
}
