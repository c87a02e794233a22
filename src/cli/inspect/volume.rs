//! Judges a volume: whether its pod has what it should have, and will go on having it.

use std::{io, path::Path, time::SystemTime};

use super::{
    Setting,
    content::{Authorities, Content, Fault},
    directory::{Directory, FileError, Record, SetFile},
    facts::{Renewal, Volume},
    judge::{self, Against},
    moment::Moment,
    names::{self, BUNDLE_JSON, FEDERATED, Names},
    ownership, recorded,
    report::{Code, Inspected, Kind},
    socket, token,
};
use crate::{
    id::SpiffeId,
    pki::{RenewalPolicy, X509Svid},
    volume::{RecordState, VolumeRecord},
};

/// Fills in what there is to say about the volume at `path`.
pub(super) fn inspect(result: &mut Inspected, path: &Path, setting: &Setting) {
    let directory = match Directory::read(path, &setting.driver_name) {
        Ok(Some(directory)) => directory,
        Ok(None) => {
            result.unreadable(
                Code::Unrecognised,
                "the directory is no volume of the driver: it has no ..data",
                "give the volume's mount point itself, or a file",
            );
            return;
        }
        Err(error) => {
            let action = "run it as root, or as a user who may read the volume";
            result.unreadable(Code::Unreadable, error.to_string(), action);
            return;
        }
    };
    result.kind = Some(Kind::Volume);
    let now = setting.now;
    let record = match &directory.record {
        Record::Read(record) => Some(&**record),
        _ => None,
    };
    let spec = record.and_then(recorded::spec);
    let names = Names::of(spec.as_ref(), &directory);

    let svid = set(result, &directory, &names, setting);
    recorded::judge(result, &directory, record, svid.as_ref(), path, now);
    if let Some(svid) = &svid {
        renewal(result, record, svid, now);
    }
    ownership::judge(result, &directory, spec.as_ref());
    // A copy has none, and what is pending has none yet.
    let mounted = directory.mount.as_ref().is_some_and(|mount| mount.ours);
    let socket = (mounted && directory.set.is_ok())
        .then(|| socket::judge(result, path, spec.as_ref()))
        .flatten();
    let id = svid.as_ref().map(X509Svid::id);
    let domain = id.or(record.map(|record| &record.spiffe_id)).map(SpiffeId::trust_domain);
    result.volume = Some(Volume {
        layout: domain.map(|domain| names::layout(&directory, domain)),
        record_read: record.is_some(),
        recorded: record.map(recorded::show),
        directory: directory.owner,
        federated: federated(&directory),
        socket,
        set: directory.set.ok().map(|(set, _)| set),
        mount: directory.mount,
    });
    result.files = directory.files.into_iter().map(|file| file.entry).collect();
}

/// Judges the files of the set and what they are together.
fn set(
    result: &mut Inspected,
    directory: &Directory,
    names: &Names,
    setting: &Setting,
) -> Option<X509Svid> {
    if let Err(error) = &directory.set {
        no_set(result, directory, error);
        return None;
    }
    for name in &names.required {
        if directory.file(name).is_none() {
            let action = "delete the pod; the volume of the new one will have it";
            result.error(Code::Missing, format!("there is no {name}"), action);
        }
    }
    for file in &directory.files {
        unreadable(result, file);
    }
    let content = |name: &Option<String>| {
        let file = directory.file(name.as_deref()?)?;
        file.content.as_ref().ok()
    };
    let (certificate, key) = (content(&names.certificate), content(&names.key));
    let combined = content(&names.combined);
    let chain = certificate.or(combined).and_then(Content::chain);
    let leaf = chain.and_then(|chain| chain.first());
    let svid = chain.and_then(|chain| judge::svid(result, chain, setting.now));
    if let Some(key) = key.or(combined).and_then(Content::key) {
        judge::key(result, key, leaf);
    }
    if let (Some(Content::Combined(key, other)), Some(chain), Some(leaf)) = (combined, chain, leaf)
        && certificate.is_some()
        && (other != chain || key.spki_der() != leaf.spki_der())
    {
        let name = names.combined.as_deref().unwrap_or_default();
        let message = format!("{name} holds another key or chain than the set's other files");
        result.error(Code::KeyMismatch, message, "delete the pod");
    }
    let own = bundles(result, directory, names, svid.as_ref(), setting.now);
    let against = setting.bundle.clone().or(own);
    if let (Some(svid), Some(against)) = (&svid, &against) {
        judge::chain(result, svid, against, setting.now);
    }
    // PEM files have no JWT keys.
    let json =
        directory.file(BUNDLE_JSON).and_then(|file| file.content.as_ref().ok()?.authorities());
    let named = |authorities: &Authorities| Against {
        authorities: authorities.clone(),
        name: BUNDLE_JSON.to_owned(),
    };
    let against = setting.bundle.clone().or(json.map(named));
    for file in &directory.files {
        if let Ok(Content::Token(text)) = &file.content {
            token::judge(result, Some(&file.entry.name), text, against.as_ref(), setting.now);
        }
    }
    svid
}

fn no_set(result: &mut Inspected, directory: &Directory, error: &io::Error) {
    match (error.kind(), &directory.record) {
        (io::ErrorKind::PermissionDenied, _) => {
            let action = "run it as root, or as a user who may read the volume";
            result.unreadable(Code::Unreadable, format!("..data: {error}"), action);
        }
        // What is pending is said elsewhere.
        (_, Record::Read(record)) if record.state == RecordState::Pending => {}
        _ => result.error(
            Code::Missing,
            "the volume shows no files: ..data leads to no set",
            "delete the pod if it still runs; the volume of the new one will have them",
        ),
    }
}

fn unreadable(result: &mut Inspected, file: &SetFile) {
    let name = &file.entry.name;
    match &file.content {
        Ok(_) => {}
        Err(FileError::Io(error)) => {
            let action = "run it as root, or as a user who may read the volume";
            result.unreadable(Code::Unreadable, format!("{name}: {error}"), action);
        }
        Err(FileError::Fault(Fault::Damaged(reason) | Fault::Unrecognised(reason))) => {
            let action = "somebody changed it, which the driver never does: delete the pod";
            result.error(Code::Damaged, format!("{name}: {reason}"), action);
        }
    }
}

/// Shows the own bundle, and judges it. What it can verify, if it is there.
fn bundles(
    result: &mut Inspected,
    directory: &Directory,
    names: &Names,
    svid: Option<&X509Svid>,
    now: SystemTime,
) -> Option<Against> {
    let authorities = |name: &str| -> Option<&Authorities> {
        directory.file(name)?.content.as_ref().ok()?.authorities()
    };
    let pem = names.bundle.as_deref().and_then(authorities);
    let json = authorities(BUNDLE_JSON);
    if let (Some(pem), Some(json)) = (pem, json)
        && pem.certificates != json.certificates
    {
        let name = names.bundle.as_deref().unwrap_or_default();
        let message = format!("{name} and {BUNDLE_JSON} have different authorities");
        result.error(Code::BundleMismatch, message, "delete the pod");
    }
    let shown = json.or(pem)?;
    let domain = svid.map(|svid| svid.id().trust_domain().clone()).or_else(|| shown.trust_domain());
    judge::bundle(result, shown, domain.map(|d| d.to_string()), now);
    // The PEM file is the one that applications load.
    let name = if pem.is_some() { names.bundle.as_deref() } else { None };
    Some(Against {
        authorities: pem.unwrap_or(shown).clone(),
        name: name.unwrap_or(BUNDLE_JSON).to_owned(),
    })
}

fn federated(directory: &Directory) -> Vec<String> {
    let names = directory.files.iter().filter_map(|file| {
        let name = file.entry.name.strip_prefix(FEDERATED)?;
        Some(name.strip_prefix('/')?.strip_suffix(".pem")?.to_owned())
    });
    names.collect()
}

/// When the SVID is renewed. The record's instant counts if it is about this very SVID.
fn renewal(
    result: &mut Inspected,
    record: Option<&VolumeRecord>,
    svid: &X509Svid,
    now: SystemTime,
) {
    let (begin, end) = (svid.not_before(), svid.not_after());
    let renewal = match record {
        Some(record) => {
            let known = record.renew_at;
            let recorded = known.filter(|_| record.serial.as_deref() == Some(svid.serial_hex()));
            let seed = record.volume_id.renewal_seed(svid.serial_hex());
            let at = recorded.unwrap_or_else(|| RenewalPolicy::renew_at(begin, end, &seed));
            Renewal::At { at: Moment(at) }
        }
        None => {
            let lifetime = end.duration_since(begin).unwrap_or_default();
            Renewal::Between {
                earliest: Moment(begin + lifetime / 2),
                latest: Moment(begin + lifetime * 2 / 3),
            }
        }
    };
    let (Renewal::At { at: due } | Renewal::Between { latest: due, .. }) = renewal;
    // A failing renewal is known for what it is.
    if record.is_none_or(|record| record.last_error.is_none()) {
        judge::overdue(result, due.0, svid, now);
    }
    if let Some(shown) = &mut result.svid {
        shown.renewal = Some(renewal);
    }
}
