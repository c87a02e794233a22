//! A CA that something else renews.

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use super::*;
use crate::controller::ca::request::Outcome;

/// A root that makes intermediates.
struct Root {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = start().time().into();
    params.not_after = start().after(DAY * 365).time().into();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    params
}

impl Root {
    fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let made = params(name).self_signed(&key).unwrap();
        let pem = made.pem();
        Self { issuer: Issuer::from_ca_cert_pem(&pem, key).unwrap(), pem }
    }

    fn intermediate(&self, name: &str, more_roots: &str) -> Arc<Authority> {
        let key = KeyPair::generate().unwrap();
        let made = params(name).signed_by(&key, &self.issuer).unwrap();
        let roots = format!("{}{more_roots}", self.pem);
        let loaded = Authority::from_pem(
            &domain(),
            &made.pem(),
            &key.serialize_pem(),
            Some(&roots),
            start().after(HOUR).time(),
        );
        Arc::new(loaded.unwrap())
    }
}

fn leader() -> Leader {
    let mut leader = Leader::new();
    leader.now = start().after(HOUR);
    leader
}

#[test]
fn an_intermediate_under_a_published_root_signs_at_once() {
    let root = Root::new("root");
    let mut leader = leader();
    leader.offer(&root.intermediate("one", ""));
    assert_eq!(leader.stages(), ["active"]);
    let (first, roots, sequence) = (leader.active_key(), leader.roots(), leader.state().sequence);
    leader.after(HOUR);
    leader.offer(&root.intermediate("two", ""));
    assert_eq!(leader.stages(), ["retired", "active"]);
    assert_ne!(leader.active_key(), first);
    assert_eq!((leader.roots(), leader.state().sequence), (roots, sequence), "the same bundle");
    leader.after(DAY + HOUR);
    assert_eq!(leader.stages(), ["active"]);
    assert!(leader.problems.is_empty());
}

/// Invariant 6.
#[test]
fn a_new_root_is_published_first_and_our_copy_of_the_old_key_signs_meanwhile() {
    let mut leader = leader();
    leader.offer(&authority(DAY * 30, leader.now));
    let first = leader.active_key();
    leader.after(HOUR);
    let second = authority(DAY * 30, leader.now);
    leader.offer(&second);
    assert_eq!(leader.stages(), ["active", "prepared"]);
    assert_eq!(leader.active_key(), first);
    assert!(leader.active().ca.authority.is_some());
    leader.after(PROPAGATION);
    assert_eq!(leader.stages(), ["retired", "active"]);
    assert_eq!(leader.active_key(), second.certificate().key_id_hex());

    // A root that is announced in ca.crt long before its first intermediate.
    let (old, new) = (Root::new("old"), Root::new("new"));
    leader.offer(&old.intermediate("one", &new.pem));
    leader.after(PROPAGATION);
    leader.offer(&new.intermediate("two", ""));
    assert_eq!(leader.active().ca.certificate.subject(), "CN=two", "its root is known to all");
}

#[test]
fn an_upstream_that_breaks_changes_nothing() {
    let mut leader = leader();
    leader.offer(&authority(DAY * 30, leader.now));
    let state = leader.state().clone();
    leader.world.upstream = Upstream::Unusable("tls.key does not belong".to_owned());
    leader.after(HOUR);
    assert_eq!(*leader.state(), state);
    assert_eq!(leader.problems, ["tls.key does not belong"]);
    // Its owner is late: nothing is made in its place.
    leader.after(DAY * 20);
    assert_eq!(leader.stages(), ["active"]);
    let (step, at) = leader.state().next_step(&leader.settings).unwrap();
    assert_eq!(step, "renew-upstream");
    assert_eq!(at, leader.active().sixths(5));
}

#[test]
fn what_is_put_back_before_it_signed_leaves_no_trace() {
    let mut leader = leader();
    let first = authority(DAY * 30, leader.now);
    leader.offer(&first);
    leader.offer(&authority(DAY * 30, leader.now));
    leader.offer(&authority(DAY * 30, leader.now));
    assert_eq!(leader.stages(), ["active", "prepared"]);
    leader.offer(&first);
    assert_eq!((leader.stages(), leader.roots().len()), (vec!["active"], 1));
}

#[test]
fn an_upstream_ca_that_comes_back_signs_again() {
    let mut leader = leader();
    let (first, second) = (authority(DAY * 30, leader.now), authority(DAY * 30, leader.now));
    leader.offer(&first).after(HOUR);
    leader.offer(&second).after(PROPAGATION);
    assert_eq!(leader.stages(), ["retired", "active"]);
    leader.after(HOUR);
    leader.offer(&first);
    assert_eq!(leader.stages(), ["active", "retired"]);
    assert!(leader.active().ca.authority.is_some());
}

#[test]
fn by_hand_the_upstream_ca_is_its_owners() {
    let mut leader = leader();
    leader.offer(&authority(DAY * 30, leader.now));
    let stolen = leader.active_key();
    let answer = leader.ask(Action::Rotate, None, false);
    assert_eq!(answer.outcome, Outcome::Refused);
    assert!(answer.message.contains("whatever renews that one"), "{}", answer.message);

    let answer = leader.ask(Action::Taint, Some(stolen.clone()), false);
    assert_eq!(answer.outcome, Outcome::Accepted);
    assert!(answer.message.contains("put a CA with a new key"), "{}", answer.message);
    assert!(!leader.problems.is_empty(), "the stolen key is still offered");
    leader.offer(&authority(DAY * 30, leader.now));
    leader.after(PROPAGATION);
    leader.after(HOUR);
    assert_eq!(leader.state().tainted(leader.now), [stolen]);
}

#[test]
fn from_our_own_ca_to_an_upstream_and_back() {
    let mut leader = leader();
    leader.act();
    let own = leader.active_key();
    leader.offer(&authority(DAY * 30, leader.now)).after(PROPAGATION);
    assert_ne!(leader.active_key(), own);
    leader.settings.upstream = None;
    leader.world.upstream = Upstream::NotUsed;
    leader.after(DAY * 20);
    assert_eq!(leader.stages(), ["active", "prepared"]);
    leader.after(PROPAGATION);
    assert_eq!(leader.stages(), ["retired", "active"]);
}
