//! The committed code in `src/` is what the `.proto` files generate today; `UPDATE=1` rewrites it.

use std::{error::Error, fs, path::Path};

use prost::Message;

const PROTOS: [&str; 6] = [
    "csi.proto",
    "issuer.proto",
    "pluginregistration.proto",
    "workload.proto",
    "envoy/service/secret/v3/sds.proto",
    "spire/api/agent/delegatedidentity/v1/delegatedidentity.proto",
];

/// What a workload's socket serves: server reflection describes these.
const SERVED: [&str; 3] = [
    "workload.proto",
    "envoy/service/secret/v3/sds.proto",
    "envoy/extensions/transport_sockets/tls/v3/secret.proto",
];

const DESCRIPTORS: &str = "workload_api.binpb";

const FILES: [(&str, &str); 12] = [
    ("csi.v1.rs", "csi.v1.rs"),
    ("svid.issuer.v1.rs", "svid.issuer.v1.rs"),
    ("pluginregistration.rs", "pluginregistration.rs"),
    // It has no package.
    ("_.rs", "workload.rs"),
    ("envoy.config.core.v3.rs", "envoy.config.core.v3.rs"),
    (
        "envoy.extensions.transport_sockets.tls.v3.rs",
        "envoy.extensions.transport_sockets.tls.v3.rs",
    ),
    ("envoy.service.discovery.v3.rs", "envoy.service.discovery.v3.rs"),
    ("envoy.service.secret.v3.rs", "envoy.service.secret.v3.rs"),
    ("envoy.r#type.v3.rs", "envoy.type.v3.rs"),
    ("google.rpc.rs", "google.rpc.rs"),
    ("spire.api.agent.delegatedidentity.v1.rs", "spire.api.agent.delegatedidentity.v1.rs"),
    ("spire.api.types.rs", "spire.api.types.rs"),
];

/// What can carry tokens or private keys: `src/lib.rs` writes their `Debug` by hand.
const REDACTED: [&str; 16] = [
    ".csi.v1.NodeExpandVolumeRequest",
    ".csi.v1.NodePublishVolumeRequest",
    ".csi.v1.NodeStageVolumeRequest",
    ".svid.issuer.v1.IssueX509SvidRequest",
    ".svid.issuer.v1.IssueJwtSvidRequest",
    ".svid.issuer.v1.JwtSvid",
    ".X509SVID",
    ".JWTSVID",
    ".ValidateJWTSVIDRequest",
    ".WITSVID",
    ".envoy.config.core.v3.DataSource",
    ".envoy.config.core.v3.DataSource.specifier",
    ".envoy.service.discovery.v3.DiscoveryResponse",
    ".envoy.service.discovery.v3.Resource",
    ".spire.api.agent.delegatedidentity.v1.X509SVIDWithKey",
    ".spire.api.types.JWTSVID",
];

#[test]
fn committed_code_is_what_the_protos_generate() -> Result<(), Box<dyn Error>> {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let fresh = tempfile::tempdir()?;
    let protos = [package.join("proto")];
    let secret = "envoy/extensions/transport_sockets/tls/v3/secret.proto";
    let descriptors = protox::compile(PROTOS.iter().chain([&secret]), &protos)?;
    tonic_prost_build::configure()
        .build_client(true)
        .build_server(true)
        // Shared by every message that has them, not copied.
        .bytes(".X509SVID")
        .bytes(".X509SVIDResponse")
        .bytes(".X509BundlesResponse")
        .bytes(".JWTBundlesResponse")
        .bytes(".envoy")
        .bytes(".svid.issuer.v1")
        .skip_debug(REDACTED)
        .out_dir(fresh.path())
        .compile_fds(descriptors)?;
    let mut served = protox::compile(SERVED, &protos)?;
    for file in &mut served.file {
        file.source_code_info = None;
    }
    fs::write(fresh.path().join(DESCRIPTORS), served.encode_to_vec())?;

    let update = std::env::var_os("UPDATE").is_some_and(|v| v == "1");
    for (name, kept) in FILES.into_iter().chain([(DESCRIPTORS, DESCRIPTORS)]) {
        let generated = fs::read(fresh.path().join(name))?;
        let committed = package.join("src").join(kept);
        if update {
            fs::write(&committed, &generated)?;
        }
        let current = fs::read(&committed).unwrap_or_default();
        assert!(
            current == generated,
            "src/{kept} is stale: run `UPDATE=1 cargo test -p svid-csi-proto` and commit it"
        );
    }
    Ok(())
}
