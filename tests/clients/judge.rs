//! What a client told, held against what its volume's files held.

use std::{collections::BTreeSet, time::Instant};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::Value;

use crate::{
    client::Client,
    event::{Event, Told, serial},
    volumes::Held,
};

const AUDIENCE: &str = "clients.test";

/// How far a client must have come.
#[derive(Clone, Copy, Debug)]
pub enum Stage {
    /// Everything that it does has worked once.
    Begun,
    /// It has seen its third rotation, the second CA and the second JWT key.
    Followed,
    /// It has what only a plugin that came back at this moment, in Unix seconds, can have given.
    Back(Instant, u64),
}

/// What a client has not done yet.
pub fn lacks(client: &Client, held: &Held, stage: Stage) -> Option<String> {
    let told = client.told();
    let spec = client.spec;
    for by in spec.follows {
        let serials = serials(&told, by);
        let roots = client.last(|event| match event {
            Event::X509 { by: b, roots, .. } if b == by => Some(*roots),
            _ => None,
        });
        let done = match stage {
            Stage::Begun => !serials.is_empty(),
            Stage::Followed => serials.len() > 3 && roots == Some(2) && held.roots == 2,
            Stage::Back(at, _) => {
                serials.iter().any(|serial| held.serials.get(serial).is_some_and(|seen| *seen > at))
            }
        };
        if !done {
            return Some(format!("{by}: {} SVIDs, {roots:?} roots", serials.len()));
        }
    }
    if spec.validates.is_empty() { None } else { lacks_jwt(client, &told, stage) }
}

fn lacks_jwt(client: &Client, told: &[Told], stage: Stage) -> Option<String> {
    match stage {
        Stage::Begun => {
            let validated = |by: &str| {
                told.iter().any(|t| matches!(&t.event, Event::Validated { by: b, .. } if b == by))
            };
            let refused = told.iter().any(|t| matches!(t.event, Event::Refused { .. }));
            let missing = client.spec.validates.iter().find(|by| !validated(by));
            let missing = missing.map(|by| format!("no JWT was validated by {by}"));
            missing.or_else(|| (!refused).then(|| "no JWT was refused".to_owned()))
        }
        Stage::Followed => {
            let authorities = client.last(|event| match event {
                Event::X509Bundle { authorities, .. } => Some(*authorities),
                _ => None,
            });
            let kids = client.last(|event| match event {
                Event::JwtBundle { kids, .. } => Some(kids.len()),
                _ => None,
            });
            let both = (authorities, kids) == (Some(2), Some(2));
            (!both).then(|| format!("bundles have {authorities:?} CAs and {kids:?} JWT keys"))
        }
        Stage::Back(_, at) => {
            let tokens = told.iter().filter_map(|told| match &told.event {
                Event::Jwt { token, .. } => Some(part(token, 1)),
                _ => None,
            });
            let fresh = tokens.filter_map(|claims| claims["iat"].as_u64()).any(|iat| iat >= at);
            (!fresh).then(|| "no JWT of the plugin that came back".to_owned())
        }
    }
}

/// The serial numbers that one way to follow has seen, in its order.
pub fn serials(told: &[Told], by: &str) -> Vec<String> {
    let mut serials: Vec<_> = told
        .iter()
        .filter_map(|told| match &told.event {
            Event::X509 { by: b, serial: s, .. } if b == by => Some(serial(s)),
            _ => None,
        })
        .collect();
    serials.dedup();
    serials
}

/// Everything a client told that must not be. `away` is when nobody answered it, and `server` the
/// volume of the server whose caller it is.
pub fn faults(
    client: &Client,
    held: &Held,
    away: &[[Instant; 2]],
    server: Option<(&str, &Held)>,
) -> Vec<String> {
    let told = client.told();
    let id = client.pod.id();
    let alone = |at: Instant| away.iter().any(|[gone, back]| (*gone..*back).contains(&at));
    let mut faults = BTreeSet::new();
    let mut must = |holds: bool, fault: &dyn Fn() -> String| {
        if !holds {
            faults.insert(fault());
        }
    };
    for Told { at, event } in &told {
        match event {
            Event::X509 { id: seen, serial: s, .. } => {
                must(*seen == id, &|| format!("it got {seen}"));
                must(held.serials.contains_key(&serial(s)), &|| {
                    format!("{s} never was in its volume")
                });
            }
            Event::Validated { id: seen, .. } => {
                must(*seen == id, &|| format!("validated as {seen}"));
            }
            Event::Jwt { id: seen, token } => {
                must(*seen == id, &|| format!("it got a JWT of {seen}"));
                let (header, claims) = (part(token, 0), part(token, 1));
                must(claims["sub"] == *id, &|| format!("sub is {}", claims["sub"]));
                must(claims["aud"] == serde_json::json!([AUDIENCE]), &|| {
                    format!("aud: {}", claims["aud"])
                });
                must(claims["exp"].as_u64() > claims["iat"].as_u64(), &|| {
                    format!("ends {}", claims["exp"])
                });
                let kid = header["kid"].as_str().unwrap_or_default();
                must(held.kids.contains(kid), &|| format!("bundle.json never had the key {kid}"));
            }
            Event::Refused { code } => {
                must(code == "InvalidArgument" || alone(*at), &|| format!("refused by {code}"));
            }
            Event::Accepted { audience } => must(false, &|| format!("{audience} was accepted")),
            Event::Error { what, text } => {
                // Calls between applications have nothing to do with the plugin.
                let excused = server.is_none() && alone(*at);
                must(excused, &|| format!("{what}: {text}"));
            }
            Event::Peer { id, serial: s } => {
                let known = server
                    .is_some_and(|(i, held)| i == id && held.serials.contains_key(&serial(s)));
                must(known, &|| format!("a peer {id} with {s}"));
            }
            Event::X509Bundle { domain, .. } | Event::JwtBundle { domain, .. } => {
                must(domain == crate::plugin::TRUST_DOMAIN, &|| format!("a bundle of {domain}"));
            }
            Event::Listening { .. } | Event::Calls { .. } => {}
        }
    }
    for by in client.spec.follows {
        let serials = serials(&told, by);
        let seen: Vec<_> = serials.iter().filter_map(|serial| held.serials.get(serial)).collect();
        must(seen.is_sorted(), &|| format!("{by} was taken back to an older SVID"));
    }
    faults.into_iter().collect()
}

/// The header (0) or the claims (1) of a token, believed as they stand.
fn part(token: &str, n: usize) -> Value {
    let part = token.split('.').nth(n).unwrap_or_default();
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(part).unwrap_or_default();
    serde_json::from_slice(&bytes).unwrap_or_default()
}
