//! The least that a published volume can cost: the same mount, keys, signatures and files, and
//! nothing around them.

use std::{
    fs,
    io::Write,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair},
};
use nix::{
    fcntl::{OFlag, open, openat, renameat},
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::stat::{Mode, fchmod, mkdirat},
    unistd::{mkdir, symlinkat},
};

/// Makes volumes with no service. They hold the bytes of a volume that the service made.
pub struct Floor {
    root: PathBuf,
    ca: EcdsaKeyPair,
    random: SystemRandom,
    files: Vec<(String, Vec<u8>)>,
    record: Vec<u8>,
    options: &'static str,
}

const OPTIONS: [&str; 2] =
    ["size=4194304,nr_inodes=2048,mode=0755,noswap", "size=4194304,nr_inodes=2048,mode=0755"];
/// About what a CSR and a certificate of ours have to be signed.
const CSR: [u8; 200] = [7; 200];
const CERTIFICATE: [u8; 400] = [7; 400];

// === impl Floor ===

impl Floor {
    /// Volumes under `root` that are like this one.
    pub fn like(volume: &Path, root: PathBuf) -> Self {
        fs::create_dir(&root).unwrap();
        let names = fs::read_dir(volume.join("..data")).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut floor = Self {
            files: names.map(|name| (name.clone(), fs::read(volume.join(name)).unwrap())).collect(),
            record: fs::read(volume.join(".svid/record.json")).unwrap(),
            root,
            ca: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap(),
            random: SystemRandom::new(),
            options: OPTIONS[0],
        };
        if fs::read_to_string("/proc/thread-self/mountinfo")
            .unwrap()
            .lines()
            .all(|line| !line.contains("noswap"))
        {
            floor.options = OPTIONS[1];
        }
        floor
    }

    fn target(&self, n: usize) -> PathBuf {
        self.root.join(n.to_string())
    }

    pub fn publish(&self, n: usize) {
        let target = self.target(n);
        mkdir(&target, Mode::from_bits_truncate(0o750)).unwrap();
        mount(
            Some("floor"),
            &target,
            Some("tmpfs"),
            MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC,
            Some(self.options),
        )
        .unwrap();
        let directory = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let root = open(&target, directory, Mode::empty()).unwrap();
        mkdirat(&root, ".svid", Mode::from_bits_truncate(0o700)).unwrap();
        let private = openat(&root, ".svid", directory, Mode::empty()).unwrap();
        self.write_record(&private);

        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
        key.sign(&self.random, &CSR).unwrap();
        self.ca.sign(&self.random, &CERTIFICATE).unwrap();

        mkdirat(&root, "..1", Mode::from_bits_truncate(0o755)).unwrap();
        let set = openat(&root, "..1", directory, Mode::empty()).unwrap();
        for (name, content) in &self.files {
            write(&set, name, content, 0o444);
            let link = format!("..data/{name}");
            symlinkat(link.as_str(), &root, name.as_str()).unwrap();
        }
        symlinkat("..1", &root, "..data_tmp").unwrap();
        renameat(&root, "..data_tmp", &root, "..data").unwrap();
        self.write_record(&private);
    }

    pub fn unpublish(&self, n: usize) {
        let target = self.target(n);
        umount2(&target, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW).unwrap();
        fs::remove_dir(target).unwrap();
    }

    fn write_record(&self, private: &OwnedFd) {
        write(private, ".tmp", &self.record, 0o600);
        renameat(private, ".tmp", private, "record.json").unwrap();
    }
}

fn write(dir: &OwnedFd, name: &str, content: &[u8], mode: u32) {
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
    let file = openat(dir, name, flags, Mode::from_bits_truncate(0o600)).unwrap();
    let mut file = fs::File::from(file);
    file.write_all(content).unwrap();
    fchmod(file.as_fd(), Mode::from_bits_truncate(mode)).unwrap();
}
