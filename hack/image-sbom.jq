# cargo-cyclonedx's document, less what is not in the program, plus what is in the image beside it.
def lines: split("\n") | map(select(. != ""));
def licenses_of: {
    libc6: "LGPL-2.1-or-later",
    "libgcc-s1": "GPL-3.0-or-later WITH GCC-exception-3.1",
};
def debian_package:
    split(" ") as [$name, $version, $arch, $source]
    | "pkg:deb/debian/\($name)@\($version | @uri)?arch=\($arch)&distro=debian-\($debian)" as $purl
    | {type: "library", "bom-ref": $purl, $name, $version, $purl, scope: "required",
       publisher: "Debian", properties: [{name: "debian:source", value: $source}]}
      + (licenses_of[$name] as $license | if $license then {licenses: [{expression: $license}]} else {} end);
def standard_library:
    "pkg:github/rust-lang/rust@\($rust)" as $purl
    | {type: "library", "bom-ref": $purl, name: "rust-std", version: $rust, $purl, scope: "required",
       description: "Rust's standard library, as the compiler came with it",
       licenses: [{expression: "MIT OR Apache-2.0"}]};

($linked | lines) as $linked
| .metadata.component["bom-ref"] as $root
| ([$packages | lines[] | debian_package] + [standard_library]) as $added
| .components |= map(select("\(.name)@\(.version)" | IN($linked[])))
| ([.components[]["bom-ref"]] + [$root]) as $kept
| .dependencies |= (map(select(.ref | IN($kept[])))
    | map(if .dependsOn then .dependsOn |= map(select(IN($kept[]))) else . end)
    | map(if .ref == $root then .dependsOn += [$added[]["bom-ref"]] else . end))
| .components += $added
| .dependencies += ($added | map({ref: .["bom-ref"]}))
| .metadata.component |= (del(.components) | .hashes = [{alg: "SHA-256", content: $program}])
# Where it was built is nobody's business, and differs.
| walk(if type == "string" then split("file://\($checkout)") | join("file:///svid-csi")
    | sub("[?]download_url=file://[^#]*"; "")
    # cargo leaves the name out where the checkout's directory has it.
    | sub("^path[+]file:///svid-csi#(?<version>[^@]*)$"; "path+file:///svid-csi#svid-csi@\(.version)")
    else . end)
