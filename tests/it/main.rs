//! The integration tests, in one binary so that they link once.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    missing_docs,
    unreachable_pub,
    reason = "tests are nobody's interface, and clippy knows test functions only by their attribute"
)]

mod agent;
mod api_server;
mod bad_requests;
mod calls;
mod clients;
mod conformance;
mod container;
mod controller;
mod crash;
mod csr;
mod demo;
mod dropped;
mod fetch;
mod hostile;
mod in_process;
mod inspect;
mod invariants;
mod isolation;
mod issuer;
mod issuing;
mod jwt_files;
mod layering;
mod local_ca;
mod monitoring;
mod no_ca;
mod plugin;
mod policy_crd;
mod policy_reference;
mod policy_test;
mod process;
mod reader;
mod recovery;
mod rights;
mod sanity;
mod secrets;
mod sockets;
mod steps;
mod taint;
mod tampered;
mod volume;
mod volume_reference;
mod workload_api;
