//! A test for each MUST and SHOULD of the SPIFFE standards that concerns a volume's socket, and
//! the table of them, `docs/conformance.md`. `UPDATE=1` writes it anew.

mod default_identity;
mod endpoint;
mod files;
mod jwt_profile;
mod jwt_svid;
mod stream_rules;
mod token;
mod x509_profile;

use std::{collections::BTreeSet, fmt::Write, fs, path::Path};

/// Which document a requirement is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standard {
    WorkloadEndpoint,
    WorkloadApi,
    X509Svid,
    JwtSvid,
}

/// RFC 2119.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Must,
    Should,
}

/// What a standard asks of us, and the test that we do it.
#[derive(Debug)]
pub struct Requirement {
    pub standard: Standard,
    pub section: &'static str,
    pub level: Level,
    pub text: &'static str,
    pub test: &'static str,
}

/// Makes a test of each requirement, and `REQUIREMENTS` of all in the file.
macro_rules! requirements {
    ($(
        $standard:ident $section:literal $level:ident $text:literal
        async fn $test:ident() $body:block
    )*) => {
        pub const REQUIREMENTS: &[$crate::conformance::Requirement] = &[$(
            $crate::conformance::Requirement {
                standard: $crate::conformance::Standard::$standard,
                section: $section,
                level: $crate::conformance::Level::$level,
                text: $text,
                test: concat!(module_path!(), "::", stringify!($test)),
            },
        )*];
        $(
            #[test]
            fn $test() {
                $crate::plugin::on_a_node(async || $body);
            }
        )*
    };
}
use requirements;

const ALL: [&[Requirement]; 7] = [
    endpoint::REQUIREMENTS,
    stream_rules::REQUIREMENTS,
    x509_profile::REQUIREMENTS,
    jwt_profile::REQUIREMENTS,
    default_identity::REQUIREMENTS,
    jwt_svid::REQUIREMENTS,
    files::REQUIREMENTS,
];

const HEAD: &str = "\
# Conformance with the SPIFFE standards

What the standards ask of a server of the Workload API, and the test that it is done. Each test
runs against a real volume's socket. This page is made from the tests
(`UPDATE=1 cargo test --test it conformance`), so it says nothing that is not run.

";

const TAIL: &str = "
## Deliberate deviations

| What | Why |
|---|---|
| Health, reflection and Envoy's secret discovery need no security header | Their clients do not send it: probes, grpcurl and Envoy would all be shut out. They are not the Workload API, and SPIRE does the same. None of them is reachable from a browser or by a forged HTTP/1.1 request: the socket speaks HTTP/2 with prior knowledge, on a Unix socket. |
| Bundles are streamed to a pod whose own SVID has expired, even after policy denied it a new one | Bundles are public, and the standard has them for clients that only verify others (Workload API §5.2.2). |
| Without a JWT key the three JWT calls answer Unimplemented | The standard lets an operator disable a profile (Workload API §1); the message says what to set. |
| WIT-SVIDs answer Unimplemented | The profile is optional and still incubating (Workload API §7). |
| No CRL is ever sent | The field is optional; no client known to us reads it. |
| Calls beyond a volume's limits answer Unavailable | It is what the standard calls load shedding (Workload Endpoint §6). |
";

impl Standard {
    fn name(self) -> &'static str {
        match self {
            Self::WorkloadEndpoint => "Workload Endpoint",
            Self::WorkloadApi => "Workload API",
            Self::X509Svid => "X509-SVID",
            Self::JwtSvid => "JWT-SVID",
        }
    }
}

fn all() -> Vec<&'static Requirement> {
    let mut all: Vec<_> = ALL.into_iter().flatten().collect();
    all.sort_by_key(|one| (one.standard, section(one.section), one.level));
    all
}

/// In the order of the document.
fn section(text: &str) -> Vec<u32> {
    text.split('.').map(|part| part.parse().unwrap()).collect()
}

fn document() -> String {
    let mut text = HEAD.to_owned();
    text.push_str("| Standard | § | Level | What is asked | Test |\n|---|---|---|---|---|\n");
    for Requirement { standard, section, level, text: asked, test } in all() {
        let level = match level {
            Level::Must => "MUST",
            Level::Should => "SHOULD",
        };
        let test = test.strip_prefix("it::conformance::").unwrap();
        let standard = standard.name();
        writeln!(text, "| {standard} | {section} | {level} | {asked} | `{test}` |").unwrap();
    }
    text.push_str(TAIL);
    text
}

#[test]
fn docs_conformance_is_what_is_tested() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/conformance.md");
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, document()).unwrap();
    }
    let text = fs::read_to_string(&path).unwrap_or_default();
    assert!(text == document(), "docs/conformance.md is old: UPDATE=1 writes it");
}

/// A test that is named after one section and entered for another would mislead.
#[test]
fn every_test_is_named_by_its_section() {
    let mut names = BTreeSet::new();
    for Requirement { standard, section, test, .. } in all() {
        let standard = standard.name().to_lowercase().replace([' ', '-'], "_");
        let prefix = format!("{standard}_{}_", section.replace('.', "_"));
        let name = test.rsplit("::").next().unwrap();
        assert!(name.starts_with(&prefix), "{name} should begin with {prefix}");
        assert!(names.insert(*test), "{name} is there twice");
    }
    assert!(names.len() > 30, "{}", names.len());
}
