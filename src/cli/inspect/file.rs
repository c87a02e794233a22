//! Judges a single file.

use std::{
    io::{self, stdin},
    path::Path,
};

use super::{
    Setting,
    content::{Content, Fault},
    directory::MAX_FILE,
    facts::{Entry, Owner},
    judge::{self, Against},
    report::{Code, Inspected, Kind},
    token,
};
use crate::sys::{RegularFile, read_bounded};

const KINDS: &str = "give a certificate, a trust bundle, a key, a token or a volume's directory";

/// Fills in what there is to say about the file at `path`.
pub(super) fn inspect(result: &mut Inspected, path: &Path, setting: &Setting) {
    let content = match read(path) {
        Ok((content, entry)) => {
            result.files.extend(entry);
            content
        }
        Err(error) => {
            let action = match error.kind() {
                io::ErrorKind::NotFound => "look at the path; a volume is gone once its pod is",
                io::ErrorKind::PermissionDenied => "run it as root, or as a user who may read it",
                _ => KINDS,
            };
            result.unreadable(Code::Unreadable, error.to_string(), action);
            return;
        }
    };
    match content {
        Ok(content) => show(result, &content, path, setting),
        Err(Fault::Damaged(reason)) => {
            result.error(Code::Damaged, reason, "fetch or make the file anew");
        }
        Err(Fault::Unrecognised(reason)) => {
            result.unreadable(Code::Unrecognised, reason, KINDS);
        }
    }
}

fn show(result: &mut Inspected, content: &Content, path: &Path, setting: &Setting) {
    let now = setting.now;
    result.kind = Some(match content {
        Content::Chain(_) => Kind::Certificate,
        Content::Bundle(_) => Kind::Bundle,
        Content::Key(_) => Kind::Key,
        Content::Combined(..) => Kind::Combined,
        Content::Token(_) => Kind::Token,
    });
    if let Content::Token(text) = content {
        token::judge(result, None, text, setting.bundle.as_ref(), now);
    }
    if let Some(chain) = content.chain()
        && let Some(svid) = judge::svid(result, chain, now)
        && let Some(against) = &setting.bundle
    {
        judge::chain(result, &svid, against, now);
    }
    if let Some(key) = content.key() {
        let leaf = content.chain().and_then(|chain| chain.first());
        judge::key(result, key, leaf);
    }
    if let Some(authorities) = content.authorities() {
        // A federated bundle is named by its file.
        let domain = authorities.trust_domain().map(|domain| domain.to_string());
        let named = || {
            let federated = path.parent()?.file_name()? == super::names::FEDERATED;
            let name = path.file_name()?.to_str()?.strip_suffix(".pem")?;
            federated.then(|| name.to_owned())
        };
        judge::bundle(result, authorities, domain.or_else(named), now);
    }
}

/// Reads the bundle to verify against; the error is for a person.
pub(super) fn bundle(path: &Path) -> Result<Against, String> {
    let name = path.display().to_string();
    let fault = |reason: &dyn std::fmt::Display| format!("{name}: {reason}");
    let (content, _) = read(path).map_err(|error| fault(&error))?;
    let content = content.map_err(|reason| fault(&reason))?;
    let Some(authorities) = content.authorities() else {
        return Err(fault(&"it is not a trust bundle"));
    };
    authorities.check().map_err(|error| fault(&error))?;
    Ok(Against { authorities: authorities.clone(), name })
}

type Read = (Result<Content, Fault>, Option<Entry>);

fn read(path: &Path) -> io::Result<Read> {
    if path.as_os_str() == "-" {
        let content = read_bounded(stdin().lock(), MAX_FILE, MAX_FILE)?;
        return Ok((Content::parse(&content), None));
    }
    let file = RegularFile::read(path, MAX_FILE)?;
    let name = path.file_name().unwrap_or(path.as_os_str());
    let entry = Entry {
        name: name.to_string_lossy().into_owned(),
        size: file.metadata.len(),
        owner: Owner::from(&file.metadata),
    };
    Ok((Content::parse(&file.content), Some(entry)))
}
