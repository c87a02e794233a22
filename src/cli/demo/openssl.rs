//! An independent verifier: nothing here knows how we make or check certificates.

use std::{
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};

use super::process::Process;

/// How long a TLS peer may take for anything.
const PATIENCE: Duration = Duration::from_secs(15);
const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

/// One side of a TLS connection: a directory with `tls.crt`, `tls.key` and `ca.crt`.
pub(super) struct Party {
    pub(super) spiffe_id: String,
    pub(super) set: PathBuf,
}

/// What came of a handshake in which each side demanded the other's certificate.
pub(super) struct Meeting {
    /// The protocol and cipher, as OpenSSL names them.
    pub(super) protocol: String,
    /// The SPIFFE ID in the certificate that the server verified.
    pub(super) client: String,
    /// The SPIFFE ID in the certificate that the client verified.
    pub(super) server: String,
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
fn spiffe_id(pem: &[u8]) -> Result<String> {
    let mut x509 = openssl();
    let text = run(x509.args(["x509", "-noout", "-ext", "subjectAltName"]), pem)?;
    let names: Vec<_> = text
        .lines()
        .skip(1)
        .flat_map(|line| line.split(", "))
        .collect();
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
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-nodes",
                "-subj",
                "/CN=mallory",
            ])
            .args(["-pkeyopt", "ec_paramgen_curve:P-256", "-days", "1"])
            .arg("-addext")
            .arg(format!("subjectAltName=URI:{spiffe_id}"))
            .arg("-keyout")
            .arg(set.join("tls.key"))
            .arg("-out")
            .arg(set.join("tls.crt")),
        &[],
    )?;
    Ok(Party {
        spiffe_id: spiffe_id.to_owned(),
        set,
    })
}

/// Mutual TLS over loopback: both sides verify, a message goes each way.
pub(super) async fn meet(server: &Party, client: &Party) -> Result<Meeting> {
    let question = format!("hello from {}", client.spiffe_id);
    let answer = format!("welcome, {}", client.spiffe_id);
    let (mut listening, port) = listen(server).await?;
    let mut calling = call(client, port)?;
    say(&mut calling, &question)?;
    let heard = |text: &'static str, message: String| {
        move |output: &str| output.contains(&message).then_some(text)
    };
    // A server that refuses says why; the client hears only an alert.
    listening
        .wrote(PATIENCE, heard("question", question))
        .await?;
    say(&mut listening, &answer)?;
    calling.wrote(PATIENCE, heard("answer", answer)).await?;
    calling.close_stdin();
    for process in [&mut calling, &mut listening] {
        let status = process.end(PATIENCE).await?;
        ensure!(status.success(), "the TLS session ended with {status}");
    }
    let output = calling.stdout();
    ensure!(
        output.contains("Verify return code: 0 (ok)"),
        "the client did not verify the server"
    );
    let protocol = output
        .lines()
        .find_map(|line| line.strip_prefix("New, "))
        .unwrap_or("TLS")
        .replace("Cipher is ", "");
    Ok(Meeting {
        protocol,
        client: peer(&listening)?,
        server: peer(&calling)?,
    })
}

/// A handshake that must fail; OpenSSL's reason.
pub(super) async fn refuse(server: &Party, client: &Party) -> Result<String> {
    let (mut listening, port) = listen(server).await?;
    let mut calling = call(client, port)?;
    say(&mut calling, "let me in")?;
    let heard = listening.wrote(PATIENCE, |output| {
        output.contains("let me in").then_some(())
    });
    let Err(error) = heard.await else {
        bail!(
            "the server talked to {}, whose certificate is forged",
            client.spiffe_id
        );
    };
    let text = error.to_string();
    let reason = text
        .lines()
        .find_map(|line| line.split_once("verify error:"))
        .and_then(|(_, reason)| reason.split_once(':'));
    match reason {
        Some((_, reason)) => Ok(reason.trim().to_owned()),
        None => Err(error),
    }
}

async fn listen(server: &Party) -> Result<(Process, u16)> {
    let mut command = openssl();
    command
        .args(["s_server", "-accept", "127.0.0.1:0", "-naccept", "1"])
        .args(["-num_tickets", "0", "-Verify", "3"]);
    let mut process = Process::start("openssl s_server", present(&mut command, server))?;
    let port = process.wrote(PATIENCE, |output| {
        let line = output.lines().find(|line| line.starts_with("ACCEPT"))?;
        line.rsplit_once(':')?.1.trim().parse().ok()
    });
    let port = port.await?;
    Ok((process, port))
}

fn call(client: &Party, port: u16) -> Result<Process> {
    let mut command = openssl();
    command
        .args(["s_client", "-noservername", "-verify", "3", "-connect"])
        .arg(format!("127.0.0.1:{port}"));
    Process::start("openssl s_client", present(&mut command, client))
}

/// What a party shows and whom it trusts: nothing unverified, nobody else.
fn present<'a>(command: &'a mut Command, party: &Party) -> &'a mut Command {
    command
        .arg("-verify_return_error")
        .arg("-cert")
        .arg(party.set.join("tls.crt"))
        .arg("-key")
        .arg(party.set.join("tls.key"))
        .arg("-CAfile")
        .arg(party.set.join("ca.crt"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
}

fn say(process: &mut Process, message: &str) -> Result<()> {
    let stdin = process.stdin().context("no standard input")?;
    Ok(writeln!(stdin, "{message}")?)
}

/// The SPIFFE ID of the certificate that the other side showed.
fn peer(process: &Process) -> Result<String> {
    let output = process.stdout();
    let pem = output
        .split_once(BEGIN)
        .and_then(|(_, rest)| rest.split_once(END));
    let (body, _) = pem.context("the other side showed no certificate")?;
    spiffe_id(format!("{BEGIN}{body}{END}\n").as_bytes())
}

/// The machine's own roots and configuration are out of the game.
fn openssl() -> Command {
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
