//! The clients' programs, built or fetched by their own languages' tools.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

pub struct Programs(BTreeMap<&'static str, PathBuf>);

// === impl Programs ===

impl Programs {
    pub fn build() -> Self {
        let build = |name| {
            let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/build");
            let output = Command::new(script).arg(name).stderr(Stdio::inherit()).output().unwrap();
            assert!(output.status.success(), "tests/clients/build {name}");
            let path = String::from_utf8(output.stdout).unwrap();
            (name, PathBuf::from(path.trim()))
        };
        Self(["go", "grpcurl", "java", "node", "python", "rust"].map(build).into())
    }

    pub fn of(&self, directory: &str) -> &Path {
        &self.0[directory]
    }
}
