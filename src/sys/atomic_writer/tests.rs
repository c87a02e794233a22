//! The writer on real tmpfs mounts, looked at through ordinary paths.

use std::{
    fs,
    os::unix::fs::{MetadataExt, symlink},
    path::Path,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use proptest::{prelude::*, test_runner::TestRunner};

use super::*;
use crate::{
    clock::{Clock, SystemClock},
    sys::{TmpfsOptions, volume_dir::tests::on_tmpfs},
};

const OPEN: Ownership = Ownership { uid: None, gid: None, file_mode: 0o444, dir_mode: 0o755 };

type Tree = BTreeMap<String, Vec<u8>>;

fn set(files: &[(&str, &str)]) -> FileSet {
    let mut set = FileSet::new();
    for (path, content) in files {
        set.insert(*path, *content);
    }
    set
}

fn tree_of(set: &FileSet) -> Tree {
    let files = set.files.iter();
    files.map(|(path, content)| (path.clone(), content.to_vec())).collect()
}

/// What a pod sees: all that the names not beginning with a dot lead to.
fn visible(root: &Path) -> Tree {
    fn walk(dir: &Path, prefix: &str, tree: &mut Tree) {
        for entry in fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            if prefix.is_empty() && name.starts_with("..") || name == ".svid" {
                continue;
            }
            let path = format!("{prefix}{name}");
            match entry.path().metadata() {
                Ok(meta) if meta.is_dir() => walk(&entry.path(), &format!("{path}/"), tree),
                Ok(_) => drop(tree.insert(path, fs::read(entry.path()).unwrap())),
                Err(_) => drop(tree.insert(path, b"(dangling)".to_vec())),
            }
        }
    }
    let mut tree = Tree::new();
    walk(root, "", &mut tree);
    tree
}

/// Every name at the top and in the sets, to see that nothing is left behind.
fn everything(root: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for entry in fs::read_dir(root).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let link = fs::read_link(entry.path()).unwrap_or_default();
        names.push(format!("{name} -> {}", link.display()));
    }
    names.sort();
    names
}

fn sets(root: &Path) -> Vec<u64> {
    let entries = fs::read_dir(root).unwrap();
    let mut sets: Vec<u64> =
        entries.filter_map(|entry| parse_set_name(&entry.unwrap().file_name())).collect();
    sets.sort_unstable();
    sets
}

fn write(volume: &VolumeDir, set: &FileSet) {
    AtomicWriter::new(volume).write(set, &OPEN, SystemClock.now()).unwrap();
}

/// So long after every change so far that no reader can still be at it.
fn later() -> SystemTime {
    SystemClock.now() + Duration::from_secs(60)
}

#[test]
fn each_change_of_payload_shows_exactly_the_new_set() {
    // The cases of kubelet's own test of its writer, each as a step from one payload to the next.
    let many: Vec<(String, String)> =
        (0..150).map(|n| (format!("federated/td{n}.example.pem"), format!("{n}"))).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    let steps: Vec<Vec<(&str, &str)>> = vec![
        vec![("foo", "foo"), ("bar", "bar")],
        vec![("foo", "foo"), ("bar", "bar")],
        vec![("foo", "new"), ("bar", "bar")],
        vec![("foo", "new"), ("bar", "bar"), ("added", "x")],
        vec![("foo", "new")],
        vec![("foo/deep/er.txt", "was a file"), ("foo/bar.txt", "y"), (".hidden", "z")],
        vec![("foo/deep/er.txt", "changed"), ("foo/zab/1/2/3.txt", "new"), ("bar", "")],
        vec![("foo/deep/new.txt", "renamed")],
        vec![("foo", "was a directory")],
        many,
        vec![("binary", "\u{0}\u{1}\u{ffff}"), ("with space", "1")],
        vec![],
        vec![("foo", "back again")],
    ];
    on_tmpfs(&TmpfsOptions::new("test"), |volume, root| {
        let writer = AtomicWriter::new(volume);
        assert!(!writer.has_current().unwrap());
        assert!(writer.current().unwrap().is_none());
        for (index, step) in steps.iter().enumerate() {
            let payload = set(step);
            let before = fs::read_link(root.join("..data")).ok();
            write(volume, &payload);
            assert_eq!(visible(root), tree_of(&payload), "step {index}");
            assert_ne!(fs::read_link(root.join("..data")).ok(), before, "swapped at step {index}");
            let current = writer.current().unwrap().unwrap();
            assert_eq!(current.sequence(), index as u64 + 1);
            let paths: Vec<String> = tree_of(&payload).into_keys().collect();
            assert_eq!(current.paths().unwrap(), paths);
            for (path, content) in &payload.files {
                assert_eq!(*writer.read(path, 1000).unwrap(), **content);
            }
            assert!(!everything(root).iter().any(|name| name.contains("tmp")));
        }
        assert!(writer.has_current().unwrap());
    });
}

#[test]
fn any_sequence_of_payloads_shows_the_last() {
    on_tmpfs(&TmpfsOptions::new("test"), |volume, root| {
        let name = "[a-c]|[a-c]/[xy]|[a-c]/[xy]/z";
        let payload = proptest::collection::btree_map(name, "[0-9]{0,3}", 0..6);
        TestRunner::default()
            .run(&(payload, any::<bool>()), |(payload, late)| {
                let mut next = FileSet::new();
                for (path, content) in &payload {
                    next.insert(path.as_str(), content.as_str());
                }
                let before = (visible(root), fs::read_link(root.join("..data")).ok());
                let now = if late { later() } else { SystemClock.now() };
                match AtomicWriter::new(volume).write(&next, &OPEN, now) {
                    Ok(()) => prop_assert_eq!(visible(root), tree_of(&next)),
                    // `a` and `a/x` cannot both be.
                    Err(_) => prop_assert_eq!(
                        (visible(root), fs::read_link(root.join("..data")).ok()),
                        before
                    ),
                }
                prop_assert!(sets(root).len() <= 3);
                Ok(())
            })
            .unwrap();
    });
}

#[test]
fn ownership_and_modes_are_set_on_files_and_directories() {
    on_tmpfs(&TmpfsOptions::new("test"), |volume, root| {
        let own = Ownership { uid: Some(1234), gid: Some(5678), file_mode: 0o440, dir_mode: 0o750 };
        let payload = set(&[("tls.key", "k"), ("federated/a.pem", "a")]);
        AtomicWriter::new(volume).write(&payload, &own, SystemClock.now()).unwrap();
        for (path, mode) in [
            ("..data/", 0o750),
            ("tls.key", 0o440),
            ("federated", 0o750),
            ("federated/a.pem", 0o440),
        ] {
            let meta = root.join(path).metadata().unwrap();
            assert_eq!((meta.uid(), meta.gid()), (1234, 5678), "{path}");
            assert_eq!(meta.mode() & 0o7777, mode, "{path}");
        }
    });
}

#[test]
fn the_set_before_stays_and_an_older_one_for_ten_seconds() {
    on_tmpfs(&TmpfsOptions::new("test"), |volume, root| {
        let writer = AtomicWriter::new(volume);
        let at = |now| writer.write(&set(&[("a", "x")]), &OPEN, now).unwrap();
        let now = || SystemClock.now();
        at(now());
        assert_eq!(sets(root), [1]);
        at(now());
        assert_eq!(sets(root), [1, 2]);
        at(now());
        assert_eq!(sets(root), [1, 2, 3], "1 ceased to be current just now");
        at(now());
        assert_eq!(sets(root), [2, 3, 4], "three at most");
        at(now() + Duration::from_secs(9));
        assert_eq!(sets(root), [3, 4, 5]);
        at(now() + Duration::from_secs(11));
        assert_eq!(sets(root), [5, 6], "4 ceased eleven seconds ago");
        at(now() + Duration::from_secs(3600));
        assert_eq!(sets(root), [6, 7], "the set before stays however old");
        at(now() - Duration::from_secs(3600));
        assert_eq!(sets(root), [6, 7, 8], "a clock that went back removes nothing early");
    });
}

#[test]
fn a_reader_never_sees_a_mixed_or_missing_set() {
    // Invariant 2: files seen through one resolved `..data` match, and none is ever missing.
    const SWAPS: u64 = 1_500;
    on_tmpfs(&TmpfsOptions::new("test"), |volume, root| {
        let payload = |n: u64| {
            let mut set = FileSet::new();
            for path in ["tls.crt", "tls.key", "ca.crt", "federated/a.pem"] {
                set.insert(path, format!("{n} {}", "x".repeat(3000)));
            }
            set
        };
        write(volume, &payload(0));
        let (stop, rounds) = (AtomicBool::new(false), AtomicU64::new(0));
        std::thread::scope(|scope| {
            let by_path = scope.spawn(|| {
                let mut generations = BTreeSet::new();
                while !stop.load(Ordering::Acquire) {
                    // As an application does that resolves `..data` once.
                    let dir = root.join(fs::read_link(root.join("..data")).unwrap());
                    let first = fs::read(dir.join("tls.crt")).unwrap();
                    for path in ["tls.key", "ca.crt", "federated/a.pem"] {
                        assert_eq!(fs::read(dir.join(path)).unwrap(), first);
                    }
                    // As one does that opens the plain name: never missing, never half.
                    assert_eq!(
                        fs::read(root.join("tls.key")).unwrap().len() % 3000,
                        first.len() % 3000
                    );
                    let through = CurrentSet::open(volume.as_fd()).unwrap().unwrap();
                    let key = through.read("tls.key", 10_000).unwrap();
                    assert_eq!(through.read("tls.crt", 10_000).unwrap(), key);
                    generations.insert(first);
                    rounds.fetch_add(1, Ordering::Release);
                }
                generations.len()
            });
            for n in 1..=SWAPS {
                // Of one length, so that a plain read can be checked for being whole.
                let result = AtomicWriter::new(volume).write(&payload(n % 10), &OPEN, later());
                if result.is_err() || by_path.is_finished() {
                    break;
                }
                // The next swap waits for the round under way at this one, so that each round spans
                // one at most: its reader needs the set before, and no older one.
                let seen = rounds.load(Ordering::Acquire);
                while rounds.load(Ordering::Acquire) == seen && !by_path.is_finished() {
                    std::thread::yield_now();
                }
            }
            stop.store(true, Ordering::Release);
            assert_eq!(by_path.join().unwrap(), 10);
        });
        assert_eq!(CurrentSet::open(volume.as_fd()).unwrap().unwrap().sequence(), SWAPS + 1);
    });
}

#[test]
fn a_full_tmpfs_fails_the_write_and_never_the_live_set() {
    // Invariants 2 and 3, with the room running out at every step of a write.
    let mut kinds = BTreeSet::new();
    for nr_inodes in 9..30 {
        let options = TmpfsOptions { nr_inodes, ..TmpfsOptions::new("test") };
        on_tmpfs(&options, |volume, root| {
            let writer = AtomicWriter::new(volume);
            let old = set(&[("tls.crt", "old"), ("tls.key", "old")]);
            if writer.write(&old, &OPEN, later()).is_err() {
                assert!(everything(root).is_empty());
                return;
            }
            let before = everything(root);
            let new =
                set(&[("tls.crt", "new"), ("tls.key", "new"), ("more", "1"), ("dir/deep/x", "2")]);
            match writer.write(&new, &OPEN, later()) {
                Ok(()) => {
                    kinds.insert("fits");
                    assert_eq!(visible(root), tree_of(&new));
                }
                Err(error) => {
                    kinds.insert("full");
                    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
                    assert_eq!(everything(root), before);
                    assert_eq!(visible(root), tree_of(&old));
                }
            }
        });
    }
    assert_eq!(kinds.len(), 2, "both outcomes were tried");

    let options = TmpfsOptions { size: 64 << 10, ..TmpfsOptions::new("test") };
    on_tmpfs(&options, |volume, root| {
        let old = set(&[("tls.key", "old")]);
        write(volume, &old);
        let before = everything(root);
        for _ in 0..3 {
            let big = "x".repeat(50_000);
            let new = set(&[("tls.crt", &big), ("tls.key", &big)]);
            let error = AtomicWriter::new(volume).write(&new, &OPEN, later()).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::StorageFull);
            assert_eq!(everything(root), before);
            assert_eq!(visible(root), tree_of(&old));
        }
        write(volume, &set(&[("tls.key", "fits again")]));
    });
}

#[test]
fn a_set_that_contradicts_itself_changes_nothing() {
    on_tmpfs(&TmpfsOptions::new("test"), |volume, root| {
        write(volume, &set(&[("a", "old")]));
        let before = everything(root);
        for bad in [
            vec![("new", "1"), ("a", "1"), ("a", "2")],
            vec![("new", "1"), ("a", "1"), ("a/b", "2")],
            vec![("new", "1"), ("a/b", "1"), ("a", "2")],
            vec![("new", "1"), ("../escape", "")],
            vec![("new", "1"), ("/etc/passwd", "")],
            vec![("new", "1"), ("..data", "")],
            vec![("new", "1"), (".svid/record.json", "")],
        ] {
            AtomicWriter::new(volume).write(&set(&bad), &OPEN, later()).unwrap_err();
            assert_eq!(everything(root), before, "{bad:?}");
        }
        assert!(!root.parent().unwrap().join("escape").exists());
    });
}

/// Leaves behind what a writer of `..3` leaves that is killed after some step.
fn crash_leftovers(root: &Path, step: usize) {
    let dir = root.join("..3");
    if step >= 1 {
        fs::create_dir(&dir).unwrap();
    }
    if step >= 2 {
        fs::write(dir.join("tls.crt"), "half").unwrap();
    }
    if step >= 3 {
        fs::create_dir(dir.join("federated")).unwrap();
        fs::write(dir.join("federated/a.pem"), "half").unwrap();
    }
    if step >= 4 {
        symlink("..data/new", root.join("new")).unwrap();
    }
    if step >= 5 {
        symlink("..3", root.join("..data_tmp")).unwrap();
    }
    if step >= 6 {
        symlink("..data/x", root.join("..link_tmp")).unwrap();
    }
}

#[test]
fn leftovers_of_a_crash_are_swept_and_in_no_writers_way() {
    // Invariant 4.
    for step in 0..=6 {
        for sweep in [true, false] {
            on_tmpfs(&TmpfsOptions::new("test"), |volume, root| {
                let live = set(&[("tls.crt", "2"), ("tls.key", "2")]);
                write(volume, &set(&[("tls.crt", "1"), ("tls.key", "1")]));
                write(volume, &live);
                volume.write_private("record.json", b"{}").unwrap();
                let before = everything(root);
                crash_leftovers(root, step);
                let writer = AtomicWriter::new(volume);
                if sweep {
                    writer.sweep().unwrap();
                    assert_eq!(everything(root), before, "step {step}");
                    assert_eq!(visible(root), tree_of(&live));
                }
                let next = set(&[("tls.crt", "next"), ("federated/b.pem", "b")]);
                writer.write(&next, &OPEN, later()).unwrap();
                assert_eq!(visible(root), tree_of(&next), "step {step}");
                assert_eq!(sets(root).len(), 2);
                assert!(!everything(root).iter().any(|name| name.contains("tmp")));
                assert_eq!(volume.read_private("record.json", 9).unwrap().as_slice(), b"{}");
            });
        }
    }
}

#[test]
fn sweeping_after_a_crash_beyond_the_swap_removes_old_sets_and_stale_links() {
    on_tmpfs(&TmpfsOptions::new("test"), |volume, root| {
        for n in ["1", "2", "3"] {
            write(volume, &set(&[("a", n), ("gone", n)]));
        }
        // The swap to a set without `gone` happened, what comes after it did not.
        fs::create_dir(root.join("..4")).unwrap();
        fs::write(root.join("..4/a"), "4").unwrap();
        symlink("..4", root.join("..data_tmp")).unwrap();
        fs::rename(root.join("..data_tmp"), root.join("..data")).unwrap();
        AtomicWriter::new(volume).sweep().unwrap();
        assert_eq!(visible(root), tree_of(&set(&[("a", "4")])));
        assert_eq!(sets(root), [3, 4]);
    });
}

#[test]
fn sweeping_a_volume_that_was_never_published_empties_it_of_sets() {
    on_tmpfs(&TmpfsOptions::new("test"), |volume, root| {
        AtomicWriter::new(volume).sweep().unwrap();
        volume.write_private("record.json", b"{}").unwrap();
        crash_leftovers(root, 6);
        AtomicWriter::new(volume).sweep().unwrap();
        assert_eq!(everything(root), [".svid -> "]);
    });
}

#[test]
fn what_is_not_ours_is_neither_followed_nor_lost() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("keep"), "keep").unwrap();
    on_tmpfs(&TmpfsOptions::new("test"), |volume, root| {
        write(volume, &set(&[("a", "1")]));
        fs::write(root.join("spiffe.sock"), "stands for a socket").unwrap();
        symlink(outside.path(), root.join("foreign")).unwrap();
        symlink(outside.path(), root.join("..9")).unwrap();
        symlink(outside.path().join("keep"), root.join("new")).unwrap();

        // A symlink in the way of a new name is replaced, one that poses as a set is removed.
        write(volume, &set(&[("a", "2"), ("new", "2")]));
        assert_eq!(fs::read(root.join("new")).unwrap(), b"2");
        assert_eq!(fs::read_link(root.join("..data")).unwrap(), Path::new("..10"));
        assert!(root.join("foreign").exists() && root.join("spiffe.sock").exists());
        assert_eq!(sets(root), [1, 10]);

        // What is no link at all is not replaced, and the live set stays.
        let before = everything(root);
        let clash = set(&[("a", "3"), ("b", "3"), ("spiffe.sock", "3")]);
        AtomicWriter::new(volume).write(&clash, &OPEN, later()).unwrap_err();
        assert_eq!(everything(root), before);

        AtomicWriter::new(volume).clear().unwrap();
        assert!(everything(root).is_empty());
    });
    assert_eq!(fs::read(outside.path().join("keep")).unwrap(), b"keep");
}

#[test]
fn a_broken_data_link_is_left_by_the_sweep_and_healed_by_a_write() {
    on_tmpfs(&TmpfsOptions::new("test"), |volume, root| {
        write(volume, &set(&[("a", "1")]));
        for target in ["/etc", "..77", "../..1", "x"] {
            fs::remove_file(root.join("..data")).unwrap();
            symlink(target, root.join("..data")).unwrap();
            let writer = AtomicWriter::new(volume);
            writer.current().unwrap_err();
            assert!(writer.has_current().unwrap());
            let before = sets(root);
            writer.sweep().unwrap();
            assert_eq!(sets(root), before);
            write(volume, &set(&[("a", target)]));
            assert_eq!(visible(root), tree_of(&set(&[("a", target)])));
        }
    });
}

#[test]
fn clearing_leaves_nothing_and_can_be_repeated() {
    on_tmpfs(&TmpfsOptions::new("test"), |volume, root| {
        for n in ["1", "2", "3"] {
            write(volume, &set(&[("a", n), ("federated/x.pem", n)]));
        }
        volume.write_private("record.json", b"{}").unwrap();
        AtomicWriter::new(volume).clear().unwrap();
        assert!(everything(root).is_empty());
        let free = volume.usage().unwrap();
        assert_eq!(free.bytes_free, free.bytes_total);
        AtomicWriter::new(volume).clear().unwrap();
    });
}
