//! `svid-csi fetch jwt`.

use std::{process::ExitCode, sync::Arc, time::SystemTime};

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use serde::Serialize;
use serde_json::{Map, Value, json};
use svid_csi_proto::workload::{
    JwtBundlesRequest, JwtBundlesResponse, Jwtsvid, JwtsvidRequest, JwtsvidResponse,
};

use super::{Session, claims::rows, endpoint, trouble::Trouble};
use crate::{
    cli::{UsageError, inspect::clean},
    id::{SpiffeId, TrustDomain},
    jose::{JwtAuthority, verify},
};

const EXAMPLES: &str = "\
Examples:
  Show one:
    svid-csi fetch jwt --audience https://bank.example.org

  The token alone:
    curl -H \"Authorization: Bearer $(svid-csi fetch jwt --audience bank -o token)\" …

  For several audiences at once (one audience is safer: whoever gets the token can use it at all)
    svid-csi fetch jwt --audience bank,ledger -o json | jq -r '.svids[0].token'";

/// Arguments of `svid-csi fetch jwt`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
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
