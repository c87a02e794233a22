//! What is written to the Secret and the ConfigMap, and read again.

use zeroize::Zeroizing;

use super::*;
use crate::controller::ca::{
    CaStatus,
    document::{DocumentError, SecretData, decode, encode},
};

fn full() -> Leader {
    let mut leader = Leader::new();
    leader.world.retiring = authority(DAY * 300, start()).roots().to_vec();
    leader.act();
    leader.after(PROPAGATION);
    leader.ask(Action::Rotate, None, false);
    leader.after(PROPAGATION);
    let key = leader.active_key();
    leader.ask(Action::Taint, Some(key), false);
    leader
}

#[test]
fn every_state_survives_the_secret() {
    let leader = full();
    assert_eq!(leader.stages(), ["foreign", "retired", "active", "prepared"]);
    let data = encode(leader.state()).unwrap();
    let again = decode(&data, &domain(), leader.now).unwrap();
    assert_eq!(again, *leader.state());
    assert!(again.active().unwrap().ca.authority.is_some());
    assert_eq!(
        data.keys().filter(|name| name.ends_with(".key")).count(),
        5,
        "three, a JWT key and the seal"
    );
    // Long after its end it is read as well: it may be all there is.
    let late = decode(&data, &domain(), leader.now.after(DAY * 4000)).unwrap();
    assert_eq!(late, *leader.state());
    assert_eq!(decode(&data, &domain(), start().before(DAY)).unwrap(), *leader.state());
}

/// Invariant 1: keys are in the Secret and nowhere else.
#[test]
fn no_key_is_in_debug_or_in_the_status() {
    let leader = full();
    let status = CaStatus::of(leader.state(), &leader.settings, &[], leader.now);
    let shown = format!("{:?}{}", leader.state(), status.to_json());
    for (name, bytes) in encode(leader.state()).unwrap() {
        if name.ends_with(".key") {
            let text = String::from_utf8_lossy(&bytes);
            assert!(!shown.contains(text.lines().nth(1).unwrap_or(&text)), "{name}");
        }
    }
    assert!(!shown.contains("PRIVATE"));
    assert_eq!(CaStatus::from_json(&status.to_json()).unwrap(), status);
    let states: Vec<_> = status.authorities.iter().map(|ca| ca.state.as_str()).collect();
    assert_eq!(states, ["foreign", "retired", "active", "prepared"]);
}

type Break = fn(&mut SecretData);

#[test]
fn a_damaged_secret_says_what_is_wrong() {
    fn edit(data: &mut SecretData, name: &str, from: &str, to: &str) {
        let text = String::from_utf8(data[name].to_vec()).unwrap();
        assert!(text.contains(from), "{from} in {text}");
        data.insert(name.to_owned(), Zeroizing::new(text.replacen(from, to, 1).into_bytes()));
    }
    fn one(data: &SecretData, end: &str) -> String {
        let active = |name: &&String| {
            name.ends_with(end) && !name.starts_with("seal") && !name.ends_with(".jwt.key")
        };
        data.keys().find(active).unwrap().clone()
    }
    let state = |data: &mut SecretData, from: &str, to: &str| edit(data, "state.json", from, to);
    let cases: [(&str, Break); 9] = [
        ("state.json is missing", |data| drop(data.remove("state.json"))),
        ("seal.key is missing", |data| drop(data.remove("seal.key"))),
        ("seal has a wrong length", |data| {
            drop(data.insert("seal.key".into(), Zeroizing::default()))
        }),
        ("expected", |data| drop(data.insert("state.json".into(), Zeroizing::new(b"x".to_vec())))),
        (".key is missing", |data| drop(data.remove(&one(data, ".key")))),
        (".crt is missing", |data| drop(data.remove(&one(data, ".crt")))),
        (".roots is missing", |data| drop(data.remove(&one(data, ".roots")))),
        ("is not text", |data| drop(data.insert(one(data, ".crt"), Zeroizing::new(vec![0xff])))),
        ("no certificate found", |data| {
            drop(data.insert(one(data, ".crt"), Zeroizing::new(Vec::new())));
        }),
    ];
    let mut leader = Leader::new();
    leader.act();
    let good = encode(leader.state()).unwrap();
    for (reason, damage) in cases {
        let mut data = good.clone();
        damage(&mut data);
        let error = decode(&data, &domain(), leader.now).unwrap_err().to_string();
        assert!(error.contains(reason), "{reason}: {error}");
        assert!(!error.contains("PRIVATE"), "{error}");
    }
    let mut data = good.clone();
    state(&mut data, "\"version\": 2", "\"version\": 3");
    assert_eq!(decode(&data, &domain(), leader.now), Err(DocumentError::Version(3)));
    let other: TrustDomain = "other.org".parse().unwrap();
    let foreign = decode(&good, &other, leader.now);
    assert!(matches!(foreign, Err(DocumentError::TrustDomain { .. })));

    // Certificates of another CA under this one's name.
    let mut data = good.clone();
    let another = authority(DAY, start());
    for (end, text) in [
        (".crt", another.certificate_pem()),
        (".roots", another.certificate_pem()),
        (".key", another.key_pem().to_string()),
    ] {
        data.insert(one(&data, end), Zeroizing::new(text.into_bytes()));
    }
    let exchanged = decode(&data, &domain(), leader.now);
    assert!(matches!(exchanged, Err(DocumentError::Exchanged { .. })));
}

#[test]
fn two_active_cas_are_a_contradiction() {
    let mut leader = full();
    let mut state = leader.state().clone();
    let stage = leader.active().stage;
    for entry in &mut state.entries {
        if entry.is_prepared() {
            entry.stage = stage;
        }
    }
    let error = decode(&encode(&state).unwrap(), &domain(), leader.now).unwrap_err();
    assert_eq!(error, DocumentError::Contradiction("two CAs are active"));
    leader.act();
}
