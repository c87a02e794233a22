//! What is kept on a volume's tmpfs: the set that the pod reads, and the record that a restart
//! reads.

use std::{collections::BTreeMap, io, sync::Arc};

use aws_lc_rs::digest::{SHA256, digest};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::{
    NodeError,
    jwt_files::JwtFiles,
    place::Places,
    volume::{Svid, Volume, Work},
};
use crate::{
    id::{SpiffeId, TrustDomain},
    jose::JwtSvid,
    pki::{PrivateKey, TrustBundle, X509Svid, certificates_from_pem},
    sys::{CurrentSet, FileSet, VolumeDir},
    trust::TrustBundles,
    volume::{AudienceSet, FileNames, JwtFile, RECORD_FILE, RecordState, VolumeRecord, VolumeSpec},
};

const BUNDLE: &str = "bundle.json";
const FEDERATED: &str = "federated/";
/// Far above what either can become, far below what would hurt.
const MAX_FILE: usize = 1 << 20;

/// The files of a set.
pub(super) fn files(
    spec: &VolumeSpec,
    svid: &Svid,
    bundles: &TrustBundles,
    jwts: &JwtFiles,
) -> FileSet {
    let key = svid.key.to_pem();
    let mut set = spec.files.file_set(&key, &svid.x509, &bundles.own, &bundles.federated);
    for (name, svid) in jwts {
        set.insert(name, svid.token());
    }
    set
}

/// The JWT-SVIDs of the set on the volume that are for whom they should be. Whether they are good
/// is not looked at.
pub(super) fn read_jwts(set: &CurrentSet, spec: &VolumeSpec) -> JwtFiles {
    let read = |file: &JwtFile| {
        let bytes = set.read(&file.name, MAX_FILE).ok()?;
        let svid = JwtSvid::parse(std::str::from_utf8(&bytes).ok()?).ok()?;
        let audience = AudienceSet::new(svid.audience().to_vec()).ok()?;
        (audience == file.audience).then(|| (file.name.clone(), Arc::new(svid)))
    };
    spec.jwt_files.iter().filter_map(read).collect()
}

/// The SVID of the set on the volume, if it is whole.
pub(super) fn read_svid(set: &CurrentSet, names: &FileNames) -> Option<Svid> {
    let read = |name: &str| {
        let bytes = set.read(name, MAX_FILE).ok()?;
        Some(Zeroizing::new(std::str::from_utf8(&bytes).ok()?.to_owned()))
    };
    let certificate = read(names.certificate.as_deref().or(names.combined.as_deref())?)?;
    let key = read(names.key.as_deref().or(names.combined.as_deref())?)?;
    let x509 = X509Svid::from_chain(certificates_from_pem(&certificate).ok()?).ok()?;
    let key = PrivateKey::from_pem(&key).ok()?;
    (key.spki_der() == x509.leaf().spki_der()).then(|| Svid { x509, key: Arc::new(key) })
}

/// The bundle of the set on the volume, if it is this trust domain's and one that a record vouches
/// for: others may be able to write to the volume, and what it trusts becomes everybody's.
pub(super) fn read_bundle(
    set: &CurrentSet,
    domain: &TrustDomain,
    vouched: &[String],
) -> Option<TrustBundle> {
    let json = set.read(BUNDLE, MAX_FILE).ok()?;
    vouched.contains(&sha256(&json)).then(|| TrustBundle::from_jwks(domain.clone(), &json).ok())?
}

/// The federated bundles of the set on the volume that a record vouches for. They come without JWT
/// authorities, which no file has.
pub(super) fn read_federated(
    set: &CurrentSet,
    vouched: &[String],
) -> BTreeMap<TrustDomain, TrustBundle> {
    let read = |line: &String| {
        let (path, digest) = line.split_once(' ')?;
        let domain: TrustDomain =
            path.strip_prefix(FEDERATED)?.strip_suffix(".pem")?.parse().ok()?;
        let pem = set.read(path, MAX_FILE).ok().filter(|pem| sha256(pem) == digest)?;
        let bundle = TrustBundle::from_pem(domain.clone(), std::str::from_utf8(&pem).ok()?).ok()?;
        Some((domain, bundle))
    };
    vouched.iter().filter_map(read).collect()
}

/// What a record has to vouch for before a set is written: the digest of the own trust domain's
/// bundle, and path and digest of each federated one.
pub(super) fn bundle_digests(set: &FileSet) -> Vec<String> {
    let digest = |(path, content): &(String, Zeroizing<Vec<u8>>)| {
        let federated = path.starts_with(FEDERATED);
        let digest = (federated || path == BUNDLE).then(|| sha256(content))?;
        Some(if federated { format!("{path} {digest}") } else { digest })
    };
    set.files.iter().filter_map(digest).collect()
}

fn sha256(bytes: &[u8]) -> String {
    digest(&SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether the set on the volume is, to the byte, the one it should be.
pub(super) fn holds(set: &CurrentSet, expected: &FileSet) -> bool {
    expected
        .files
        .iter()
        .all(|(name, content)| set.read(name, MAX_FILE).is_ok_and(|found| found == *content))
}

/// All that is read of a record that can't be used, but is the driver's own.
#[derive(Deserialize)]
struct Vouched {
    #[serde(default)]
    bundles: Vec<String>,
}

// === impl Places ===

impl Places {
    /// The volume's record, if this driver wrote it; `Err` says why it can't be used.
    pub(super) fn read_record(&self, dir: &VolumeDir) -> Result<VolumeRecord, String> {
        let json = self.read_verified(dir)?;
        VolumeRecord::from_json(&json).map_err(|error| error.to_string())
    }

    /// What the volume's record vouches for, also where a newer driver wrote the rest of it.
    pub(super) fn read_vouched(&self, dir: &VolumeDir) -> Vec<String> {
        let json = self.read_verified(dir).unwrap_or_default();
        serde_json::from_slice(&json).map_or_else(|_| Vec::new(), |Vouched { bundles }| bundles)
    }

    fn read_verified(&self, dir: &VolumeDir) -> Result<Vec<u8>, String> {
        let signed = dir.read_private(RECORD_FILE, MAX_FILE);
        let signed = signed.map_err(|error| format!("{RECORD_FILE}: {error}"))?;
        self.record_key.verify(&signed).map_err(|error| error.to_string())
    }

    /// Writes the record that fits the volume's work.
    pub(super) fn write_record(
        &self,
        dir: &VolumeDir,
        volume: &Volume,
        work: &Work,
        state: RecordState,
        id: &SpiffeId,
    ) -> Result<(), NodeError> {
        let write = || {
            let (Some(request), Some(spec)) = (&work.request, &work.spec) else {
                return Err(io::Error::other("a volume without a request has no record"));
            };
            let x509 = work.svid.as_ref().map(|svid| &svid.x509);
            let record = VolumeRecord {
                version: VolumeRecord::VERSION,
                state,
                driver: self.driver_name.clone(),
                volume_id: volume.id.clone(),
                target: volume.target.relative().to_owned(),
                pod: spec.pod.clone(),
                spiffe_id: id.clone(),
                assigned_id: work.assigned.as_ref().map(|assigned| assigned.id.clone()),
                assigned_key_algorithm: work.assigned.as_ref().map(|it| it.key_algorithm),
                context: request.context.clone(),
                mount_group: request.mount_group.clone(),
                serial: x509.map(|svid| svid.serial_hex().to_owned()),
                not_before: x509.map(X509Svid::not_before),
                not_after: x509.map(X509Svid::not_after),
                renew_at: x509.map(|svid| volume.renew_at(svid, work.pace())),
                bundles: work.vouched.clone(),
                taint: work.taint,
                last_error: work.last_error.clone(),
                noswap: work.noswap,
            };
            let json = record.to_json().map_err(io::Error::other)?;
            dir.write_private(RECORD_FILE, &self.record_key.sign(json))
        };
        write().map_err(NodeError::io("write the record of", volume.target.path()))
    }
}
