//! Mutual TLS between two volumes, by OpenSSL on both sides.

use std::{
    io::Write,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};

use super::{
    openssl::{Party, openssl, spiffe_id},
    process::Process,
};

/// How long a peer may take for anything.
const PATIENCE: Duration = Duration::from_secs(15);
const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

/// What came of a handshake in which each side demanded the other's certificate.
pub(super) struct Meeting {
    /// The protocol and cipher, as OpenSSL names them.
    pub(super) protocol: String,
    /// The SPIFFE ID in the certificate that the server verified.
    pub(super) client: String,
    /// The SPIFFE ID in the certificate that the client verified.
    pub(super) server: String,
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
    listening.wrote(PATIENCE, heard("question", question)).await?;
    say(&mut listening, &answer)?;
    calling.wrote(PATIENCE, heard("answer", answer)).await?;
    calling.close_stdin();
    for process in [&mut calling, &mut listening] {
        let status = process.end(PATIENCE).await?;
        ensure!(status.success(), "the TLS session ended with {status}");
    }
    let output = calling.stdout();
    ensure!(output.contains("Verify return code: 0 (ok)"), "the client did not verify the server");
    let protocol = output
        .lines()
        .find_map(|line| line.strip_prefix("New, "))
        .unwrap_or("TLS")
        .replace("Cipher is ", "");
    Ok(Meeting { protocol, client: peer(&listening)?, server: peer(&calling)? })
}

/// A handshake that must fail; OpenSSL's reason.
pub(super) async fn refuse(server: &Party, client: &Party) -> Result<String> {
    let (mut listening, port) = listen(server).await?;
    let mut calling = call(client, port)?;
    say(&mut calling, "let me in")?;
    let heard = listening.wrote(PATIENCE, |output| output.contains("let me in").then_some(()));
    let Err(error) = heard.await else {
        bail!("the server talked to {}, whose certificate is forged", client.spiffe_id);
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
    command.args(["s_server", "-accept", "127.0.0.1:0", "-naccept", "1"]).args([
        "-num_tickets",
        "0",
        "-Verify",
        "3",
    ]);
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
    let pem = output.split_once(BEGIN).and_then(|(_, rest)| rest.split_once(END));
    let (body, _) = pem.context("the other side showed no certificate")?;
    spiffe_id(format!("{BEGIN}{body}{END}\n").as_bytes())
}
