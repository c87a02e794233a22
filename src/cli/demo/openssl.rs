//! An independent verifier: nothing here knows how we make or check certificates.

use std::{
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};

/// One side of a TLS connection: a directory with `tls.crt`, `tls.key` and `ca.crt`.
pub(super) struct Party {
    pub(super) spiffe_id: String,
    pub(super) set: PathBuf,
}

/// Its version. An error that says what to install if it is missing.
pub(super) fn version() -> Result<String> {
    match openssl().arg("version").output() {
        Ok(output) if output.status.success() => {
            let version = String::from_utf8_lossy(&output.stdout).into_owned();
            let words: Vec<_> = version.split_whitespace().take(2).collect();
            Ok(words.join(" "))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => bail!(
            "openssl is missing: it is the demo's independent verifier; apt-get install openssl"
        ),
        Ok(output) => bail!("openssl does not work: {}", output.status),
        Err(error) => Err(error).context("run openssl"),
    }
}

/// `openssl verify` of a set, for both sides of TLS; the SPIFFE ID it finds.
pub(super) fn verify(set: &Path) -> Result<String> {
    let certificate = set.join("tls.crt");
    for purpose in ["sslserver", "sslclient"] {
        run(
            openssl()
                .args(["verify", "-x509_strict", "-purpose", purpose, "-CAfile"])
                .arg(set.join("ca.crt"))
                .arg("-untrusted")
                .arg(&certificate)
                .arg(&certificate),
            &[],
        )?;
    }
    let pem = std::fs::read(&certificate)?;
    spiffe_id(&pem)
}

/// The one URI of a certificate's subjectAltName.
pub(super) fn spiffe_id(pem: &[u8]) -> Result<String> {
    let mut x509 = openssl();
    let text = run(x509.args(["x509", "-noout", "-ext", "subjectAltName"]), pem)?;
    let names: Vec<_> = text.lines().skip(1).flat_map(|line| line.split(", ")).collect();
    match names.as_slice() {
        [name] => {
            let uri = name.trim().strip_prefix("URI:");
            Ok(uri.context("the name is not a URI")?.to_owned())
        }
        names => bail!("{} names instead of one", names.len()),
    }
}

/// Makes a set whose certificate is signed by its own key and claims `spiffe_id`; `ca` is the
/// bundle by which it checks others.
pub(super) fn forge(set: PathBuf, spiffe_id: &str, ca: &Path) -> Result<Party> {
    std::fs::create_dir(&set)?;
    std::fs::copy(ca, set.join("ca.crt"))?;
    run(
        openssl()
            .args(["req", "-x509", "-newkey", "ec", "-nodes", "-subj", "/CN=mallory"])
            .args(["-pkeyopt", "ec_paramgen_curve:P-256", "-days", "1"])
            .arg("-addext")
            .arg(format!("subjectAltName=URI:{spiffe_id}"))
            .arg("-keyout")
            .arg(set.join("tls.key"))
            .arg("-out")
            .arg(set.join("tls.crt")),
        &[],
    )?;
    Ok(Party { spiffe_id: spiffe_id.to_owned(), set })
}

/// The machine's own roots and configuration are out of the game.
pub(super) fn openssl() -> Command {
    let mut command = Command::new("openssl");
    command
        .env("SSL_CERT_FILE", "/dev/null")
        .env("SSL_CERT_DIR", "/nonexistent")
        .env_remove("OPENSSL_CONF")
        .env("LC_ALL", "C");
    command
}

/// Runs it to its end: its output, or an error with what it complained about.
fn run(command: &mut Command, input: &[u8]) -> Result<String> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("run openssl")?;
    if let Some(mut stdin) = child.stdin.take() {
        // It may not care for any.
        let _ = stdin.write_all(input);
    }
    let output = child.wait_with_output()?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "openssl: {}", complaint.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
