//! The chart's CustomResourceDefinition is what the code reads.

use std::{env, fs, path::Path};

use serde_json::Value;
use svid_csi::k8s::svid_policy_definition;

const COPY: &str = "deploy/charts/svid-csi/files/svidpolicies.yaml";

#[test]
fn the_charts_definition_is_the_codes() {
    let definition = serde_json::to_value(svid_policy_definition()).unwrap();
    let mut yaml = String::from(
        "# Written by `UPDATE=1 cargo test --test it policy_crd` from src/k8s/svid_policy.rs.\n",
    );
    write(&mut yaml, &definition, 0);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(COPY);
    if env::var_os("UPDATE").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &yaml).unwrap();
    }
    let copy = fs::read_to_string(&path).unwrap_or_default();
    assert!(copy == yaml, "{COPY} is old: UPDATE=1 cargo test --test it policy_crd");
    let read: Value = serde_saphyr::from_str(&copy).expect("YAML");
    assert_eq!(read, definition);
}

/// The little of YAML that is needed: JSON with indentation.
fn write(yaml: &mut String, value: &Value, depth: usize) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (key, value) in map {
                yaml.push_str(&format!("{indent}{}:", scalar(key)));
                nested(yaml, value, depth + 1);
            }
        }
        Value::Array(list) if !list.is_empty() => {
            for value in list {
                yaml.push_str(&format!("{indent}-"));
                match value {
                    Value::Object(map) if !map.is_empty() => {
                        let mut item = String::new();
                        write(&mut item, value, depth + 1);
                        yaml.push(' ');
                        yaml.push_str(item.trim_start());
                    }
                    _ => nested(yaml, value, depth + 1),
                }
            }
        }
        _ => yaml.push_str(&format!("{indent}{}\n", plain(value))),
    }
}

fn nested(yaml: &mut String, value: &Value, depth: usize) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            yaml.push('\n');
            write(yaml, value, depth);
        }
        Value::Array(list) if !list.is_empty() => {
            yaml.push('\n');
            write(yaml, value, depth);
        }
        _ => yaml.push_str(&format!(" {}\n", plain(value))),
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => scalar(text),
        other => other.to_string(),
    }
}

fn scalar(text: &str) -> String {
    let words = text.chars().all(|c| c.is_ascii_alphanumeric() || " ./-".contains(c));
    let letter = text.chars().next().is_some_and(|c| c.is_ascii_alphabetic());
    let taken = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    match words && letter && !text.ends_with(' ') && !taken.contains(&text.to_lowercase().as_str())
    {
        true => text.to_owned(),
        false => Value::from(text).to_string(),
    }
}
