//! The clients: how each is run, what must come of it, and which version its manifest pins.

use std::{fs, path::Path};

/// A program that runs as long as the test.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// Its ServiceAccount.
    pub name: &'static str,
    /// Below tests/clients.
    pub directory: &'static str,
    /// `/programs` is what tests/clients/build made, `/sources` its directory.
    pub command: &'static [&'static str],
    pub ttl: &'static str,
    /// Its ways to follow its SVID: each must see every rotation.
    pub follows: &'static [&'static str],
    /// Its ways to validate a token. A client without one takes no JWT, and follows no bundles by
    /// themselves.
    pub validates: &'static [&'static str],
    /// Whether it ends with its connection: then nobody expects it back.
    pub one_shot: bool,
}

/// A row of the table in docs/clients.md.
pub struct Row {
    pub client: &'static str,
    pub version: String,
    pub registry: &'static str,
    pub run: &'static str,
    /// In the order of [`COLUMNS`].
    pub results: [&'static str; 5],
}

pub const COLUMNS: [&str; 5] = ["X.509", "JWT", "3 rotations", "new CA", "SIGKILL"];

const YES: &str = "yes";

/// Those that only follow. Their SVIDs live for the shortest time there is.
pub const FOLLOWERS: [Spec; 6] = [
    Spec {
        name: "go-spiffe",
        directory: "go",
        command: &["/programs/client", "follow"],
        ttl: "10s",
        follows: &["watch", "source"],
        validates: &["server", "bundle"],
        one_shot: false,
    },
    Spec {
        name: "rust-spiffe",
        directory: "rust",
        command: &["/programs/debug/spiffe-client"],
        ttl: "10s",
        follows: &["source", "stream"],
        validates: &["server", "bundle"],
        one_shot: false,
    },
    Spec {
        name: "py-spiffe",
        directory: "python",
        command: &["/programs/bin/python", "/sources/client.py"],
        ttl: "10s",
        follows: &["watch", "source"],
        validates: &["server", "bundle"],
        one_shot: false,
    },
    Spec {
        name: "java-spiffe",
        directory: "java",
        command: &["/usr/bin/java", "-cp", "/programs/*", "/sources/Client.java"],
        ttl: "10s",
        follows: &["watch", "source"],
        validates: &["server", "bundle"],
        one_shot: false,
    },
    Spec {
        name: "grpc-js",
        directory: "node",
        command: &[
            "/usr/bin/env",
            "NODE_PATH=/programs/node_modules",
            "/usr/bin/node",
            "/sources/client.js",
            "/proto/workload.proto",
        ],
        ttl: "10s",
        follows: &["stream"],
        validates: &["server"],
        one_shot: false,
    },
    Spec {
        name: "grpcurl",
        directory: "grpcurl",
        command: &[
            "/programs/grpcurl",
            "-plaintext",
            "-H",
            "workload.spiffe.io: true",
            "unix:///svid/spiffe.sock",
            "SpiffeWorkloadAPI/FetchX509SVID",
        ],
        ttl: "10s",
        follows: &["stream"],
        validates: &[],
        one_shot: true,
    },
];

/// The two ends of go-spiffe's mutual TLS. Longer than the others live their SVIDs, so that none
/// ends while the plugin is away.
pub const SERVER: Spec = Spec {
    name: "go-server",
    directory: "go",
    command: &["/programs/client", "serve"],
    ttl: "15s",
    follows: &["source"],
    validates: &[],
    one_shot: false,
};
pub const CALLER: Spec =
    Spec { name: "go-caller", command: &["/programs/client", "call"], ..SERVER };

pub fn rows() -> Vec<Row> {
    let all = [YES; 5];
    vec![
        Row {
            client: "go-spiffe",
            version: pinned("go/go.mod", "github.com/spiffe/go-spiffe/v2 v"),
            registry: "Go module `github.com/spiffe/go-spiffe/v2`",
            run: "`X509Source`, `JWTSource`, `WatchX509Context`, `WatchX509Bundles`, `WatchJWTBundles`",
            results: all,
        },
        Row {
            client: "go-spiffe, mutual TLS",
            version: pinned("go/go.mod", "github.com/spiffe/go-spiffe/v2 v"),
            registry: "the same, with grpc-go",
            run: "two volumes' identities over HTTP and gRPC, kept and new connections, by SPIFFE ID; no call failed",
            results: [YES, "–", YES, YES, YES],
        },
        Row {
            client: "rust-spiffe",
            version: pinned("rust/Cargo.toml", "spiffe = { version = \"="),
            registry: "crate `spiffe`",
            run: "`X509Source`, `JwtSource`, `stream_x509_contexts`",
            results: all,
        },
        Row {
            client: "py-spiffe",
            version: pinned("python/requirements.txt", "spiffe=="),
            registry: "PyPI `spiffe`",
            run: "`X509Source`, `JwtSource`, `stream_x509_contexts`, `fetch_x509_bundles`; C-core: grpcio",
            results: all,
        },
        Row {
            client: "java-spiffe",
            version: pinned("java/pom.xml", "<java-spiffe.version>"),
            registry: "Maven `io.spiffe:java-spiffe-provider`, `io.spiffe:grpc-netty-linux`",
            run: "`DefaultX509Source`, `DefaultJwtSource`, `watchX509Context`, `watchX509Bundles`, `watchJwtBundles`; netty with epoll",
            results: all,
        },
        Row {
            client: "grpc-js",
            version: pinned("node/package.json", "\"@grpc/grpc-js\": \""),
            registry: "npm `@grpc/grpc-js`, `@grpc/proto-loader`",
            run: "the standard's .proto, all five calls",
            results: all,
        },
        Row {
            client: "grpcurl",
            version: pinned("grpcurl/go.mod", "github.com/fullstorydev/grpcurl v"),
            registry: "Go module `github.com/fullstorydev/grpcurl`",
            run: "`list`, `describe` and calls by reflection, health, `FetchX509SVID` as a stream",
            results: [
                YES,
                YES,
                YES,
                YES,
                "ends with its connection, as it should; works when run again",
            ],
        },
    ]
}

/// The version that stands in a manifest after these words.
fn pinned(manifest: &str, after: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(manifest);
    let text = fs::read_to_string(path).unwrap();
    let line = text.lines().find_map(|line| {
        line.trim_start()
            .split_once(after)
            .filter(|(before, _)| before.is_empty() || *before == "require ")
    });
    let version = |c: &char| c.is_ascii_alphanumeric() || ".-+".contains(*c);
    line.unwrap_or_else(|| panic!("{manifest} pins no {after}"))
        .1
        .chars()
        .take_while(version)
        .collect()
}
