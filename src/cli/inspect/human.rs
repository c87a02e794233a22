//! The report for people: aligned, one screen a path, problems last.

use std::{fmt::Write, time::SystemTime};

use super::{
    facts::{Bundle, Entry, Renewal, Svid, Volume},
    moment::{Moment, span},
    report::{Inspected, Kind, Problem, Report, Severity, Status},
    style::{Style, Tone, clean},
    token::Token,
};
use crate::volume::RecordState;

/// How many lines there are of anything that can be many.
const MANY: usize = 8;

/// All of it, as lines.
pub(in crate::cli) fn render(report: &Report, style: Style) -> String {
    let now = report.checked_at.0;
    let results = report.results.iter();
    let screens: Vec<String> = results.map(|result| screen(result, now, style)).collect();
    screens.join("\n")
}

fn screen(result: &Inspected, now: SystemTime, style: Style) -> String {
    let kind = match result.kind {
        Some(Kind::Volume) => "volume, ",
        Some(Kind::Certificate) => "certificate, ",
        Some(Kind::Bundle) => "trust bundle, ",
        Some(Kind::Key) => "private key, ",
        Some(Kind::Combined) => "key and certificate, ",
        Some(Kind::Token) => "JWT-SVID, ",
        None => "",
    };
    let status = match result.status {
        Status::Ok => style.paint(Tone::Good, "ok"),
        Status::Bad => style.paint(Tone::Bad, "bad"),
        Status::Unreadable => style.paint(Tone::Doubtful, "can't tell"),
    };
    let path = style.paint(Tone::Strong, &clean(&result.path));
    let mut out = format!("{path}: {kind}{status}\n");
    let rows = rows(result, now);
    if !rows.is_empty() {
        out.push('\n');
    }
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    for (name, value) in rows {
        // Writing to a string does not fail.
        let _ = writeln!(out, "  {name:width$}  {}", clean(&value));
    }
    problems(&mut out, &result.problems, style);
    out
}

fn problems(out: &mut String, problems: &[Problem], style: Style) {
    if !problems.is_empty() {
        out.push('\n');
    }
    for problem in problems {
        let word = match problem.severity {
            Severity::Warning => style.paint(Tone::Doubtful, "note"),
            Severity::Error => style.paint(Tone::Bad, "wrong"),
            Severity::Unreadable => style.paint(Tone::Doubtful, "can't tell"),
        };
        let (message, action) = (clean(&problem.message), clean(&problem.action));
        let _ = writeln!(out, "  {word}: {message}\n    {action}");
    }
}

type Row = (&'static str, String);

fn rows(result: &Inspected, now: SystemTime) -> Vec<Row> {
    let mut rows = Vec::new();
    if let Some(svid) = &result.svid {
        rows.extend(svid.spiffe_id.clone().map(|id| ("identity", id)));
    }
    let recorded = result.volume.as_ref().and_then(|v| v.recorded.as_ref());
    if let Some(recorded) = recorded {
        let pod = &recorded.pod;
        rows.push(("pod", format!("{pod}, ServiceAccount {}", pod.service_account)));
        if recorded.state == RecordState::Pending {
            rows.push(("state", "pending".to_owned()));
        }
    }
    if let Some(svid) = &result.svid {
        certificate(&mut rows, svid, now);
    }
    if let Some(chain) = &result.chain {
        let word = if chain.verified { "verified" } else { "not verified" };
        rows.push(("chain", format!("{word} against {}", chain.against)));
    } else if result.svid.as_ref().is_some_and(|svid| svid.spiffe_id.is_some())
        && result.kind != Some(Kind::Volume)
    {
        rows.push(("chain", "not verified; give --bundle FILE".to_owned()));
    }
    if let Some(key) = &result.key {
        let matches = match key.matches {
            Some(true) => ", the certificate's",
            Some(false) => ", not the certificate's",
            None => "",
        };
        rows.push(("key", format!("{}{matches}", key.algorithm)));
    }
    if let Some(bundle) = &result.bundle {
        authorities(&mut rows, bundle, now);
    }
    for token in result.tokens.iter().take(MANY) {
        self::token(&mut rows, token, now);
    }
    if let Some(delivered) = &result.delivered {
        rows.extend(delivered.hint.clone().map(|hint| ("hint", hint)));
        federated(&mut rows, delivered.federated.keys());
        for key in &delivered.jwt_keys {
            rows.push(("JWT key", key.to_string()));
        }
    }
    if let Some(volume) = &result.volume {
        self::volume(&mut rows, volume, now);
    }
    files(&mut rows, &result.files);
    if let Some(error) = recorded.and_then(|recorded| recorded.last_error.as_ref()) {
        let at = error.at.relative(now);
        rows.push(("last error", format!("{at} ({}): {}", error.class, error.message)));
    }
    rows
}

fn certificate(rows: &mut Vec<Row>, svid: &Svid, now: SystemTime) {
    rows.push(("serial", svid.serial.clone()));
    if !svid.subject.is_empty() {
        rows.push(("subject", svid.subject.clone()));
    }
    rows.push(("issuer", svid.issuer.clone()));
    rows.push(("valid", validity(svid.not_before, svid.not_after, now)));
    rows.extend(svid.renewal.map(|renewal| {
        let text = match renewal {
            Renewal::At { at } => format!("{}, {}", at.for_people(), at.relative(now)),
            Renewal::Between { earliest, latest } => {
                format!("between {} and {}", earliest.for_people(), latest.for_people())
            }
        };
        ("next renewal", text)
    }));
}

fn validity(begin: Moment, end: Moment, now: SystemTime) -> String {
    let left = match end.seconds_from(now) {
        seconds if seconds < 0 => format!("expired {}", end.relative(now)),
        _ if begin.0 > now => format!("valid {}", begin.relative(now)),
        _ => {
            let left = end.0.duration_since(now).unwrap_or_default();
            format!("expires in {}", span(left))
        }
    };
    format!("{} to {}, {left}", begin.for_people(), end.for_people())
}

fn authorities(rows: &mut Vec<Row>, bundle: &Bundle, now: SystemTime) {
    let count = match bundle.authorities.len() {
        1 => "1 authority".to_owned(),
        count => format!("{count} authorities"),
    };
    let domain = bundle.trust_domain.as_ref().map(|domain| format!("{domain}, "));
    let sequence = bundle.sequence.map(|sequence| format!(", sequence {sequence}"));
    let (domain, sequence) = (domain.unwrap_or_default(), sequence.unwrap_or_default());
    rows.push(("bundle", format!("{domain}{count}{sequence}")));
    for authority in bundle.authorities.iter().take(MANY) {
        let until = match authority.not_after.seconds_from(now) {
            seconds if seconds < 0 => format!("expired {}", authority.not_after.relative(now)),
            _ => format!("until {}", authority.not_after.for_people()),
        };
        rows.push(("", format!("{}, {until}", authority.subject)));
    }
    if bundle.authorities.len() > MANY {
        rows.push(("", format!("and {} more", bundle.authorities.len() - MANY)));
    }
    for key in bundle.jwt_authorities.iter().take(MANY) {
        rows.push(("JWT key", key.to_string()));
    }
}

fn token(rows: &mut Vec<Row>, token: &Token, now: SystemTime) {
    let ends = match token.expires_in_seconds {
        left if left < 0 => format!("expired {}", token.expires_at.relative(now)),
        left => format!("expires in {}", span(std::time::Duration::from_secs(left.unsigned_abs()))),
    };
    let audience = token.audience.join(", ");
    if let Some(file) = &token.file {
        rows.push(("JWT-SVID", format!("{file} for {audience}, {ends}")));
        return;
    }
    rows.push(("identity", token.spiffe_id.clone()));
    rows.push(("audience", audience));
    let until = token.expires_at.for_people();
    rows.push((
        "valid",
        match token.issued_at {
            Some(from) => format!("{} to {until}, {ends}", from.for_people()),
            None => format!("until {until}, {ends}"),
        },
    ));
    let key_id = token.key_id.as_ref().map(|kid| format!(", kid {kid}"));
    rows.push(("signed", format!("{}{}", token.algorithm, key_id.unwrap_or_default())));
    rows.push((
        "signature",
        match (token.verified, &token.against) {
            (Some(true), Some(against)) => format!("verified against {against}"),
            (Some(false), Some(against)) => format!("not verified against {against}"),
            _ => "not verified; give --bundle FILE".to_owned(),
        },
    ));
    let shown = ["sub", "aud", "iat", "exp"];
    for (name, value) in token.claims.iter().filter(|(name, _)| !shown.contains(&name.as_str())) {
        rows.push(("claim", format!("{name}: {value}")));
    }
}

fn volume(rows: &mut Vec<Row>, volume: &Volume, now: SystemTime) {
    federated(rows, volume.federated.iter());
    rows.extend(volume.layout.map(|layout| ("layout", layout.to_owned())));
    if let Some(set) = &volume.set {
        let number = set.sequence.map(|number| format!("number {number}, "));
        let written = set.written_at.relative(now);
        rows.push(("set", format!("{}written {written}", number.unwrap_or_default())));
    }
    if let Some(mount) = &volume.mount {
        let whose = if mount.ours { ", the driver's" } else { "" };
        let swap = match (mount.ours, mount.noswap) {
            (_, true) => ", never swapped",
            (true, false) => ", may be swapped",
            (false, false) => "",
        };
        let text = format!("{} from {}{whose}{swap}", mount.fs_type, mount.source);
        rows.push(("mount", text));
    }
    if let Some(socket) = &volume.socket {
        rows.push(("socket", format!("{}, {}", socket.name, socket.state.for_people())));
    }
    rows.push(("directory", volume.directory.to_string()));
}

fn federated<'a>(rows: &mut Vec<Row>, trust_domains: impl ExactSizeIterator<Item = &'a String>) {
    let more = trust_domains.len().saturating_sub(MANY);
    let mut names: Vec<String> = trust_domains.take(MANY).cloned().collect();
    if more > 0 {
        names.push(format!("and {more} more"));
    }
    if !names.is_empty() {
        rows.push(("federated", names.join(", ")));
    }
}

/// Files that have one owner and mode share a row.
fn files(rows: &mut Vec<Row>, files: &[Entry]) {
    let mut groups: Vec<(String, Vec<&str>)> = Vec::new();
    for file in files.iter().filter(|file| !file.name.contains('/')) {
        let owner = file.owner.to_string();
        match groups.iter_mut().find(|(other, _)| *other == owner) {
            Some((_, names)) => names.push(&file.name),
            None => groups.push((owner, vec![&file.name])),
        }
    }
    for (index, (owner, names)) in groups.iter().take(MANY).enumerate() {
        let shown = names.iter().take(MANY).copied().collect::<Vec<_>>().join(", ");
        let more = match names.len().saturating_sub(MANY) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let name = if index == 0 { "files" } else { "" };
        rows.push((name, format!("{owner}  {shown}{more}")));
    }
}

#[cfg(test)]
mod tests {
    use super::{super::report::Code, *};

    const PLAIN: Style = Style { colour: false };

    fn report(result: Inspected) -> Report {
        let now = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_793_700_000);
        Report::new(Moment(now), vec![result])
    }

    #[test]
    fn problems_come_last_with_what_to_do() {
        let mut result = Inspected::new("/svid");
        result.warn(Code::AuthorityExpired, "one CA has ended", "wait");
        result.error(Code::Expired, "it expired", "look at the log");
        assert_eq!(
            render(&report(result), PLAIN),
            "/svid: bad\n\n  note: one CA has ended\n    wait\n  wrong: it expired\n    look at the log\n"
        );
    }

    #[test]
    fn nothing_that_is_shown_steers_the_terminal() {
        let mut result = Inspected::new("a\x1b[2Jb\u{202e}");
        result.error(Code::Damaged, "x\ny\r\u{9b}", "z");
        let text = render(&report(result), PLAIN);
        assert!(!text.contains(['\x1b', '\r', '\u{9b}', '\u{202e}']), "{text}");
        assert!(text.contains("a\\u{1b}[2Jb") && text.contains("x\\u{a}y"), "{text}");
    }
}
