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
