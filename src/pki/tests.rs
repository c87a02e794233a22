//! Tests of the certificates as a whole.
