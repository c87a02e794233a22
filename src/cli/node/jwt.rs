//! Settings of JWT-SVIDs.

use clap::{Args, builder::FalseyValueParser};

use super::SignerKind;
use crate::{cli::UsageError, signer::local::LocalJwtConfig, volume::duration};

/// Arguments that shape JWT-SVIDs.
#[derive(Debug, Args)]
pub(super) struct JwtArgs {
    /// With --signer local: algorithm of the JWT key that --ca-create makes: rs256, which every
    /// cloud accepts, es256 or es384 [default: rs256]
    #[arg(long, env = "SVID_CSI_JWT_KEY_ALGORITHM", value_name = "ALGORITHM")]
    jwt_key_algorithm: Option<String>,

    /// With --signer local: lifetime of a JWT-SVID, 10s to 1h: nobody can take one back
    /// [default: 5m]
    #[arg(long, env = "SVID_CSI_JWT_TTL", value_name = "DURATION")]
    jwt_ttl: Option<String>,

    /// With --signer local: issuer (iss) of JWT-SVIDs, an https URL [default: none]
    #[arg(long, env = "SVID_CSI_JWT_ISSUER", value_name = "URL")]
    jwt_issuer: Option<String>,

    /// With --signer local: give each JWT-SVID a random jti; one from the cache has the same, so
    /// that a validator which takes no jti twice refuses it
    #[arg(long, env = "SVID_CSI_JWT_JTI", value_parser = FalseyValueParser::new())]
    jwt_jti: bool,
}

/// Azure takes no longer one.
const MAX_ISSUER: usize = 600;

// === impl JwtArgs ===

impl JwtArgs {
    pub(super) fn settings(self, signer: SignerKind) -> Result<LocalJwtConfig, UsageError> {
        // An empty variable of the environment is none.
        let given = |value: Option<String>| value.filter(|value| !value.is_empty());
        let algorithm = given(self.jwt_key_algorithm);
        let (ttl, issuer) = (given(self.jwt_ttl), given(self.jwt_issuer));
        let reason = match signer {
            SignerKind::Local => None,
            SignerKind::Csr | SignerKind::Controller | SignerKind::CertManager => {
                Some("is for --signer local; in a cluster the controller has it")
            }
            SignerKind::Agent => Some("is for --signer local; with agent SPIRE signs them"),
        };
        if let Some(reason) = reason {
            for (setting, is_set) in [
                ("--jwt-key-algorithm", algorithm.is_some()),
                ("--jwt-ttl", ttl.is_some()),
                ("--jwt-issuer", issuer.is_some()),
                ("--jwt-jti", self.jwt_jti),
            ] {
                if is_set {
                    return Err(UsageError::new(setting, reason));
                }
            }
        }
        let mut config = LocalJwtConfig { jti: self.jwt_jti, ..LocalJwtConfig::default() };
        if let Some(name) = algorithm {
            let parsed = name.parse();
            config.key_algorithm =
                parsed.map_err(|error| UsageError::new("--jwt-key-algorithm", error))?;
        }
        if let Some(text) = ttl {
            let parsed = duration::parse(&text);
            config.ttl = parsed.map_err(|error| UsageError::new("--jwt-ttl", error))?;
            if config.ttl < LocalJwtConfig::MIN_TTL || config.ttl > LocalJwtConfig::MAX_TTL {
                return Err(UsageError::new("--jwt-ttl", "must be between 10s and 1h"));
            }
        }
        if let Some(url) = &issuer
            && !is_issuer(url)
        {
            return Err(UsageError::new(
                "--jwt-issuer",
                "must be an https URL of at most 600 characters, without query and fragment, such \
                 as https://issuer.example.org",
            ));
        }
        config.issuer = issuer;
        Ok(config)
    }
}

/// OpenID Connect Core §2: https, a host, possibly port and path, no query or fragment. It is
/// compared to the letter, so nothing is changed about it.
fn is_issuer(url: &str) -> bool {
    let Some(rest) = url.strip_prefix("https://") else {
        return false;
    };
    let host = rest.split('/').next().unwrap_or_default();
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:/%[]!$&'()*+,;=".contains(&byte);
    url.len() <= MAX_ISSUER
        && rest.bytes().all(good)
        && host.starts_with(|first: char| first.is_ascii_alphanumeric() || first == '[')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jose::JwtKeyAlgorithm;

    fn none() -> JwtArgs {
        JwtArgs { jwt_key_algorithm: None, jwt_ttl: None, jwt_issuer: None, jwt_jti: false }
    }

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn defaults_and_what_is_given() {
        let config = none().settings(SignerKind::Local).unwrap();
        assert_eq!((config.key_algorithm, config.ttl.as_secs()), (JwtKeyAlgorithm::Rs256, 300));
        assert!(config.issuer.is_none() && !config.jti);
        let args = JwtArgs {
            jwt_key_algorithm: some("es384"),
            jwt_ttl: some("1h"),
            jwt_issuer: some("https://[::1]:8443/a/b"),
            jwt_jti: true,
        };
        let config = args.settings(SignerKind::Local).unwrap();
        assert_eq!((config.key_algorithm, config.ttl.as_secs()), (JwtKeyAlgorithm::Es384, 3_600));
        assert!(config.issuer.as_deref() == Some("https://[::1]:8443/a/b") && config.jti);
        // As a chart sets them.
        let args = JwtArgs { jwt_ttl: some(""), jwt_issuer: some(""), ..none() };
        args.settings(SignerKind::Csr).unwrap();
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let refused = |args: JwtArgs, signer| args.settings(signer).unwrap_err().to_string();
        for ttl in ["9s", "61m", "24h", "x", "-1s"] {
            let args = JwtArgs { jwt_ttl: some(ttl), ..none() };
            assert!(refused(args, SignerKind::Local).contains("--jwt-ttl"), "{ttl}");
        }
        for url in [
            "http://example.org",
            "https://",
            "https:///a",
            "https://example.org?a",
            "https://example.org#a",
            "https://me@example.org",
            "https://example.org/ ",
            "https://exämple.org",
            &format!("https://{}", "a".repeat(600)),
        ] {
            let args = JwtArgs { jwt_issuer: some(url), ..none() };
            assert!(refused(args, SignerKind::Local).contains("--jwt-issuer"), "{url}");
        }
        let args = JwtArgs { jwt_key_algorithm: some("hs256"), ..none() };
        assert!(refused(args, SignerKind::Local).contains("rs256, es256 or es384"));
        for (setting, args) in [
            ("--jwt-key-algorithm", JwtArgs { jwt_key_algorithm: some("rs256"), ..none() }),
            ("--jwt-ttl", JwtArgs { jwt_ttl: some("5m"), ..none() }),
            ("--jwt-issuer", JwtArgs { jwt_issuer: some("https://a"), ..none() }),
            ("--jwt-jti", JwtArgs { jwt_jti: true, ..none() }),
        ] {
            let text = refused(args, SignerKind::Csr);
            assert!(text.contains(setting) && text.contains("--signer local"), "{text}");
        }
    }
}
