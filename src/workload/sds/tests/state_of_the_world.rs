//! `StreamSecrets` and `FetchSecrets`.

use svid_csi_proto::{
    envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse},
    google::rpc,
};
use tonic::Code;

use super::*;
use crate::workload::sds::state_of_the_world::{StateOfTheWorld, fetch};

fn ask<const N: usize>(names: [&str; N]) -> DiscoveryRequest {
    DiscoveryRequest {
        resource_names: strings(names),
        node: envoy(1, 40),
        ..DiscoveryRequest::default()
    }
}

/// What a client says that took this response and asks for these names from now on.
fn ack<const N: usize>(response: &DiscoveryResponse, names: [&str; N]) -> DiscoveryRequest {
    DiscoveryRequest {
        version_info: response.version_info.clone(),
        response_nonce: response.nonce.clone(),
        resource_names: strings(names),
        type_url: response.type_url.clone(),
        ..DiscoveryRequest::default()
    }
}

fn names(response: &DiscoveryResponse) -> Vec<String> {
    response.resources.iter().map(|resource| secret(resource).name).collect()
}

fn opened<const N: usize>(
    names: [&str; N],
    secrets: &Secrets,
) -> (StateOfTheWorld, DiscoveryResponse) {
    let mut stream = StateOfTheWorld::default();
    assert_eq!(stream.take(ask(names)).unwrap(), None);
    let first = stream.answer(secrets).unwrap().unwrap();
    (stream, first)
}

#[test]
fn nothing_is_sent_before_something_is_asked_for() {
    assert!(StateOfTheWorld::default().answer(&secrets()).unwrap().is_none());
}

#[test]
fn no_names_are_all_entries() {
    let secrets = secrets();
    for asked in
        [ask([]), DiscoveryRequest { resource_names: strings([""]), ..ask([]) }, ask(["*"])]
    {
        let mut stream = StateOfTheWorld::default();
        stream.take(asked.clone()).unwrap();
        let all = stream.answer(&secrets).unwrap().unwrap();
        assert_eq!(names(&all), [OWN, CART, PARTNER]);
        assert_eq!(names(&fetch(asked, &secrets).unwrap()), [OWN, CART, PARTNER]);
    }
}

#[test]
fn a_change_is_sent_once_and_equal_content_never() {
    let before = secrets();
    let (mut stream, first) = opened(["default"], &before);
    assert!(stream.answer(&before).unwrap().is_none());
    stream.take(ack(&first, ["default"])).unwrap();
    assert!(stream.answer(&before).unwrap().is_none(), "an ACK is not answered");
    assert!(stream.answer(&another_ca(&before)).unwrap().is_none(), "not what was asked for");

    let after = rotated(&before);
    let second = stream.answer(&after).unwrap().unwrap();
    assert_ne!(second.version_info, first.version_info);
    assert_ne!(second.nonce, first.nonce);
    assert_ne!(
        certificate(&secret(&second.resources[0])),
        certificate(&secret(&first.resources[0]))
    );
    assert!(stream.answer(&after).unwrap().is_none());
}

#[test]
fn another_stream_gets_the_same_version_for_the_same_content() {
    let secrets = secrets();
    let (_, one) = opened(["default", "ROOTCA"], &secrets);
    let (_, other) = opened(["ROOTCA", "default", "default"], &secrets);
    assert_eq!(one.version_info, other.version_info);
    // A client that comes back with a version may lack what it names now.
    let mut back = StateOfTheWorld::default();
    let asked = DiscoveryRequest { version_info: one.version_info, ..ask(["default", "ROOTCA"]) };
    back.take(asked).unwrap();
    assert!(back.answer(&secrets).unwrap().is_some());
}

#[test]
fn a_refusal_is_told_and_not_answered_until_a_change() {
    let before = secrets();
    let (mut stream, first) = opened(["default"], &before);
    let error = rpc::Status { code: 3, message: format!("bad\nkey {}", "x".repeat(10_000)) };
    let nack = DiscoveryRequest {
        version_info: String::new(),
        error_detail: Some(error),
        ..ack(&first, ["default"])
    };
    let rejection = stream.take(nack.clone()).unwrap().unwrap();
    assert!(rejection.reason.starts_with("bad key xx") && rejection.reason.len() == 200);
    assert!(stream.answer(&before).unwrap().is_none());
    assert!(stream.answer(&rotated(&before)).unwrap().is_some());
    assert_eq!(stream.take(nack).unwrap(), None, "it is not about the newest");
}

#[test]
fn a_stale_nonce_is_ignored() {
    let secrets = secrets();
    let (mut stream, first) = opened(["default"], &secrets);
    let second = stream.answer(&rotated(&secrets)).unwrap().unwrap();
    stream.take(ack(&first, ["ROOTCA"])).unwrap();
    stream.take(DiscoveryRequest { response_nonce: "99".into(), ..ask(["ALL"]) }).unwrap();
    let mut without = ack(&second, ["ALL"]);
    without.response_nonce = String::new();
    stream.take(without).unwrap();
    let answer = stream.answer(&self::rotated(&secrets)).unwrap().unwrap();
    assert_eq!(names(&answer), ["default"]);
    stream.take(ack(&answer, ["ROOTCA"])).unwrap();
    assert_eq!(names(&stream.answer(&secrets).unwrap().unwrap()), ["ROOTCA"]);
}

#[test]
fn names_may_change_and_what_is_asked_for_again_is_sent_again() {
    let secrets = secrets();
    let (mut stream, first) = opened(["default"], &secrets);
    stream.take(ack(&first, ["default", "ALL"])).unwrap();
    let both = stream.answer(&secrets).unwrap().unwrap();
    assert_eq!(names(&both), ["ALL", "default"]);
    // No names, once there were some, are none at all.
    stream.take(ack(&both, [])).unwrap();
    assert!(stream.answer(&rotated(&secrets)).unwrap().is_none());
    stream.take(ack(&both, ["default", "ALL"])).unwrap();
    assert_eq!(names(&stream.answer(&secrets).unwrap().unwrap()), ["ALL", "default"]);
}

#[test]
fn the_version_of_the_client_counts_and_is_remembered() {
    let secrets = secrets();
    let plain = |node| {
        let asked = DiscoveryRequest { node, ..ask(["ROOTCA"]) };
        let mut stream = StateOfTheWorld::default();
        stream.take(asked.clone()).unwrap();
        let first = stream.answer(&secrets).unwrap().unwrap();
        assert_eq!(first.resources, fetch(asked, &secrets).unwrap().resources);
        // Later requests of an Envoy need not say it again.
        stream.take(ack(&first, ["ROOTCA", "default"])).unwrap();
        let second = stream.answer(&secrets).unwrap().unwrap();
        assert_eq!(first.resources[0], second.resources[0]);
        context(&secret(&first.resources[0])).trusted_ca.is_some()
    };
    let versions = [envoy(1, 17), envoy(0, 40), Some(Node::default()), None];
    assert!(versions.into_iter().all(plain));
    let versions = [envoy(1, 18), envoy(1, 40), envoy(2, 0)];
    assert!(!versions.into_iter().any(plain));
}

#[test]
fn unknown_names_and_too_many_and_other_types_are_invalid() {
    let secrets = secrets();
    let hundreds = (0..257).map(|n| format!("name-{n}")).collect();
    let bad = [
        ask(["default", "spiffe://example.org/ns/shop/sa/other"]),
        ask(["default", ""]).clone(),
        DiscoveryRequest { resource_names: hundreds, ..ask([]) },
        ask([&"x".repeat(2049)]),
        DiscoveryRequest { type_url: "type.googleapis.com/Cluster".into(), ..ask(["default"]) },
    ];
    for (index, request) in bad.into_iter().enumerate() {
        let mut stream = StateOfTheWorld::default();
        let taken = stream.take(request.clone()).and_then(|_| stream.answer(&secrets));
        if index == 1 {
            assert_eq!(names(&taken.unwrap().unwrap()), ["default"], "an empty name is no name");
            continue;
        }
        assert_eq!(taken.err().unwrap().code(), Code::InvalidArgument, "{index}");
        let fetched = fetch(request, &secrets).err().unwrap();
        assert_eq!(fetched.code(), Code::InvalidArgument, "{index}");
    }
}

/// DESIGN.md §6: never an expired SVID; a stream that names none goes on.
#[test]
fn a_stream_ends_when_the_svid_that_it_asks_for_is_gone() {
    let before = secrets();
    let gone = Secrets { svid: Err(Status::unavailable("expired")), ..before.clone() };
    for asked in [vec!["default"], vec![CART, "ROOTCA"], vec![]] {
        let mut stream = StateOfTheWorld::default();
        let asked = asked.into_iter().map(str::to_owned).collect();
        stream.take(DiscoveryRequest { resource_names: asked, ..ask([]) }).unwrap();
        assert!(stream.answer(&before).unwrap().is_some());
        assert_eq!(stream.answer(&gone).err().unwrap().code(), Code::Unavailable);
    }
    let (mut stream, _) = opened(["ROOTCA", "ALL", PARTNER], &before);
    assert!(stream.answer(&gone).unwrap().is_none());
}
