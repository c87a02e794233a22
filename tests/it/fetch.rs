//! `svid-csi fetch`, over real gRPC.

mod node;
mod server;

use std::{
    collections::HashMap,
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
    process::{Command, Stdio},
};

use serde_json::Value;
use svid_csi::pki::{PrivateKey, certificates_from_pem};
use tonic::Status;

use self::server::{ID, Said, Workload, good_svid};

/// What one call printed, and its exit status.
struct Ran {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

/// Makes of a good SVID a bad one.
type Spoil = fn(&mut svid_csi_proto::workload::X509svid);

fn command(socket: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_svid-csi"));
    command.arg("fetch").args(arguments).env_remove("NO_COLOR").stdin(Stdio::null());
    match socket {
        "" => command.env_remove("SPIFFE_ENDPOINT_SOCKET"),
        socket => command.env("SPIFFE_ENDPOINT_SOCKET", socket),
    };
    command
}

fn run(socket: &str, arguments: &[&str]) -> Ran {
    let output = command(socket, arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let ran = Ran {
        code: output.status.code(),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    };
    assert!(!ran.stderr.contains("panicked"), "{}", ran.stderr);
    ran
}

fn address(workload: &Workload) -> String {
    format!("unix://{}", workload.socket.display())
}

// === impl Ran ===

impl Ran {
    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {}", self.stdout))
    }

    #[track_caller]
    fn has(&self, code: i32, stdout: &[&str], stderr: &[&str]) {
        let shown = format!("{:?}\n{}\n{}", self.code, self.stdout, self.stderr);
        assert_eq!(self.code, Some(code), "{shown}");
        for part in stdout {
            assert!(self.stdout.contains(part), "{part} is not in {shown}");
        }
        for part in stderr {
            assert!(self.stderr.contains(part), "{part} is not in {shown}");
        }
    }
}

/// Invariant 1: a private key is printed only to who asks for it.
#[test]
fn an_x509_svid_is_verified_shown_and_written() {
    let said = Said::well();
    let foreign = good_svid().bundle;
    let mut response = said.x509[0].clone().unwrap();
    response.federated_bundles = HashMap::from([("spiffe://partner.example".into(), foreign)]);
    let workload = Workload::saying(Said { x509: vec![Ok(response)], ..said });
    let socket = address(&workload);

    let ran = run(&socket, &["x509"]);
    ran.has(
        0,
        &[ID, "verified against the bundle", "ecdsa-p256, the certificate's", "partner.example"],
        &[],
    );
    assert!(ran.stdout.contains("hint       internal"), "{}", ran.stdout);
    let json = run(&socket, &["x509", "-o", "json"]);
    assert!(!format!("{}{}", ran.stdout, json.stdout).contains("PRIVATE KEY"));
    let result = &json.json()["results"][0];
    assert_eq!(result["svid"]["spiffeId"], ID);
    assert!(result["federated"]["partner.example"].as_str().unwrap().contains("CERTIFICATE"));
    assert!(result.get("privateKey").is_none());
    let json = run(&socket, &["x509", "-o", "json", "--include-key"]).json();
    let key = PrivateKey::from_pem(json["results"][0]["privateKey"].as_str().unwrap()).unwrap();
    let chain =
        certificates_from_pem(json["results"][0]["certificates"].as_str().unwrap()).unwrap();
    assert_eq!(key.spki_der(), chain[0].spki_der());
    run(&socket, &["x509", "--include-key"]).has(64, &[], &["-o json"]);

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    fs::write(directory.path().join("svid.0.key"), "old").unwrap();
    run(&socket, &["x509", "--write", path]).has(0, &["svid.0.key"], &[]);
    let read = |name: &str| fs::read_to_string(directory.path().join(name)).unwrap();
    let mode = |name: &str| fs::metadata(directory.path().join(name)).unwrap().mode() & 0o7777;
    let key = PrivateKey::from_pem(&read("svid.0.key")).unwrap();
    assert_eq!(key.spki_der(), certificates_from_pem(&read("svid.0.pem")).unwrap()[0].spki_der());
    certificates_from_pem(&read("bundle.0.pem")).unwrap();
    certificates_from_pem(&read("federated.partner.example.pem")).unwrap();
    assert_eq!((mode("svid.0.key"), mode("svid.0.pem")), (0o600, 0o644));
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 4);
    let silent = run(&socket, &["x509", "--write", path, "--silent"]);
    assert_eq!((silent.code, silent.stdout.as_str()), (Some(0), ""));
    run(&socket, &["x509", "--write", "/nonexistent/x"]).has(1, &[], &["make it first"]);
}

#[test]
fn what_does_not_belong_together_is_told_and_not_written() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    let cases: [(Spoil, &str); 5] = [
        (|svid| svid.x509_svid_key = good_svid().x509_svid_key, "keyMismatch"),
        (|svid| svid.bundle = good_svid().bundle, "notChained"),
        (
            |svid| svid.spiffe_id = "spiffe://example.org/ns/shop/sa/other".into(),
            "identityMismatch",
        ),
        (|svid| svid.x509_svid = svid.x509_svid.slice(..100), "damaged"),
        (|svid| svid.x509_svid_key = Vec::new().into(), "damaged"),
    ];
    for (spoil, code) in cases {
        let mut said = Said::well();
        let response = said.x509[0].as_mut().unwrap();
        spoil(&mut response.svids[0]);
        let workload = Workload::saying(said);
        let ran = run(&address(&workload), &["x509", "-o", "json", "--write", path]);
        ran.has(1, &[code], &["nothing is written"]);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0, "{code}");
    }
}

#[test]
fn tokens_are_fetched_and_validated() {
    let said = Said::well();
    let token = said.jwt.as_ref().unwrap().svids[0].svid.clone();
    let workload = Workload::saying(said);
    let socket = address(&workload);
    run(&socket, &["jwt", "-a", "bank"]).has(
        0,
        &[ID, "  audience  bank\n", "in 4m 5", "signature verified", &token],
        &[],
    );
    let ran = run(&socket, &["jwt", "--audience", "bank", "-o", "token"]);
    assert_eq!(ran.stdout, format!("{token}\n"));
    let json = run(&socket, &["jwt", "--audience", "bank", "-o", "json"]).json();
    assert_eq!(json["svids"][0]["claims"]["aud"][0], "bank");
    // For another audience than it was asked for, or of a key that is in no bundle.
    run(&socket, &["jwt", "--audience", "bank,ledger"]).has(1, &[], &["not good"]);
    let foreign = Workload::saying(Said { jwt_bundles: Said::well().jwt_bundles, ..Said::well() });
    run(&address(&foreign), &["jwt", "-a", "bank", "-o", "json"]).has(
        1,
        &["\"verified\": false"],
        &["not good"],
    );
    run(&socket, &["jwt", "--audience", ""]).has(64, &[], &["--audience"]);
    run(&socket, &["jwt", "--audience", "x", "--spiffe-id", "nonsense"]).has(64, &[], &[]);

    run(&socket, &["validate", "--audience", "bank", &token]).has(
        1,
        &["not valid: the token has expired"],
        &[],
    );
    let mut command = command(&socket, &["validate", "-a", "bank", "-o", "json", "-"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(token.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &json["valid"]), (Some(1), &Value::Bool(false)));
}

#[test]
fn bundles_come_in_every_form() {
    let workload = Workload::saying(Said::well());
    let socket = address(&workload);
    run(&socket, &["bundle"]).has(0, &["example.org, 1 authority", "JWT key", "P-256, kid "], &[]);
    let pem = run(&socket, &["bundle", "-o", "pem"]);
    assert_eq!(certificates_from_pem(&pem.stdout).unwrap().len(), 1);
    let jwks = run(&socket, &["bundle", "-o", "jwks", "--trust-domain", "example.org"]).json();
    assert_eq!(jwks["keys"][0]["crv"], "P-256");
    run(&socket, &["bundle", "--trust-domain", "other.example"]).has(1, &[], &["no bundle"]);
    let directory = tempfile::tempdir().unwrap();
    run(&socket, &["bundle", "--write", directory.path().to_str().unwrap()]).has(0, &[], &[]);
    for name in ["example.org.pem", "example.org.jwks.json"] {
        let mode = fs::metadata(directory.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o644, "{name}");
    }

    // A signer without a JWT key: X.509 works.
    let said = Said {
        jwt: Err(Status::unimplemented("no key")),
        jwt_bundles: Err(Status::unimplemented("no key")),
        ..Said::well()
    };
    let workload = Workload::saying(said);
    let socket = address(&workload);
    run(&socket, &["bundle"]).has(0, &["1 authority", "no JWT bundles", "JWT key"], &[]);
    run(&socket, &["bundle", "-o", "jwks"]).has(1, &[], &["Unimplemented"]);
    run(&socket, &["jwt", "-a", "x"]).has(1, &[], &["Unimplemented: no key", "need a signer"]);
}

#[test]
fn a_watch_prints_every_update_and_ends_when_interrupted() {
    let good = || Ok(server::Said::well().x509[0].clone().unwrap());
    let workload = Workload::saying(Said { x509: vec![good(), good()], ..Said::well() });
    let mut command = command(&address(&workload), &["watch"]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for _ in 0..2 {
        let line = lines.next().unwrap().unwrap();
        assert!(line.contains(ID) && line.ends_with("  ok"), "{line}");
    }
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));

    let refused = Err(Status::invalid_argument("security header missing from request"));
    let workload = Workload::saying(Said { x509: vec![refused], ..Said::well() });
    run(&address(&workload), &["watch"]).has(1, &[], &["InvalidArgument"]);
}

#[test]
fn what_fails_says_what_to_do() {
    let refused = |status: Status| {
        let workload = Workload::saying(Said { x509: vec![Err(status)], ..Said::well() });
        run(&address(&workload), &["x509"])
    };
    refused(Status::permission_denied("no identity issued")).has(
        1,
        &[],
        &["PermissionDenied: no identity issued", "policy test"],
    );
    refused(Status::unavailable("starting")).has(1, &[], &["Unavailable: starting", "try again"]);
    // A server's words steer no terminal.
    let ran = refused(Status::unavailable("\u{1b}[2J"));
    assert!(!ran.stderr.contains('\u{1b}'), "{}", ran.stderr);

    let empty = Workload::saying(Said { x509: Vec::new(), ..Said::well() });
    run(&address(&empty), &["x509", "--timeout", "1s"]).has(1, &[], &["within 1 s", "--timeout"]);

    run("", &["x509"]).has(
        64,
        &[],
        &["--socket", "SPIFFE_ENDPOINT_SOCKET=unix:///svid/spiffe.sock"],
    );
    run("http://x", &["x509"]).has(64, &[], &["unix:///path"]);
    run("unix:///nonexistent/spiffe.sock", &["x509"]).has(1, &[], &["is the volume mounted here"]);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("spiffe.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let stale = |path: &Path| run(path.to_str().unwrap(), &["healthcheck"]);
    stale(&path).has(1, &[], &["nobody serves it now"]);
    // A server without the service is not healthy.
    let workload = Workload::saying(Said::well());
    run(&address(&workload), &["healthcheck"]).has(
        1,
        &[],
        &["Unimplemented", "does not have this"],
    );
}
