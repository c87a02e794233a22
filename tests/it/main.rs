//! The integration tests, in one binary so that they link once.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "clippy knows test functions, but not the functions they call"
)]

mod layering;
mod sanity;
