//! The life of the JWT keys.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::STANDARD};
use tokio::time::Instant;

use super::*;
use crate::{
    clock::Clock,
    controller::ca::{
        Keyring,
        document::{DocumentError, decode, encode},
        jwt::JwtEntry,
        lifecycle::{MAX_ENTRIES, begin_again},
        request::Outcome,
        restore::Stolen,
        settings::{HANDOVER, SKEW},
        stage::Stage,
        state::Home,
    },
    jose::{JwtSvid, verify},
    pki::TrustBundle,
};

const MONTH: Duration = Duration::from_secs(30 * 86_400);

struct NoClock;

impl Clock for NoClock {
    fn now(&self) -> std::time::SystemTime {
        start().time()
    }
}

impl Leader {
    fn jwt_stages(&self) -> Vec<&'static str> {
        self.state().jwt_keys.iter().map(|entry| entry.stage.label()).collect()
    }

    fn jwt_key(&self) -> String {
        self.active_jwt().key_id().to_owned()
    }

    fn active_jwt(&self) -> &JwtEntry {
        self.state().active_jwt().unwrap()
    }

    fn published_jwt_keys(&self) -> Vec<String> {
        let bundle = &self.world.published.as_ref().unwrap().bundle;
        bundle.jwt_authorities().iter().map(|key| key.key_id().to_owned()).collect()
    }

    /// What a replica that has seen all of it signs now.
    fn token(&self, ttl: Duration) -> Result<JwtSvid, String> {
        let replica = self.replica();
        let key = replica.signing_jwt(self.now.time()).map_err(|not| not.reason)?;
        let id = "spiffe://example.org/a".parse().unwrap();
        key.sign(&id, &["b".to_owned()], ttl, &BTreeMap::new(), self.now.time())
            .map_err(|error| error.to_string())
    }

    fn replica(&self) -> Arc<Keyring> {
        let replica = Keyring::new(self.settings.clone(), Arc::new(NoClock));
        replica.heard(self.state.clone(), Instant::now());
        replica.saw_bundle(&self.world.published.as_ref().unwrap().bundle, self.now.time());
        replica
    }

    fn verifies(&self, svid: &JwtSvid) -> bool {
        let bundle = &self.world.published.as_ref().unwrap().bundle;
        let authorities = bundle.jwt_authorities();
        verify(svid.token(), "b", |_| Some(authorities.clone()), self.now.time()).is_ok()
    }
}

/// An installation as the version before JWT keys left it: it has a CA and a published bundle.
fn before_jwt_keys() -> Leader {
    let mut leader = Leader::new();
    leader.act();
    let state = leader.state.as_mut().unwrap();
    state.jwt_keys.clear();
    state.bundle.truncate(1);
    state.published.retain(|name, _| name.len() == 64);
    leader.publish();
    leader
}

#[tokio::test(start_paused = true)]
async fn the_first_key_of_a_new_installation_signs_at_once() {
    let mut leader = Leader::new();
    leader.act();
    assert_eq!(leader.jwt_stages(), ["active"]);
    assert_eq!(leader.published_jwt_keys(), [leader.jwt_key()]);
    let svid = leader.token(HOUR).unwrap();
    assert!(leader.verifies(&svid));
    assert_eq!(leader.state().jwt_keys[0].key.id, leader.jwt_key(), "RFC 7638");
}

/// Invariant 6: where nodes trust a bundle without it, the first key is published first.
#[tokio::test(start_paused = true)]
async fn an_upgrade_publishes_the_first_key_before_it_signs() {
    let mut leader = before_jwt_keys();
    let sequence = leader.state().sequence;
    leader.now = leader.now.after(HOUR);
    assert!(leader.token(HOUR).unwrap_err().contains("there is no JWT key yet"));
    leader.act();
    assert_eq!((leader.stages(), leader.jwt_stages()), (vec!["active"], vec!["prepared"]));
    assert!(leader.state().sequence > sequence, "another bundle has another number");
    let said = leader.token(HOUR).unwrap_err();
    assert!(said.contains("it is published first and signs at"), "{said}");
    leader.after(PROPAGATION - Duration::from_secs(1));
    assert_eq!(leader.jwt_stages(), ["prepared"]);
    leader.after(Duration::from_secs(1));
    assert_eq!(leader.jwt_stages(), ["active"]);
    // This replica was started just now: it believes the leader, whose clock may be behind.
    assert!(leader.token(HOUR).unwrap_err().contains("it signs here from"));
    leader.after(SKEW);
    assert!(leader.token(HOUR).is_ok());
}

/// Invariant 6, the whole life: nothing outlives the key in the bundle.
#[tokio::test(start_paused = true)]
async fn a_key_is_published_before_it_signs_and_until_its_last_token_has_ended() {
    let mut leader = Leader::new();
    let first = leader.act().jwt_key();
    leader.at(start().after(MONTH / 2).before(Duration::from_secs(1)));
    assert_eq!(leader.jwt_stages(), ["active"]);
    leader.after(Duration::from_secs(1));
    assert_eq!(leader.jwt_stages(), ["active", "prepared"]);
    assert_eq!((leader.stages(), leader.published_jwt_keys().len()), (vec!["active"], 2));
    leader.at(start().after(MONTH * 2 / 3).before(Duration::from_secs(1)));
    assert_eq!(leader.jwt_key(), first);
    let last = leader.token(HOUR * 5).unwrap();
    assert_eq!(last.expires_at(), leader.now.after(HOUR).time(), "an hour at most");
    leader.after(Duration::from_secs(1));
    assert_eq!(leader.jwt_stages(), ["retired", "active"]);
    let second = leader.jwt_key();
    assert_ne!(second, first);
    let (sign_until, remove_at) = match leader.state().jwt_keys[0].stage {
        Stage::Retired { sign_until, remove_at, .. } => (sign_until, remove_at),
        other => panic!("{other:?}"),
    };
    assert_eq!(remove_at, sign_until.after(HOUR + SKEW));
    leader.at(sign_until.after(SKEW));
    assert!(leader.state().jwt_keys[0].key.private.is_none(), "the key is gone");
    assert!(leader.verifies(&last));
    leader.at(remove_at.after(SKEW).before(Duration::from_secs(1)));
    assert_eq!(leader.published_jwt_keys(), [first, second.clone()]);
    leader.after(Duration::from_secs(1));
    assert_eq!(leader.published_jwt_keys(), [second]);
}

#[tokio::test(start_paused = true)]
async fn no_token_outlives_its_key() {
    let mut leader = Leader::new();
    leader.act();
    let end = leader.active_jwt().end;
    // No leader was there for all of it.
    leader.now = end.before(Duration::from_secs(100));
    let svid = leader.token(HOUR).unwrap();
    assert_eq!(svid.expires_at(), end.time());
    leader.now = end;
    assert!(leader.token(HOUR).unwrap_err().contains("ended at"));
    leader.act();
    assert_eq!(leader.jwt_stages(), ["active", "prepared"]);
    leader.after(PROPAGATION);
    assert_eq!(leader.jwt_stages(), ["active"], "nothing under the old one can be alive");
    leader.after(SKEW);
    assert!(leader.token(HOUR).is_ok());
}

#[test]
fn rotate_taint_and_retire_are_for_jwt_keys_too() {
    let mut leader = Leader::new();
    let first = leader.act().jwt_key();
    let ca = leader.active_key();
    assert_eq!(leader.ask(Action::RotateJwt, None, false).outcome, Outcome::Accepted);
    assert_eq!(
        (leader.stages(), leader.jwt_stages()),
        (vec!["active"], vec!["active", "prepared"])
    );
    leader.after(PROPAGATION);
    assert_eq!(leader.answer().outcome, Outcome::Done);
    assert!(leader.answer().message.contains(&leader.jwt_key()), "{}", leader.answer().message);
    assert_eq!((leader.active_key(), leader.jwt_stages()), (ca, vec!["retired", "active"]));

    let second = leader.jwt_key();
    let refused = leader.ask(Action::Retire, Some(second.clone()), true);
    assert!(refused.message.contains("this JWT key signs"), "{}", refused.message);
    let refused = leader.ask(Action::Retire, Some(first.clone()), false);
    assert!(refused.message.contains("--force"), "{}", refused.message);
    let sequence = leader.state().sequence;
    assert_eq!(leader.ask(Action::Retire, Some(first.clone()), true).outcome, Outcome::Done);
    assert_eq!(leader.published_jwt_keys(), std::slice::from_ref(&second));
    assert!(leader.state().sequence > sequence);
    leader.after(HOUR * 2);
    assert!(leader.state().jwt_key(&first).is_none(), "remembered no longer than needed");

    assert_eq!(leader.ask(Action::Taint, Some(second.clone()), false).outcome, Outcome::Accepted);
    leader.after(PROPAGATION);
    assert_ne!(leader.jwt_key(), second);
    assert_eq!(leader.answer().outcome, Outcome::Accepted, "others may still sign with it");
    leader.after(HANDOVER);
    assert_eq!(leader.answer().outcome, Outcome::Done);

    // One that was only prepared never signs.
    leader.ask(Action::RotateJwt, None, false);
    let prepared = leader.state().next_jwt().unwrap().key_id().to_owned();
    assert_eq!(leader.ask(Action::Taint, Some(prepared.clone()), false).outcome, Outcome::Done);
    assert!(leader.state().jwt_key(&prepared).is_none());
    leader.ask(Action::RotateJwt, None, false);
    let prepared = leader.state().next_jwt().unwrap().key_id().to_owned();
    assert_eq!(leader.ask(Action::Retire, Some(prepared), false).outcome, Outcome::Done);
    assert!(leader.state().next_jwt().is_none());
}

#[test]
fn so_many_rotations_do_not_fill_the_secret() {
    let mut leader = Leader::new();
    leader.act();
    let mut refused = None;
    for _ in 0..MAX_ENTRIES {
        let answer = leader.ask(Action::RotateJwt, None, false);
        if answer.outcome == Outcome::Refused {
            refused = Some(answer);
            break;
        }
        leader.after(PROPAGATION);
    }
    // Each is gone an hour after its time: so many are never there at once.
    assert!(refused.is_none() && leader.state().jwt_keys.len() < MAX_ENTRIES);
    leader.settings.jwt.max_ttl = DAY;
    for _ in 0..=MAX_ENTRIES {
        let answer = leader.ask(Action::RotateJwt, None, false);
        if answer.outcome == Outcome::Refused {
            assert!(answer.message.contains("wait until the oldest is gone, at "));
            return;
        }
        leader.after(PROPAGATION);
    }
    panic!("{} keys", leader.state().jwt_keys.len());
}

/// The Secret is gone for good: what was signed is trusted until it has ended.
#[tokio::test(start_paused = true)]
async fn a_lost_secret_keeps_published_keys_until_what_they_signed_has_ended() {
    for memory in [false, true] {
        let mut leader = Leader::new();
        leader.act();
        leader.after(DAY);
        let (svid, old) = (leader.token(HOUR).unwrap(), leader.jwt_key());
        let last = leader.state.take().filter(|_| memory);
        leader.world.published.as_mut().unwrap().ours = false;
        let begun = stepped(&mut leader.world, |world| {
            begin_again(last.as_ref(), world, &leader.settings, leader.now)
        });
        leader.state = Some(begun.state);
        leader.publish();
        leader.act();
        assert_eq!(leader.jwt_stages(), ["foreign", "prepared"]);
        assert!(leader.verifies(&svid));
        leader.after(PROPAGATION);
        assert_eq!(leader.jwt_stages(), ["foreign", "active"]);
        // Other replicas may have signed with it from memory until they heard.
        leader.at(Moment::of(svid.expires_at()).before(Duration::from_secs(1)));
        assert!(leader.verifies(&svid));
        leader.after(HANDOVER + SKEW * 2 + Duration::from_secs(1));
        assert!(!leader.published_jwt_keys().contains(&old));
    }
}

/// A copy from before a rotation: its key is published anew before it signs, and what was published
/// since stays trusted.
#[tokio::test(start_paused = true)]
async fn the_key_of_an_old_copy_is_published_anew_before_it_signs() {
    let mut leader = Leader::new();
    let home = |secret: &str| Home { secret: Some(secret.to_owned()), map: Some("m".to_owned()) };
    leader.world.home = home("s1");
    leader.act();
    leader.act();
    let copy = decode(&encode(leader.state()).unwrap(), &domain(), leader.now).unwrap();
    let old = leader.jwt_key();
    leader.ask(Action::RotateJwt, None, false);
    leader.world.request = None;
    leader.after(PROPAGATION);
    leader.after(DAY);
    let newer = leader.jwt_key();
    let svid = leader.token(HOUR).unwrap();
    assert_eq!(leader.published_jwt_keys(), std::slice::from_ref(&newer));

    leader.state = Some(copy.clone());
    leader.world.home = home("s2");
    leader.act();
    assert_eq!((leader.jwt_key(), leader.jwt_stages()), (old.clone(), vec!["active", "foreign"]));
    assert!(leader.verifies(&svid), "what lives is trusted still");
    assert!(leader.token(HOUR).is_err(), "nodes have forgotten its key");
    leader.after(PROPAGATION + SKEW);
    assert!(leader.token(HOUR).is_ok());
    leader.after(HOUR * 2);
    assert_eq!(leader.published_jwt_keys(), std::slice::from_ref(&old));

    // From before it was believed stolen: the ConfigMap knows.
    for dropped in [false, true] {
        leader.state = Some(copy.clone());
        leader.world.home = home("s3");
        leader.world.stolen = vec![Stolen { key_id: old.clone(), dropped }];
        leader.act();
        leader.world.stolen.clear();
        let stolen = leader.state().jwt_key(&old).unwrap();
        assert!(stolen.tainted && leader.state().next_jwt().is_some());
        assert_eq!(leader.published_jwt_keys().contains(&old), !dropped);
        leader.after(PROPAGATION);
        assert_ne!(leader.jwt_key(), old);
    }
}

#[test]
fn someone_elses_jwt_key_is_taken_out_again() {
    let mut leader = Leader::new();
    leader.act();
    let ours = leader.state().trust_bundle(&leader.settings).unwrap();
    let theirs = JwtKey::generate(JwtKeyAlgorithm::Es256).unwrap();
    let mut both = ours.jwt_authorities().to_vec();
    both.push(theirs.authority().clone());
    let bundle = ours.clone().with_jwt_authorities(both).with_sequence(Some(u64::MAX / 4));
    leader.world.published = Some(Published { bundle, ours: false });
    let next = leader.next();
    assert!(next.problems[0].contains("a JWT key that is not ours"), "{:?}", next.problems);
    assert_eq!(next.state.jwt_authorities(), ours.jwt_authorities().to_vec());
}

/// A Secret and a bundle of the release before JWT keys, in the hour after a rotation.
#[test]
fn a_secret_of_version_1_is_read_and_gets_a_jwt_key() {
    #[derive(serde::Deserialize)]
    struct Stored {
        data: BTreeMap<String, String>,
        bundle: String,
    }
    let stored: Stored = serde_json::from_str(include_str!("version-1.json")).unwrap();
    let decoded = stored
        .data
        .into_iter()
        .map(|(name, text)| (name, zeroize::Zeroizing::new(STANDARD.decode(text).unwrap())));
    let now = start().after(DAY + HOUR * 2);
    let state = decode(&decoded.collect(), &domain(), now).unwrap();
    assert!(state.jwt_keys.is_empty());
    let mut leader = Leader::new();
    let bundle = TrustBundle::from_jwks(domain(), stored.bundle.as_bytes()).unwrap();
    let (sequence, roots) = (bundle.sequence(), bundle.x509_authorities().to_vec());
    leader.world.published = Some(Published { bundle, ours: true });
    leader.world.home = state.home.clone();
    (leader.state, leader.now) = (Some(state), now);
    leader.act();
    assert_eq!(
        (leader.stages(), leader.jwt_stages()),
        (vec!["retired", "active"], vec!["prepared"])
    );
    assert_eq!(leader.state().roots(), roots);
    assert!(Some(leader.state().sequence) > sequence && leader.state().restored.is_none());
    let written = encode(leader.state()).unwrap();
    assert!(String::from_utf8_lossy(&written["state.json"]).contains("\"version\": 2"));
    leader.after(PROPAGATION);
    assert_eq!(leader.jwt_stages(), ["active"]);
}

#[test]
fn a_damaged_jwt_key_says_what_is_wrong() {
    let mut leader = Leader::new();
    leader.act();
    let good = encode(leader.state()).unwrap();
    let name = format!("{}.jwt.key", leader.jwt_key());
    let with = |text: Option<&str>| {
        let mut data = good.clone();
        data.remove(&name);
        data.extend(text.map(|text| (name.clone(), zeroize::Zeroizing::new(text.into()))));
        decode(&data, &domain(), leader.now).unwrap_err()
    };
    assert_eq!(with(None), DocumentError::Missing(name.clone()));
    assert!(matches!(with(Some("no")), DocumentError::JwtKey { .. }));
    let other = JwtKey::generate(JwtKeyAlgorithm::Es256).unwrap().to_pem().unwrap();
    assert!(matches!(with(Some(&other)), DocumentError::JwtKeyExchanged { .. }));
}
