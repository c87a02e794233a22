//! `svid-csi fetch validate`.

use std::{fmt, io::stdin, process::ExitCode, time::SystemTime};

use anyhow::{Context, Result};
use clap::Args;
use serde_json::json;
use svid_csi_proto::workload::{ValidateJwtsvidRequest, ValidateJwtsvidResponse};
use tonic::Code;
use zeroize::Zeroizing;

use super::{
    Session,
    claims::{rows, to_json},
    endpoint,
};
use crate::{
    cli::{UsageError, inspect::clean, output::OutputFormat},
    sys::read_bounded,
};

const EXAMPLES: &str = "\
Examples:
  A token from standard input, so that it is in no list of processes:
    svid-csi fetch jwt --audience bank -o token | svid-csi fetch validate --audience bank -

  For a program:
    svid-csi fetch validate --audience bank -o json - <token | jq .claims

Exit status: 0 if it is valid for this audience; 1 if it is not, or the answer is not known.";

/// The longest token that is read.
const MAX_TOKEN: usize = 1024 * 1024;

/// Arguments of `svid-csi fetch validate`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ValidateArgs {
    /// Whom the token must be for
    #[arg(short, long, value_name = "AUDIENCE")]
    audience: String,

    /// The JWT-SVID; - is standard input
    #[arg(value_name = "TOKEN")]
    token: GivenToken,

    /// How to print it
    #[arg(short, long, value_enum, default_value = "text", value_name = "FORMAT")]
    output: OutputFormat,
}

/// A token, which nobody prints.
#[derive(Clone)]
struct GivenToken(Zeroizing<String>);

// === impl GivenToken ===

impl From<String> for GivenToken {
    fn from(token: String) -> Self {
        Self(Zeroizing::new(token))
    }
}

impl fmt::Debug for GivenToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("redacted")
    }
}

pub(super) async fn run(session: &Session<'_>, args: ValidateArgs) -> Result<ExitCode> {
    let token = match args.token.0.as_str() {
        "-" => {
            let bytes = read_bounded(stdin().lock(), MAX_TOKEN, MAX_TOKEN)?;
            let text = std::str::from_utf8(&bytes).context("standard input is no text")?;
            Zeroizing::new(text.trim().to_owned())
        }
        _ => args.token.0,
    };
    for (setting, value) in [("--audience", &args.audience), ("TOKEN", &*token)] {
        if value.is_empty() {
            return Err(UsageError::new(setting, "must not be empty").into());
        }
    }
    let request = ValidateJwtsvidRequest { audience: args.audience, svid: token.to_string() };
    let answer = session
        .within(async {
            let mut client = session.endpoint.client(session.patience).await?;
            Ok(client.validate_jwtsvid(endpoint::request(request)).await?.into_inner())
        })
        .await;
    let answer = match answer {
        Ok(answer) => Ok(answer),
        // The token's fault; anything else says nothing about it.
        Err(trouble) if trouble.code() == Some(Code::InvalidArgument) => {
            Err(trouble.message().unwrap_or_default().to_owned())
        }
        Err(trouble) => return Err(trouble.into()),
    };
    let text = match (args.output, &answer) {
        (OutputFormat::Text, Ok(valid)) => valid_text(valid, session.clock.now()),
        (OutputFormat::Text, Err(reason)) => format!("not valid: {}\n", clean(reason)),
        (OutputFormat::Json, Ok(valid)) => {
            let claims = valid.claims.as_ref().map(to_json).unwrap_or_default();
            let document = json!({ "valid": true, "spiffeId": valid.spiffe_id, "claims": claims });
            format!("{}\n", serde_json::to_string_pretty(&document)?)
        }
        (OutputFormat::Json, Err(reason)) => {
            let document = json!({ "valid": false, "reason": reason });
            format!("{}\n", serde_json::to_string_pretty(&document)?)
        }
    };
    session.print(&text)?;
    Ok(ExitCode::from(u8::from(answer.is_err())))
}

fn valid_text(answer: &ValidateJwtsvidResponse, now: SystemTime) -> String {
    let claims = answer.claims.as_ref().map(to_json).unwrap_or_default();
    format!("valid: {}\n{}", clean(&answer.spiffe_id), rows(&claims, now))
}
