//! Settings of `--signer agent`.

use std::path::PathBuf;

use clap::Args;

use super::SignerKind;
use crate::cli::UsageError;

/// Arguments about a SPIRE agent.
#[derive(Debug, Args)]
pub(super) struct AgentArgs {
    /// With --signer agent: the SPIRE agent's admin socket (its admin_socket_path), where it serves
    /// the Delegated Identity API
    #[arg(long, env = "SVID_CSI_AGENT_SOCKET", value_name = "PATH")]
    agent_socket: Option<PathBuf>,
}

// === impl AgentArgs ===

impl AgentArgs {
    /// The socket, where the agent signs.
    pub(super) fn settings(self, signer: SignerKind) -> Result<Option<PathBuf>, UsageError> {
        let refuse = |reason| Err(UsageError::new("--agent-socket", reason));
        // An empty variable of the environment is none.
        let given = self.agent_socket.filter(|path| !path.as_os_str().is_empty());
        match (signer, given) {
            (SignerKind::Agent, None) => refuse("is needed with --signer agent"),
            (SignerKind::Agent, Some(path)) if !path.is_absolute() => {
                refuse("must be an absolute path, such as /run/spire/admin/admin.sock")
            }
            (SignerKind::Agent, path) => Ok(path),
            (_, None) => Ok(None),
            (_, Some(_)) => refuse("is for --signer agent"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_is_needed_with_that_signer_and_only_there() {
        let args = |path: Option<&str>| AgentArgs { agent_socket: path.map(PathBuf::from) };
        let path = "/run/spire/admin/admin.sock";
        let given = args(Some(path)).settings(SignerKind::Agent).unwrap();
        assert_eq!(given.as_deref(), Some(path.as_ref()));
        assert_eq!(args(None).settings(SignerKind::Csr).unwrap(), None);
        assert_eq!(args(Some("")).settings(SignerKind::Local).unwrap(), None);
        for (path, signer, part) in [
            (None, SignerKind::Agent, "is needed"),
            (Some(""), SignerKind::Agent, "is needed"),
            (Some("admin.sock"), SignerKind::Agent, "absolute"),
            (Some(path), SignerKind::Local, "--signer agent"),
        ] {
            let error = args(path).settings(signer).unwrap_err().to_string();
            assert!(error.contains("--agent-socket") && error.contains(part), "{error}");
        }
    }
}
