//! The committed code in `src/` is what the `.proto` files generate today; `UPDATE=1` rewrites it.

use std::{error::Error, fs, path::Path};

const FILES: [&str; 2] = ["csi.v1.rs", "pluginregistration.rs"];

/// Requests to a node that can carry tokens: `src/lib.rs` writes their `Debug` by hand.
const REDACTED: [&str; 3] = [
    ".csi.v1.NodeExpandVolumeRequest",
    ".csi.v1.NodePublishVolumeRequest",
    ".csi.v1.NodeStageVolumeRequest",
];

#[test]
fn committed_code_is_what_the_protos_generate() -> Result<(), Box<dyn Error>> {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let fresh = tempfile::tempdir()?;
    let descriptors =
        protox::compile(["csi.proto", "pluginregistration.proto"], [package.join("proto")])?;
    tonic_prost_build::configure()
        .build_client(true)
        .build_server(true)
        .skip_debug(REDACTED)
        .out_dir(fresh.path())
        .compile_fds(descriptors)?;

    let update = std::env::var_os("UPDATE").is_some_and(|v| v == "1");
    for name in FILES {
        let generated = fs::read_to_string(fresh.path().join(name))?;
        let committed = package.join("src").join(name);
        if update {
            fs::write(&committed, &generated)?;
        }
        let current = fs::read_to_string(&committed).unwrap_or_default();
        assert!(
            current == generated,
            "src/{name} is stale: run `UPDATE=1 cargo test -p svid-csi-proto` and commit it"
        );
    }
    Ok(())
}
