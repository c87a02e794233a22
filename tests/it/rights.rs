//! What `docs/security.md` says the driver and the controller may do is what the chart gives them
//! (invariant 5 rests on it).

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use svid_csi::controller::approver::ReasonCode;

const SECURITY: &str = include_str!("../../docs/security.md");
/// What the chart renders by default, and with the local signer in every way.
const DEFAULTS: &str = include_str!("../chart/snapshots/defaults.yaml");
const LOCAL: &str = include_str!("../chart/snapshots/local.yaml");
const ALONE: &str = include_str!("../chart/snapshots/local-alone.yaml");
const BESIDE: &str = include_str!("../chart/snapshots/beside-local.yaml");

/// Who, where, what and which verbs.
type Right = [String; 4];

fn objects(rendered: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(rendered).unwrap()
}

fn texts(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

/// The rights that bindings give to ServiceAccounts, by the component that a binding belongs to.
fn rights(rendered: &str) -> BTreeSet<Right> {
    let objects = objects(rendered);
    let kind = |kind: &'static str| objects.iter().filter(move |object| object["kind"] == kind);
    let roles: BTreeMap<_, _> = ["Role", "ClusterRole"]
        .into_iter()
        .flat_map(|name| kind(name).map(move |role| ((name, &role["metadata"]["name"]), role)))
        .map(|((kind, name), role)| ((kind, name.as_str().unwrap()), role))
        .collect();
    let mut rights = BTreeSet::new();
    for binding in kind("RoleBinding").chain(kind("ClusterRoleBinding")) {
        let reference = &binding["roleRef"];
        let key = (reference["kind"].as_str().unwrap(), reference["name"].as_str().unwrap());
        for subject in binding["subjects"].as_array().unwrap() {
            assert_eq!(subject["kind"], "ServiceAccount", "{binding}");
            let account = subject["name"].as_str().unwrap();
            let who = if account.ends_with("-controller") { "controller" } else { "driver" };
            let everywhere = binding["kind"] == "ClusterRoleBinding";
            let place = if everywhere { "everywhere" } else { "own namespace" };
            for rule in roles[&key]["rules"].as_array().unwrap() {
                let verbs = texts(&rule["verbs"]).join(", ");
                for path in texts(&rule["nonResourceURLs"]) {
                    rights.insert([who, place, &what(path, &[]), &verbs].map(str::to_owned));
                }
                for resource in texts(&rule["resources"]) {
                    let what = what(resource, &texts(&rule["resourceNames"]));
                    rights.insert([who, place, &what, &verbs].map(str::to_owned));
                }
            }
        }
    }
    rights
}

fn what(resource: &str, names: &[&str]) -> String {
    match names {
        [] => format!("`{resource}`"),
        names => format!("`{resource}` `{}`", names.join("` `")),
    }
}

/// The rows of the table below a heading.
fn table(heading: &str) -> BTreeSet<Right> {
    let section = SECURITY.split(heading).nth(1).unwrap_or_else(|| panic!("no {heading}"));
    let rows = section.lines().skip_while(|line| !line.starts_with("|---")).skip(1);
    let mut rights = BTreeSet::new();
    for row in rows.take_while(|line| line.starts_with('|')) {
        let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [who, place, what, verbs, why] = cells[..] else { panic!("five cells: {row}") };
        assert!(!why.is_empty(), "why? {row}");
        assert!(rights.insert([who, place, what, verbs].map(str::to_owned)), "twice: {row}");
    }
    rights
}

#[test]
fn the_documented_rights_are_those_of_the_chart() {
    let (documented, rendered) = (table("### Rights"), rights(DEFAULTS));
    let undocumented: Vec<_> = rendered.difference(&documented).collect();
    assert!(undocumented.is_empty(), "not in docs/security.md: {undocumented:#?}");
    let imagined: Vec<_> = documented.difference(&rendered).collect();
    assert!(imagined.is_empty(), "not in the chart: {imagined:#?}");
}

#[test]
fn attacks_are_denied_for_reasons_that_exist() {
    let known: BTreeSet<_> = ReasonCode::ALL.iter().map(|code| code.as_str()).collect();
    let section = SECURITY.split("### What attackers try").nth(1).unwrap();
    let mut named = 0;
    for row in section.lines().take_while(|line| !line.starts_with("## ")) {
        let Some(seen) = row.strip_suffix(" |").and_then(|row| row.rsplit(" | ").next()) else {
            continue;
        };
        for code in seen.split('`').skip(1).step_by(2) {
            assert!(known.contains(code), "there is no reason {code}: {row}");
            named += 1;
        }
    }
    assert!(named > 15, "{named} reasons");
}

#[test]
fn nothing_may_do_anything_it_wants() {
    for right in rights(DEFAULTS).iter().chain(&rights(BESIDE)) {
        assert!(!right.iter().any(|cell| cell.contains('*')), "{right:?}");
    }
}

/// Invariant 5: a node's rights reach neither pods nor Secrets, nor another signer's business.
#[test]
fn the_driver_reads_no_pod_and_no_secret() {
    for [who, _, what, verbs] in rights(DEFAULTS).iter().chain(&rights(BESIDE)) {
        let resource = what.split('`').nth(1).unwrap();
        if who == "driver" {
            let allowed = ["certificatesigningrequests", "configmaps", "events"];
            assert!(allowed.contains(&resource), "{what} {verbs}");
            for verb in ["update", "deletecollection", "approve", "sign"] {
                assert!(!verbs.contains(verb), "{what} {verbs}");
            }
        }
    }
}

#[test]
fn with_the_local_signer_the_driver_writes_events_at_most() {
    let whats: Vec<_> = rights(LOCAL).into_iter().map(|[who, _, what, _]| (who, what)).collect();
    assert_eq!(whats, [("driver".to_owned(), "`events`".to_owned())]);
    assert_eq!(rights(ALONE), BTreeSet::new());
    let token = |rendered| {
        let objects = objects(rendered);
        let mut daemonsets = objects.iter().filter(|object| object["kind"] == "DaemonSet");
        let pod = &daemonsets.next().unwrap()["spec"]["template"]["spec"];
        pod["automountServiceAccountToken"].as_bool().unwrap()
    };
    assert_eq!((token(LOCAL), token(ALONE)), (true, false));
}

/// Invariant 5: with the cluster's signer no CA key is mounted on a node, and of the CA that was on
/// nodes the controller gets certificates only.
#[test]
fn no_ca_key_is_mounted() {
    for object in objects(DEFAULTS) {
        let volumes = &object["spec"]["template"]["spec"]["volumes"];
        for volume in volumes.as_array().into_iter().flatten() {
            assert!(volume["secret"].is_null(), "{volume}");
        }
    }
    let retiring = objects(BESIDE).into_iter().find(|object| object["kind"] == "Deployment");
    let retiring = &retiring.unwrap()["spec"]["template"]["spec"]["volumes"][0]["secret"];
    let keys: Vec<_> = retiring["items"].as_array().unwrap().iter().map(|i| &i["key"]).collect();
    assert_eq!(keys, ["tls.crt", "ca.crt"]);
}
