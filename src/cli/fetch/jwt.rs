//! `svid-csi fetch jwt` and `svid-csi fetch validate`.

use std::{
    io::stdin,
    process::ExitCode,
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use prost_types::{Struct, value::Kind};
use serde::Serialize;
use serde_json::{Map, Value, json};
use svid_csi_proto::workload::{
    JwtBundlesRequest, JwtBundlesResponse, Jwtsvid, JwtsvidRequest, JwtsvidResponse,
    ValidateJwtsvidRequest, ValidateJwtsvidResponse,
};
use tonic::Code;
use zeroize::Zeroizing;

use super::{Session, endpoint, trouble::Trouble};
use crate::{
    cli::{
        UsageError,
        inspect::{Moment, clean},
        output::OutputFormat,
    },
    id::{SpiffeId, TrustDomain},
    jose::{JwtAuthority, verify},
    sys::read_bounded,
};

const JWT_EXAMPLES: &str = "\
Examples:
  Show one:
    svid-csi fetch jwt --audience https://bank.example.org

  The token alone:
    curl -H \"Authorization: Bearer $(svid-csi fetch jwt --audience bank -o token)\" …

  For several audiences at once (one audience is safer: whoever gets the token can use it at all)
    svid-csi fetch jwt --audience bank,ledger -o json | jq -r '.svids[0].token'";

const VALIDATE_EXAMPLES: &str = "\
Examples:
  A token from standard input, so that it is in no list of processes:
    svid-csi fetch jwt --audience bank -o token | svid-csi fetch validate --audience bank -

  For a program:
    svid-csi fetch validate --audience bank -o json - <token | jq .claims

Exit status: 0 if it is valid for this audience; 1 if it is not, or the answer is not known.";

/// The longest token that is read.
const MAX_TOKEN: usize = 1024 * 1024;

/// Arguments of `svid-csi fetch jwt`.
#[derive(Debug, Args)]
#[command(after_help = JWT_EXAMPLES)]
pub(super) struct JwtArgs {
    /// Whom the token is for; may be repeated
    #[arg(short, long, required = true, value_delimiter = ',', value_name = "AUDIENCE")]
    audience: Vec<String>,

    /// Only for this SPIFFE ID [default: every one that the workload has]
    #[arg(long, value_name = "ID", alias = "spiffeID")]
    spiffe_id: Option<SpiffeId>,

    /// How to print it
    #[arg(short, long, value_enum, default_value = "text", value_name = "FORMAT")]
    output: TokenFormat,
}

/// Arguments of `svid-csi fetch validate`.
#[derive(Debug, Args)]
#[command(after_help = VALIDATE_EXAMPLES)]
pub(super) struct ValidateArgs {
    /// Whom the token must be for
    #[arg(short, long, value_name = "AUDIENCE")]
    audience: String,

    /// The JWT-SVID; - is standard input
    #[arg(value_name = "TOKEN")]
    token: String,

    /// How to print it
    #[arg(short, long, value_enum, default_value = "text", value_name = "FORMAT")]
    output: OutputFormat,
}

/// The form of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum TokenFormat {
    /// For people.
    Text,
    /// For machines: one JSON document.
    Json,
    /// The first token and nothing else.
    Token,
}

/// A token that was fetched, and whether its receiver will take it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Token<'a> {
    spiffe_id: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    hint: &'a str,
    token: &'a str,
    /// With the trust domain's JWT bundle, for each audience.
    verified: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// Only if it is verified.
    claims: Map<String, Value>,
}

pub(super) async fn run(session: &Session<'_>, args: JwtArgs) -> Result<ExitCode> {
    if args.audience.iter().any(|audience| audience.is_empty()) {
        return Err(UsageError::new("--audience", "must not be empty").into());
    }
    let spiffe_id = args.spiffe_id.map(|id| id.to_string()).unwrap_or_default();
    let request = JwtsvidRequest { audience: args.audience.clone(), spiffe_id };
    let (answer, bundles) = session.within(tokens(session, request)).await?;
    let now = session.clock.now();
    let judged = answer.svids.iter().map(|svid| Token::of(svid, &args.audience, &bundles, now));
    let tokens: Vec<Token<'_>> = judged.collect();
    match args.output {
        TokenFormat::Token => {
            if let Some(first) = tokens.first().filter(|token| token.verified) {
                session.print(&format!("{}\n", first.token))?;
            }
        }
        TokenFormat::Json => {
            let document = json!({ "svids": tokens });
            session.print(&format!("{}\n", serde_json::to_string_pretty(&document)?))?;
        }
        TokenFormat::Text => {
            for token in &tokens {
                session.print(&token.to_text(now))?;
            }
        }
    }
    if let Some(reason) = tokens.iter().find_map(|token| token.reason.as_deref()) {
        bail!("{}: the token is not good: {reason}", session.endpoint);
    }
    Ok(ExitCode::SUCCESS)
}

/// Tokens, and the bundles by which their receivers judge them.
async fn tokens(
    session: &Session<'_>,
    request: JwtsvidRequest,
) -> Result<(JwtsvidResponse, JwtBundlesResponse), Trouble> {
    let mut client = session.endpoint.client(session.patience).await?;
    let answer = client.fetch_jwtsvid(endpoint::request(request)).await?.into_inner();
    if answer.svids.is_empty() {
        return Err(Trouble::Empty);
    }
    let bundles = client.fetch_jwt_bundles(endpoint::request(JwtBundlesRequest {})).await?;
    Ok((answer, bundles.into_inner().message().await?.ok_or(Trouble::Empty)?))
}

/// The keys of a trust domain; those that can't be used count for nothing.
fn authorities(
    bundles: &JwtBundlesResponse,
    trust_domain: &TrustDomain,
) -> Option<Arc<[JwtAuthority]>> {
    let bundle = bundles.bundles.get(trust_domain.id().as_str())?;
    let bundle: Value = serde_json::from_slice(bundle).ok()?;
    let keys = bundle.get("keys")?.as_array()?;
    Some(keys.iter().filter_map(|key| JwtAuthority::from_jwk(key).ok()).collect())
}

pub(super) async fn validate(session: &Session<'_>, args: ValidateArgs) -> Result<ExitCode> {
    let token = match args.token.as_str() {
        "-" => {
            let bytes = read_bounded(stdin().lock(), MAX_TOKEN, MAX_TOKEN)?;
            let text = std::str::from_utf8(&bytes).context("standard input is no text")?;
            Zeroizing::new(text.trim().to_owned())
        }
        token => Zeroizing::new(token.to_owned()),
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

/// The claims of a token, the standard's first.
fn rows(claims: &Map<String, Value>, now: SystemTime) -> String {
    let mut text = String::new();
    let mut row = |name: &str, value: String| {
        text.push_str(&format!("  {name:<9} {}\n", clean(&value)));
    };
    let plain = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    if let Some(audience) = claims.get("aud") {
        let many = audience.as_array().map(|all| all.iter().map(plain).collect::<Vec<_>>());
        row("audience", many.map_or_else(|| plain(audience), |many| many.join(", ")));
    }
    for (claim, name) in [("iat", "issued"), ("exp", "expires")] {
        if let Some(at) = claims.get(claim).and_then(moment) {
            row(name, format!("{}, {}", at.for_people(), at.relative(now)));
        }
    }
    for (claim, value) in claims {
        if !matches!(claim.as_str(), "sub" | "aud" | "iat" | "exp") {
            row(claim, plain(value));
        }
    }
    text
}

/// A NumericDate (RFC 7519 §2).
fn moment(value: &Value) -> Option<Moment> {
    let seconds = Duration::try_from_secs_f64(value.as_f64()?).ok()?;
    SystemTime::UNIX_EPOCH.checked_add(seconds).map(Moment)
}

/// A `google.protobuf.Struct` as JSON.
fn to_json(claims: &Struct) -> Map<String, Value> {
    claims.fields.iter().map(|(name, value)| (name.clone(), value_to_json(value))).collect()
}

fn value_to_json(value: &prost_types::Value) -> Value {
    match &value.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        // A NumericDate should look like one.
        #[expect(clippy::cast_possible_truncation, reason = "checked to be whole and small")]
        Some(Kind::NumberValue(n)) if n.fract() == 0.0 && n.abs() < 9e15 => json!(*n as i64),
        Some(Kind::NumberValue(number)) => json!(number),
        Some(Kind::StringValue(text)) => json!(text),
        Some(Kind::BoolValue(yes)) => json!(yes),
        Some(Kind::StructValue(fields)) => Value::Object(to_json(fields)),
        Some(Kind::ListValue(list)) => list.values.iter().map(value_to_json).collect(),
    }
}

// === impl Token ===

impl<'a> Token<'a> {
    fn of(
        svid: &'a Jwtsvid,
        audiences: &[String],
        bundles: &JwtBundlesResponse,
        now: SystemTime,
    ) -> Self {
        let (mut claims, mut reason) = (Map::new(), None);
        for audience in audiences {
            match verify(&svid.svid, audience, |domain| authorities(bundles, domain), now) {
                Ok(good) if good.id.as_str() != svid.spiffe_id => {
                    reason = Some(format!("it is for {}", good.id));
                }
                Ok(good) => claims = good.claims,
                Err(error) => reason = Some(error.to_string()),
            }
        }
        Self {
            spiffe_id: &svid.spiffe_id,
            hint: &svid.hint,
            token: &svid.svid,
            verified: reason.is_none(),
            reason,
            claims,
        }
    }

    fn to_text(&self, now: SystemTime) -> String {
        let hint = match self.hint {
            "" => String::new(),
            hint => format!("  hint      {}\n", clean(hint)),
        };
        let (id, token) = (clean(self.spiffe_id), clean(self.token));
        let verified = match self.verified {
            true => "  signature verified against the JWT bundle\n",
            false => "",
        };
        format!("{id}\n{hint}{}{verified}  token     {token}\n", rows(&self.claims, now))
    }
}
