//! The CAs as a table.

use std::{fmt::Write, time::SystemTime};

use super::super::inspect::clean;
use crate::controller::ca::{AuthorityStatus, CaStatus, Moment};

const HEAD: [&str; 5] = ["STATE", "KEY", "SIGNS", "REMOVED", "ENDS"];

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
    if let Some(request) = &status.last_request {
        let (action, outcome) = (request.action.as_str(), request.outcome.as_str());
        line("last request", &format!("{action}, {outcome} {}: {}", request.at, request.message));
    }
    line("problem", status.problem.as_deref().unwrap_or("none"));
    text.push('\n');
    let rows: Vec<[String; 5]> = status.authorities.iter().map(|ca| row(ca, now)).collect();
    let widths: Vec<usize> = (0..HEAD.len())
        .map(|column| {
            let cells = rows.iter().map(|row| row[column].chars().count());
            cells.chain([HEAD[column].len()]).max().unwrap_or_default()
        })
        .collect();
    for row in [HEAD.map(str::to_owned)].iter().chain(&rows) {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

fn row(ca: &AuthorityStatus, now: Moment) -> [String; 5] {
    let mut state = ca.state.clone();
    if ca.tainted {
        state.push_str(", tainted");
    }
    if !ca.published {
        state.push_str(", dropped");
    }
    let signs = match (ca.sign_from, ca.sign_until) {
        (Some(from), _) if now < from => format!("from {from}"),
        (_, Some(until)) if now >= until => format!("until {until}"),
        (Some(from), _) => format!("since {from}"),
        (None, _) if ca.state == "prepared" => "once published".to_owned(),
        (None, _) => "never".to_owned(),
    };
    let removed = ca.remove_at.map(|at| at.to_string()).unwrap_or_else(|| "-".to_owned());
    [state, ca.key_id.clone(), signs, removed, ca.not_after.to_string()].map(|cell| clean(&cell))
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
          "nextStep":{"step":"prepare","at":"2027-05-23T12:00:00Z"},
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
last request  taint, done 2026-11-22T09:00:00Z: \\u{1b}[31mred
problem       none

STATE             KEY   SIGNS                       REMOVED               ENDS
retired, tainted  aa11  until 2026-11-22T09:00:00Z  2026-11-23T09:01:00Z  2027-01-01T00:00:00Z
active            bb22  since 2026-11-22T08:58:00Z  -                     2027-11-22T00:00:00Z
"
        );
    }
}
