//! The CAs and JWT keys as tables.

use std::{fmt::Write, time::SystemTime};

use super::super::inspect::clean;
use crate::controller::ca::{AuthorityStatus, CaStatus, JwtKeyStatus, Moment};

const HEAD: [&str; 5] = ["STATE", "KEY", "SIGNS", "REMOVED", "ENDS"];
const JWT_HEAD: [&str; 5] = ["STATE", "JWT KEY", "SIGNS", "REMOVED", "ENDS"];

/// All of it for people.
pub(super) fn render(status: &CaStatus, now: SystemTime) -> String {
    let now = Moment::of(now);
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        // Writing to a string never fails.
        let _ = writeln!(text, "{name:<14}{}", clean(value));
    };
    line("trust domain", status.trust_domain.as_str());
    line("propagation", &status.propagation);
    if let Some(upstream) = &status.upstream {
        line("CA from", &format!("Secret {upstream}"));
    }
    if let Some(next) = &status.next_step {
        line("next", &format!("{} {}", next.step, when(next.at, now)));
    }
    if let Some(next) = &status.next_jwt_step {
        line("next JWT key", &format!("{} {}", next.step, when(next.at, now)));
    }
    if let Some(request) = &status.last_request {
        let (action, outcome) = (request.action.as_str(), request.outcome.as_str());
        line("last request", &format!("{action}, {outcome} {}: {}", request.at, request.message));
    }
    line("problem", status.problem.as_deref().unwrap_or("none"));
    let rows = status.authorities.iter().map(|ca| row(ca, now)).collect();
    table(HEAD, rows, &mut text);
    if !status.jwt_keys.is_empty() {
        let rows = status.jwt_keys.iter().map(|key| jwt_row(key, now)).collect();
        table(JWT_HEAD, rows, &mut text);
    }
    text
}

fn table(head: [&str; 5], rows: Vec<[String; 5]>, text: &mut String) {
    text.push('\n');
    let widths: Vec<usize> = (0..head.len())
        .map(|column| {
            let cells = rows.iter().map(|row| row[column].chars().count());
            cells.chain([head[column].len()]).max().unwrap_or_default()
        })
        .collect();
    for row in [head.map(str::to_owned)].iter().chain(&rows) {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
}

fn row(ca: &AuthorityStatus, now: Moment) -> [String; 5] {
    let state = standing(&ca.state, ca.tainted, ca.published);
    let signs = signs(&ca.state, (ca.sign_from, ca.sign_until), now);
    [state, ca.key_id.clone(), signs, removed(ca.remove_at), ca.not_after.to_string()]
        .map(|cell| clean(&cell))
}

fn jwt_row(key: &JwtKeyStatus, now: Moment) -> [String; 5] {
    let state = standing(&key.state, key.tainted, key.published);
    let signs = signs(&key.state, (key.sign_from, key.sign_until), now);
    [state, key.key_id.clone(), signs, removed(key.remove_at), key.not_after.to_string()]
        .map(|cell| clean(&cell))
}

fn standing(state: &str, tainted: bool, published: bool) -> String {
    let tainted = if tainted { ", tainted" } else { "" };
    let dropped = if published { "" } else { ", dropped" };
    format!("{state}{tainted}{dropped}")
}

fn signs(state: &str, when: (Option<Moment>, Option<Moment>), now: Moment) -> String {
    match when {
        (Some(from), _) if now < from => format!("from {from}"),
        (_, Some(until)) if now >= until => format!("until {until}"),
        (Some(from), _) => format!("since {from}"),
        (None, _) if state == "prepared" => "once published".to_owned(),
        (None, _) => "never".to_owned(),
    }
}

fn removed(at: Option<Moment>) -> String {
    at.map_or_else(|| "-".to_owned(), |at| at.to_string())
}

fn when(at: Moment, now: Moment) -> String {
    match now >= at {
        true => format!("due since {at}"),
        false => format!("at {at}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_shows_each_ca_and_steers_no_terminal() {
        let json = r#"{"updated":"2026-11-22T10:00:00Z","trustDomain":"example.org","propagation":"5m",
          "authorities":[
            {"id":"1","keyId":"aa11","subject":"","sha256":"","state":"retired","origin":"own",
             "tainted":true,"published":true,"notBefore":"2026-01-01T00:00:00Z",
             "notAfter":"2027-01-01T00:00:00Z","signFrom":"2026-01-01T00:00:00Z",
             "signUntil":"2026-11-22T09:00:00Z","removeAt":"2026-11-23T09:01:00Z"},
            {"id":"2","keyId":"bb22","subject":"","sha256":"","state":"active","origin":"own",
             "tainted":false,"published":true,"notBefore":"2026-11-22T00:00:00Z",
             "notAfter":"2027-11-22T00:00:00Z","signFrom":"2026-11-22T08:58:00Z",
             "signUntil":"2027-11-22T00:00:00Z"}],
          "jwtKeys":[
            {"keyId":"kid-1","algorithm":"rsa-2048","state":"active","tainted":false,
             "published":true,"made":"2026-11-01T00:00:00Z","notAfter":"2026-12-01T00:00:00Z",
             "signFrom":"2026-11-05T00:00:00Z","signUntil":"2026-12-01T00:00:00Z"},
            {"keyId":"kid-2","algorithm":"rsa-2048","state":"prepared","tainted":false,
             "published":true,"made":"2026-11-16T00:00:00Z","notAfter":"2026-12-16T00:00:00Z",
             "signFrom":"2026-11-25T00:00:00Z"}],
          "nextStep":{"step":"prepare","at":"2027-05-23T12:00:00Z"},
          "nextJwtStep":{"step":"activate","at":"2026-11-25T00:00:00Z"},
          "lastRequest":{"uid":"u","action":"taint","outcome":"done","message":"\u001b[31mred","at":"2026-11-22T09:00:00Z"},
          "problem":null}"#;
        let now = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_795_341_600);
        let text = render(&CaStatus::from_json(json).unwrap(), now);
        assert_eq!(
            text,
            "\
trust domain  example.org
propagation   5m
next          prepare at 2027-05-23T12:00:00Z
next JWT key  activate at 2026-11-25T00:00:00Z
last request  taint, done 2026-11-22T09:00:00Z: \\u{1b}[31mred
problem       none

STATE             KEY   SIGNS                       REMOVED               ENDS
retired, tainted  aa11  until 2026-11-22T09:00:00Z  2026-11-23T09:01:00Z  2027-01-01T00:00:00Z
active            bb22  since 2026-11-22T08:58:00Z  -                     2027-11-22T00:00:00Z

STATE     JWT KEY  SIGNS                       REMOVED  ENDS
active    kid-1    since 2026-11-05T00:00:00Z  -        2026-12-01T00:00:00Z
prepared  kid-2    from 2026-11-25T00:00:00Z   -        2026-12-16T00:00:00Z
"
        );
    }
}
