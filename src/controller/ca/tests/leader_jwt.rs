//! The JWT keys on replicas that follow and lead.

use tokio::time::sleep;

use super::{leader::*, *};
use crate::controller::ca::Outcome;

/// RSA by default, made beside the runtime; the others follow it.
#[tokio::test(start_paused = true)]
async fn the_leader_makes_an_rsa_key_and_the_others_sign_with_it() {
    let mut replicas = Replicas::new();
    let (leader, follower) = (replicas.start(true), replicas.start(false));
    sleep(LOOK).await;
    let sign = |replica: &Replica| replica.keyring.signing_jwt(replicas.now()).unwrap();
    let key = sign(&leader);
    assert_eq!(key.authority().describe(), "rsa-2048");
    assert_eq!(key.key_id(), sign(&follower).key_id());
    let bundle = follower.keyring.bundle().unwrap();
    assert_eq!(bundle.jwt_authorities().to_vec(), [key.authority().clone()]);
    // What nodes take from the ConfigMap.
    let map = replicas.api.get(MAP).unwrap();
    let (bundle, tainted) = (map["data"]["bundle.json"].as_str(), map["data"]["tainted"].as_str());
    let taken = crate::trust::PublishedTrust::parse(&domain(), bundle, tainted).unwrap();
    assert_eq!(taken.bundle.jwt_authorities().to_vec(), [key.authority().clone()]);
    assert!(!map.to_string().contains("PRIVATE"));
}

#[tokio::test(start_paused = true)]
async fn a_rotation_of_the_jwt_key_survives_leaders_that_die() {
    let mut replicas = Replicas::new();
    let one = replicas.start(true);
    let follower = replicas.start(false);
    sleep(LOOK).await;
    let first = follower.keyring.signing_jwt(replicas.now()).unwrap().key_id().to_owned();
    assert_eq!(replicas.ask("rotate-jwt").await.outcome, Outcome::Accepted);
    one.stop.cancel();
    sleep(PROPAGATION).await;
    let status = replicas.status();
    let states: Vec<_> = status.jwt_keys.iter().map(|key| key.state.as_str()).collect();
    assert_eq!(states, ["active", "prepared"], "nobody leads");
    let two = replicas.start(true);
    sleep(LOOK).await;
    assert_eq!(replicas.status().last_request.unwrap().outcome, Outcome::Done);
    sleep(LOOK).await;
    for replica in [&follower, &two] {
        let key = replica.keyring.signing_jwt(replicas.now()).unwrap();
        let status = replicas.status();
        let published: Vec<_> = status.jwt_keys.iter().map(|key| key.key_id.clone()).collect();
        assert!(published.contains(&key.key_id().to_owned()));
    }
    assert_ne!(follower.keyring.signing_jwt(replicas.now()).unwrap().key_id(), first);
}
