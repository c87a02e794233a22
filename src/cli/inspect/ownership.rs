//! Judges who may read a volume, and where it is kept.

use super::{
    directory::{Directory, Record},
    facts::Owner,
    report::{Code, Inspected},
};
use crate::{sys::Ownership, volume::VolumeSpec};

const ACTION: &str = "somebody changed it: delete the pod, or wait for the next renewal";

/// Judges modes and owners: by what the pod asked for where that is known, else by what no volume
/// ever has.
pub(super) fn judge(result: &mut Inspected, directory: &Directory, spec: Option<&VolumeSpec>) {
    let set = directory.set.as_ref().ok().map(|(_, owner)| *owner);
    let ours = directory.mount.as_ref().is_some_and(|mount| mount.ours);
    let mut wrong = Vec::new();
    match spec {
        Some(spec) => {
            let own = spec.ownership;
            let mut expect = |name: &str, found: Owner, mode| {
                let expected = expected(own, mode);
                if found != expected {
                    wrong.push(format!("{name} is {found} and should be {expected}"));
                }
            };
            expect("the directory", directory.owner, own.dir_mode);
            if let Some(set) = set {
                expect("the set's directory", set, own.dir_mode);
            }
            for file in &directory.files {
                expect(&file.entry.name, file.entry.owner, own.file_mode);
            }
        }
        // Another kind of volume may have other rules.
        None if ours || matches!(directory.record, Record::Forbidden) => {
            let directories = [
                Some(("the directory", directory.owner)),
                set.map(|set| ("the set's directory", set)),
            ];
            for (name, owner) in directories.into_iter().flatten() {
                if owner.mode & 0o022 != 0 {
                    wrong.push(format!("{name} is {owner}: others may write to it"));
                }
            }
            for file in &directory.files {
                let owner = file.entry.owner;
                if owner.mode & !0o444 != 0 {
                    let name = &file.entry.name;
                    wrong.push(format!("{name} is {owner} and should be read-only"));
                }
            }
        }
        None => {}
    }
    // One line, however many files there are.
    if let Some(first) = wrong.first() {
        let more = match wrong.len() - 1 {
            0 => String::new(),
            more => format!(", and {more} more"),
        };
        result.error(Code::Modes, format!("{first}{more}"), ACTION);
    }
    in_memory(result, directory);
}

fn expected(own: Ownership, mode: u32) -> Owner {
    Owner { mode, uid: own.uid.unwrap_or(0), gid: own.gid.unwrap_or(0) }
}

fn in_memory(result: &mut Inspected, directory: &Directory) {
    let Some(mount) = &directory.mount else {
        return;
    };
    if !matches!(mount.fs_type.as_str(), "tmpfs" | "ramfs") {
        let message = format!("the files are on {}, not in memory", mount.fs_type);
        let action = "if it is a copy, destroy it, its key is on a disk; else look whether the \
                      volume is still mounted";
        result.error(Code::NotInMemory, message, action);
    }
}
