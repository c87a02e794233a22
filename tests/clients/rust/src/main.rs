//! What an application does with the crate `spiffe`, told as one JSON object a line.

use std::{error::Error, process::ExitCode, time::Duration};

use futures_util::StreamExt;
use serde_json::{Value, json};
use spiffe::{
    BundleSource, JwtSource, JwtSvid, WorkloadApiClient, WorkloadApiError, X509Context, X509Source,
    X509Svid,
};
use tokio::time::{sleep, timeout};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const AUDIENCE: &str = "clients.test";

#[tokio::main]
async fn main() -> ExitCode {
    let ended = tokio::select! {
        ended = follow_source() => ended,
        ended = follow_jwt() => ended,
        ended = follow_streams() => ended,
    };
    if let Err(error) = ended {
        fail("program", &*error);
    }
    ExitCode::FAILURE
}

fn tell(event: &str, mut pairs: Value) {
    pairs["event"] = event.into();
    println!("{pairs}");
}

fn fail(what: &str, error: &dyn Error) {
    tell("error", json!({"what": what, "text": error.to_string()}));
}

fn tell_svid(by: &str, svid: &X509Svid, roots: usize) -> Result<()> {
    let leaf = svid.cert_chain().first().ok_or("no certificate")?;
    let (_, parsed) = x509_parser::parse_x509_certificate(leaf.as_bytes())?;
    let serial = format!("{:x}", parsed.serial);
    let id = svid.spiffe_id().to_string();
    tell("x509", json!({"by": by, "id": id, "serial": serial, "roots": roots}));
    Ok(())
}

async fn follow_source() -> Result<()> {
    let source = X509Source::new().await?;
    let mut updates = source.updated();
    loop {
        let svid = source.svid()?;
        let domain = svid.spiffe_id().trust_domain();
        let bundle = source.bundle_for_trust_domain(domain)?.ok_or("no bundle")?;
        tell_svid("source", &svid, bundle.authorities().len())?;
        for (domain, bundle) in source.bundle_set()?.iter() {
            let count = bundle.authorities().len();
            tell("x509-bundle", json!({"domain": domain.to_string(), "authorities": count}));
        }
        updates.changed().await?;
    }
}

/// The client's own streams end with the connection, and it is the application that opens them anew.
async fn follow_streams() -> Result<()> {
    loop {
        if let Err(error) = follow_stream().await {
            fail("x509", &*error);
        }
        sleep(Duration::from_millis(500)).await;
    }
}

async fn follow_stream() -> Result<()> {
    let client = WorkloadApiClient::connect_env().await?;
    let mut contexts = client.stream_x509_contexts().await?;
    while let Some(context) = contexts.next().await {
        let context: X509Context = context?;
        let svid = context.default_svid().ok_or("no SVID")?;
        let domain = svid.spiffe_id().trust_domain();
        let bundle = context.bundle_set().get(domain).ok_or("no bundle")?;
        tell_svid("stream", svid, bundle.authorities().len())?;
    }
    Err("the stream has ended".into())
}

async fn follow_jwt() -> Result<()> {
    let source = JwtSource::new().await?;
    let mut told = None;
    loop {
        let sequence = source.updated().last();
        if told != Some(sequence) {
            told = Some(sequence);
            for (domain, bundle) in source.bundle_set()?.iter() {
                let kids: Vec<_> = bundle.jwt_authorities().map(|key| key.key_id()).collect();
                tell("jwt-bundle", json!({"domain": domain.to_string(), "kids": kids}));
            }
        }
        match timeout(Duration::from_secs(2), use_jwt(&source)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => fail("jwt", &*error),
            Err(error) => fail("jwt", &error),
        }
        sleep(Duration::from_millis(500)).await;
    }
}

/// Fetches a token, has it validated by the Workload API and with the bundle, and for an audience
/// that it is not for.
async fn use_jwt(source: &JwtSource) -> Result<()> {
    let client = WorkloadApiClient::connect_env().await?;
    let svid = source.fetch_jwt_svid([AUDIENCE]).await?;
    let token = svid.token();
    tell("jwt", json!({"id": svid.spiffe_id().to_string(), "token": token}));
    let validated = client.validate_jwt_token(AUDIENCE, token).await?;
    tell("validated", json!({"by": "server", "id": validated.spiffe_id().to_string()}));
    let validated = JwtSvid::parse_and_validate(token, source, &[AUDIENCE])?;
    tell("validated", json!({"by": "bundle", "id": validated.spiffe_id().to_string()}));
    match client.validate_jwt_token("another.test", token).await {
        Ok(_) => tell("accepted", json!({"audience": "another.test"})),
        Err(error) => tell("refused", json!({"code": code(&error)})),
    }
    Ok(())
}

fn code(error: &WorkloadApiError) -> String {
    if error.is_invalid_argument() { "InvalidArgument".to_owned() } else { error.to_string() }
}
