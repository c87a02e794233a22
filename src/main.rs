//! The `svid-csi` program; see [`svid_csi::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    svid_csi::cli::main()
}
