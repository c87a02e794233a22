//! `DeltaSecrets`.

use svid_csi_proto::{
    envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse},
    google::rpc,
};
use tonic::Code;

use super::*;
use crate::workload::sds::delta::Delta;

/// Subscribes to these and unsubscribes from those.
fn ask<const N: usize, const M: usize>(
    subscribe: [&str; N],
    unsubscribe: [&str; M],
) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        node: envoy(1, 40),
        resource_names_subscribe: strings(subscribe),
        resource_names_unsubscribe: strings(unsubscribe),
        ..DeltaDiscoveryRequest::default()
    }
}

/// What came: the names of what changed, and what was removed.
fn told(stream: &mut Delta, secrets: &Secrets) -> (Vec<String>, Vec<String>) {
    match stream.answer(secrets).unwrap() {
        Some(response) => (names(&response), response.removed_resources),
        None => (Vec::new(), Vec::new()),
    }
}

fn names(response: &DeltaDiscoveryResponse) -> Vec<String> {
    let secrets = response.resources.iter().map(|resource| {
        let name = secret(resource.resource.as_ref().unwrap()).name;
        assert_eq!(name, resource.name);
        name
    });
    secrets.collect()
}

fn nothing() -> (Vec<String>, Vec<String>) {
    (Vec::new(), Vec::new())
}

fn changed<const N: usize>(names: [&str; N]) -> (Vec<String>, Vec<String>) {
    (strings(names), Vec::new())
}

#[test]
fn only_what_changed_is_sent() {
    let before = secrets();
    let mut stream = Delta::default();
    assert_eq!(told(&mut stream, &before), nothing());
    stream.take(ask(["default", "ROOTCA"], [])).unwrap();
    assert_eq!(told(&mut stream, &before), changed(["ROOTCA", "default"]));
    assert_eq!(told(&mut stream, &before), nothing());
    let renewed = rotated(&before);
    assert_eq!(told(&mut stream, &renewed), changed(["default"]));
    assert_eq!(told(&mut stream, &another_ca(&renewed)), changed(["ROOTCA"]));
}

#[test]
fn subscriptions_come_and_go() {
    let secrets = secrets();
    let mut stream = Delta::default();
    stream.take(ask(["default"], [])).unwrap();
    assert_eq!(told(&mut stream, &secrets), changed(["default"]));
    stream.take(ask(["ALL"], [])).unwrap();
    assert_eq!(told(&mut stream, &secrets), changed(["ALL"]));
    stream.take(ask([], ["default", "never"])).unwrap();
    assert_eq!(told(&mut stream, &rotated(&secrets)), nothing());
    // Asked for again, it is sent again: the client has dropped it.
    stream.take(ask(["default"], [])).unwrap();
    assert_eq!(told(&mut stream, &secrets), changed(["default"]));
    stream.take(ask(["default"], [])).unwrap();
    assert_eq!(told(&mut stream, &secrets), changed(["default"]));
    // No name in a later request asks for nothing more.
    stream.take(ask([], [])).unwrap();
    assert_eq!(told(&mut stream, &secrets), nothing());
    stream.take(ask([], ["default", "ALL"])).unwrap();
    assert_eq!(told(&mut stream, &rotated(&secrets)), nothing());
}

#[test]
fn a_client_that_comes_back_gets_only_what_it_lacks() {
    let secrets = secrets();
    let mut stream = Delta::default();
    stream.take(ask(["default", "ROOTCA", "ALL"], [])).unwrap();
    let response = stream.answer(&secrets).unwrap().unwrap();
    let held = |name: &str| {
        let resource = response.resources.iter().find(|it| it.name == name).unwrap();
        (name.to_owned(), resource.version.clone())
    };
    let mut back = Delta::default();
    let versions = [held("default"), held("ROOTCA"), ("ALL".to_owned(), "old".to_owned())].into();
    let mut asked = ask(["default", "ROOTCA", "ALL"], []);
    asked.initial_resource_versions = versions;
    back.take(asked).unwrap();
    assert_eq!(told(&mut back, &secrets), changed(["ALL"]));
    assert_eq!(told(&mut back, &rotated(&secrets)), changed(["default"]));
}

#[test]
fn no_names_or_a_star_subscribe_to_all_entries() {
    let before = secrets();
    for asked in [ask([], []), ask(["*"], [])] {
        let mut stream = Delta::default();
        stream.take(asked).unwrap();
        assert_eq!(told(&mut stream, &before), changed([OWN, CART, PARTNER]));
        let after = alone(&before);
        assert_eq!(told(&mut stream, &after), (vec![], strings([PARTNER])));
        assert_eq!(told(&mut stream, &after), nothing());
        assert_eq!(told(&mut stream, &before), changed([PARTNER]));

        stream.take(ask(["ALL"], [])).unwrap();
        assert_eq!(told(&mut stream, &before), changed(["ALL"]));
        // A star leaves without what was named.
        stream.take(ask([], ["*"])).unwrap();
        assert_eq!(told(&mut stream, &another_ca(&before)), changed(["ALL"]));
        assert_eq!(told(&mut stream, &rotated(&another_ca(&before))), changed(["ALL"]));
    }
}

#[test]
fn what_is_unsubscribed_but_in_all_is_sent_again_and_what_is_not_is_removed() {
    let secrets = secrets();
    let mut stream = Delta::default();
    stream.take(ask(["*", "ALL", OWN], [])).unwrap();
    assert_eq!(told(&mut stream, &secrets), changed(["ALL", OWN, CART, PARTNER]));
    stream.take(ask([], ["ALL", OWN])).unwrap();
    assert_eq!(told(&mut stream, &secrets), (strings([OWN]), strings(["ALL"])));
    assert_eq!(told(&mut stream, &secrets), nothing());
}

#[test]
fn a_wildcard_that_comes_back_is_told_what_is_gone() {
    let secrets = secrets();
    let mut stream = Delta::default();
    let mut asked = ask([], []);
    asked.initial_resource_versions = [("spiffe://former.example".into(), "1".into())].into();
    stream.take(asked).unwrap();
    let told = told(&mut stream, &secrets);
    assert_eq!(told, (strings([OWN, CART, PARTNER]), strings(["spiffe://former.example"])));
}

#[test]
fn what_does_not_exist_is_removed_until_it_does() {
    let before = secrets();
    let mut stream = Delta::default();
    stream.take(ask([PARTNER, "spiffe://nobody.example"], [])).unwrap();
    let first = told(&mut stream, &before);
    assert_eq!(first, (strings([PARTNER]), strings(["spiffe://nobody.example"])));
    assert_eq!(told(&mut stream, &before), nothing());
    assert_eq!(told(&mut stream, &alone(&before)), (vec![], strings([PARTNER])));
    assert_eq!(told(&mut stream, &before), changed([PARTNER]));
}

#[test]
fn a_refusal_is_told_and_not_answered_until_a_change() {
    let before = secrets();
    let mut stream = Delta::default();
    stream.take(ask(["default"], [])).unwrap();
    let response = stream.answer(&before).unwrap().unwrap();
    let nack = DeltaDiscoveryRequest {
        response_nonce: response.nonce,
        error_detail: Some(rpc::Status { code: 13, message: "no".into() }),
        ..DeltaDiscoveryRequest::default()
    };
    assert_eq!(stream.take(nack.clone()).unwrap().unwrap().reason, "no");
    assert_eq!(told(&mut stream, &before), nothing());
    assert_eq!(told(&mut stream, &rotated(&before)), changed(["default"]));
    assert_eq!(stream.take(nack).unwrap(), None, "it is not about the newest");
}

#[test]
fn too_much_and_other_types_are_invalid() {
    let many = |from: usize| (from..from + 200).map(|n| format!("name-{n}")).collect::<Vec<_>>();
    let mut stream = Delta::default();
    let mut asked = ask([], []);
    asked.resource_names_subscribe = many(0);
    stream.take(asked.clone()).unwrap();
    asked.resource_names_subscribe = many(200);
    assert_eq!(stream.take(asked).unwrap_err().code(), Code::InvalidArgument);

    let mut endless = ask([], []);
    endless.initial_resource_versions =
        (0..257).map(|n| (format!("name-{n}"), String::new())).collect();
    let mut long = ask([], []);
    long.initial_resource_versions = [("name".to_owned(), "1".repeat(2049))].into();
    let mut other = ask(["default"], []);
    other.type_url = "type.googleapis.com/Cluster".into();
    for request in [endless, long, other, ask([&"x".repeat(2049)], [])] {
        assert_eq!(Delta::default().take(request).unwrap_err().code(), Code::InvalidArgument);
    }
}

/// DESIGN.md §6: never an expired SVID.
#[test]
fn a_stream_ends_when_the_svid_that_it_asks_for_is_gone() {
    let before = secrets();
    let gone = Secrets { svid: Err(Status::unavailable("expired")), ..before.clone() };
    for asked in [ask(["default"], []), ask([], [])] {
        let mut stream = Delta::default();
        stream.take(asked).unwrap();
        assert!(stream.answer(&before).unwrap().is_some());
        assert_eq!(stream.answer(&gone).err().unwrap().code(), Code::Unavailable);
    }
    let mut stream = Delta::default();
    stream.take(ask(["ROOTCA"], [])).unwrap();
    assert_eq!(told(&mut stream, &gone), changed(["ROOTCA"]));
}
