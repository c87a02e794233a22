//! docs/policy.md says what the code does.

use std::{collections::BTreeSet, fs, path::Path};

use svid_csi::{controller::approver::ReasonCode, k8s::svid_policy_definition};

fn document() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/policy.md")).unwrap()
}

/// What stands between the first backquotes of each row of the tables after this heading.
fn rows<'d>(document: &'d str, heading: &str) -> Vec<&'d str> {
    let (_, after) = document.split_once(heading).unwrap_or_else(|| panic!("no {heading}"));
    let section = after.split_once("\n## ").map_or(after, |(section, _)| section);
    let first = |line: &'d str| line.strip_prefix("| `")?.split('`').next();
    section.lines().filter_map(first).collect()
}

#[test]
fn every_reason_is_explained_in_the_order_of_the_checks() {
    let document = document();
    let codes: Vec<_> = ReasonCode::ALL.iter().map(|reason| reason.as_str()).collect();
    assert_eq!(rows(&document, "\n## Why a request was denied\n"), codes);
}

#[test]
fn every_field_is_explained() {
    let definition = serde_json::to_value(svid_policy_definition()).unwrap();
    let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    let document = document();
    let rows = rows(&document, "\n## Fields\n");
    let explained: BTreeSet<_> =
        rows.iter().skip(1).map(|row| row.split('.').next().unwrap_or(row)).collect();
    let fields = schema["properties"]["spec"]["properties"].as_object().unwrap();
    assert_eq!(explained, fields.keys().map(String::as_str).collect());
}
