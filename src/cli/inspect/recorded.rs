//! What the driver's record tells, and what that means.

use std::{path::Path, time::SystemTime};

use super::{
    directory::{Directory, Record},
    facts::{LastError, Recorded},
    moment::Moment,
    report::{Code, Inspected},
};
use crate::{
    pki::X509Svid,
    volume::{Limits, PREFIX, RecordState, VolumeRecord, VolumeSpec},
};

/// What the pod asked for; `None` if a later driver knows it and this one doesn't.
pub(super) fn spec(record: &VolumeRecord) -> Option<VolumeSpec> {
    let (context, group) = (&record.context, record.mount_group.as_deref());
    let domain = record.spiffe_id.trust_domain();
    VolumeSpec::parse_lenient(context, group, domain, &Limits::default()).ok()
}

/// The part of it that people look at.
pub(super) fn show(record: &VolumeRecord) -> Recorded {
    let attributes = record.context.iter().filter_map(|(key, value)| {
        let name = key.strip_prefix(PREFIX)?;
        Some((name.to_owned(), value.to_owned()))
    });
    Recorded {
        driver: record.driver.clone(),
        volume_id: record.volume_id.to_string(),
        state: record.state,
        target: record.target.clone(),
        pod: record.pod.clone(),
        attributes: attributes.collect(),
        mount_group: record.mount_group.clone(),
        last_error: record.last_error.as_ref().map(|error| LastError {
            at: Moment(error.at),
            class: error.class.clone(),
            message: error.message.clone(),
        }),
    }
}

/// Judges the record, and that there is one.
pub(super) fn judge(
    result: &mut Inspected,
    directory: &Directory,
    record: Option<&VolumeRecord>,
    svid: Option<&X509Svid>,
    path: &Path,
    now: SystemTime,
) {
    let ours = directory.mount.as_ref().is_some_and(|mount| mount.ours);
    let waits = "the driver leaves the volume as it is until kubelet publishes it again; \
                 if that does not help, delete the pod";
    match &directory.record {
        Record::Unusable(reason) => result.error(Code::Record, reason.clone(), waits),
        Record::Missing if ours => {
            let message = "the volume has no record, so the driver does not renew it";
            result.error(Code::Record, message, waits);
        }
        Record::Read(_) | Record::Forbidden | Record::Missing => {}
    }
    let Some(record) = record else { return };
    if record.state == RecordState::Pending {
        result.error(
            Code::NotPublished,
            "the volume is not published yet: its first SVID is still to come",
            "look at the pod's events; kubelet tries again by itself",
        );
    }
    if let Some(svid) = svid
        && *svid.id() != record.spiffe_id
    {
        let message =
            format!("the certificate is for {}, the volume for {}", svid.id(), record.spiffe_id);
        result.error(Code::IdentityMismatch, message, "delete the pod");
    }
    // Elsewhere, as in the pod, the path says nothing.
    if let Ok(found) = path.canonicalize()
        && found.to_string_lossy().contains("/kubernetes.io~csi/")
        && !found.ends_with(&record.target)
    {
        let message = format!("the record belongs to {}", record.target);
        result.error(Code::Record, message, waits);
    }
    if let Some(taint) = &record.taint {
        let known = Moment(taint.since).relative(now);
        let message = format!(
            "the CA key that signed the certificate is believed stolen, as this node learned {known}"
        );
        result.warn(
            Code::Tainted,
            message,
            "nothing: it is renewed at once, spread over some time",
        );
    }
    if let Some(error) = &record.last_error {
        let message = format!(
            "renewal failed {} ({}): {}",
            Moment(error.at).relative(now),
            error.class,
            error.message
        );
        result.error(Code::RenewalFailing, message, action(&error.class));
    }
}

/// What to do about a failure of this class ([`crate::class::Class::label`]).
fn action(class: &str) -> &'static str {
    match class {
        "invalid" => "the request is refused: correct the pod's volumeAttributes",
        "denied" => "policy refuses it: ask whoever keeps the policy",
        "not_ready" => "somebody has to set up what is missing; it is tried again by itself",
        "unavailable" => "look at the signer; it is tried again by itself",
        _ => "look at the log of the node plugin; it is tried again by itself",
    }
}
