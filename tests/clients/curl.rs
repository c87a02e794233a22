//! grpcurl: what it prints of a stream, and calls that end by themselves.

use std::path::Path;

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::Value;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::{client::contained, event::Event};

const SOCKET: &str = "unix:///svid/spiffe.sock";
const HEADER: [&str; 2] = ["-H", "workload.spiffe.io: true"];
const AUDIENCE: &str = "clients.test";

/// A message of `FetchX509SVID` as an event.
pub fn events(message: &str) -> Vec<Event> {
    let message: Value = serde_json::from_str(message).unwrap_or_default();
    let bytes = |value: &Value| BASE64_STANDARD.decode(value.as_str().unwrap_or_default());
    let mut events = Vec::new();
    for svid in message["svids"].as_array().into_iter().flatten() {
        let chain = certificates(&bytes(&svid["x509Svid"]).unwrap_or_default());
        events.push(Event::X509 {
            by: "stream".to_owned(),
            id: svid["spiffeId"].as_str().unwrap_or_default().to_owned(),
            serial: chain.first().cloned().unwrap_or_default(),
            roots: certificates(&bytes(&svid["bundle"]).unwrap_or_default()).len(),
        });
    }
    events
}

/// The serial numbers of certificates that follow one another in DER.
fn certificates(mut der: &[u8]) -> Vec<String> {
    let mut serials = Vec::new();
    while let Ok((rest, certificate)) = X509Certificate::from_der(der) {
        serials.push(format!("{:x}", certificate.serial));
        der = rest;
    }
    serials
}

/// Everything that a person would do with it who finds the socket and knows nothing else; what is
/// not as it should be.
pub async fn explore(volume: &Path, programs: &Path, id: &str) -> Result<(), String> {
    let curl = Curl { volume, programs };
    let services = curl.good(&["list"]).await?;
    for service in
        ["SpiffeWorkloadAPI", "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection"]
    {
        expect(&services, service)?;
    }
    let described = curl.good(&["describe", "SpiffeWorkloadAPI"]).await?;
    expect(
        &described,
        "rpc FetchX509SVID ( .X509SVIDRequest ) returns ( stream .X509SVIDResponse )",
    )?;
    expect(&curl.good(&["grpc.health.v1.Health/Check"]).await?, "SERVING")?;

    let jwt = |method: &str| format!("SpiffeWorkloadAPI/{method}");
    let wish = format!(r#"{{"audience": ["{AUDIENCE}"]}}"#);
    let fetched = curl.call(&wish, &jwt("FetchJWTSVID")).await?;
    let fetched: Value = serde_json::from_str(&fetched).map_err(|error| error.to_string())?;
    let token = fetched["svids"][0]["svid"].as_str().unwrap_or_default();
    let check = |audience: &str| format!(r#"{{"audience": "{audience}", "svid": "{token}"}}"#);
    let validated = curl.call(&check(AUDIENCE), &jwt("ValidateJWTSVID")).await?;
    expect(&validated, id)?;
    let refused = curl.call(&check("another.test"), &jwt("ValidateJWTSVID")).await;
    expect(&refused.err().unwrap_or_default(), "Code: InvalidArgument")?;

    let bare = curl.run(&["-max-time", "5"], &[&jwt("FetchX509SVID")]).await;
    expect(&bare.err().unwrap_or_default(), "Code: InvalidArgument")?;
    let later = curl.call("{}", &jwt("FetchWITSVID")).await;
    expect(&later.err().unwrap_or_default(), "Code: Unimplemented")
}

struct Curl<'a> {
    volume: &'a Path,
    programs: &'a Path,
}

// === impl Curl ===

impl Curl<'_> {
    async fn call(&self, data: &str, method: &str) -> Result<String, String> {
        self.run(&["-max-time", "5", HEADER[0], HEADER[1], "-d", data], &[method]).await
    }

    async fn good(&self, arguments: &[&str]) -> Result<String, String> {
        self.run(&[], arguments).await
    }

    /// What it printed; as an error, if it failed.
    async fn run(&self, flags: &[&str], rest: &[&str]) -> Result<String, String> {
        let mut command = contained(self.volume, self.programs, "grpcurl");
        command.args(["/programs/grpcurl", "-plaintext"]).args(flags).arg(SOCKET).args(rest);
        let output = command.output().await.map_err(|error| error.to_string())?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() {
            Ok(text(&output.stdout))
        } else {
            Err(format!("grpcurl {}: {}", rest.join(" "), text(&output.stderr)))
        }
    }
}

fn expect(printed: &str, part: &str) -> Result<(), String> {
    let found = printed.contains(part);
    if found { Ok(()) } else { Err(format!("{part:?} is not in what grpcurl printed:\n{printed}")) }
}
