//! What an operator sets about JWT-SVIDs, as arguments.

use clap::{Args, builder::FalseyValueParser};

use crate::{
    cli::UsageError, controller::ca::JwtKeySettings, jose::JwtKeyAlgorithm, volume::duration,
};

/// The JWT part of the arguments of `svid-csi controller`.
#[derive(Debug, Args)]
#[command(next_help_heading = "JWT-SVIDs")]
pub(super) struct JwtArgs {
    /// Algorithm of the JWT keys that are made from now on: rs256, es256 or es384
    #[arg(long, env = "SVID_CSI_JWT_KEY_ALGORITHM", default_value = "rs256", value_name = "NAME")]
    jwt_key_algorithm: JwtKeyAlgorithm,

    /// How long a JWT key lives; the next is in the bundle from half of it and signs from two thirds
    #[arg(
        long,
        env = "SVID_CSI_JWT_KEY_LIFETIME",
        default_value = "720h",
        value_name = "DURATION"
    )]
    jwt_key_lifetime: String,

    /// What JWT-SVIDs have as iss [default: none]
    #[arg(long, env = "SVID_CSI_JWT_ISSUER", value_name = "TEXT")]
    jwt_issuer: Option<String>,

    /// Give each JWT-SVID a jti
    #[arg(long, env = "SVID_CSI_JWT_JTI", value_parser = FalseyValueParser::new())]
    jwt_jti: bool,
}

/// No cloud takes a longer one.
const MAX_ISSUER: usize = 600;

// === impl JwtArgs ===

impl JwtArgs {
    pub(super) fn settings(self) -> Result<JwtKeySettings, UsageError> {
        let lifetime = duration::parse(&self.jwt_key_lifetime)
            .map_err(|error| UsageError::new("--jwt-key-lifetime", error))?;
        let issuer = self.jwt_issuer.filter(|issuer| !issuer.is_empty());
        if issuer
            .as_ref()
            .is_some_and(|issuer| issuer.len() > MAX_ISSUER || issuer.chars().any(char::is_control))
        {
            return Err(UsageError::new(
                "--jwt-issuer",
                format!("must be a text of {MAX_ISSUER} bytes at most without control characters"),
            ));
        }
        Ok(JwtKeySettings {
            key_algorithm: self.jwt_key_algorithm,
            lifetime,
            issuer,
            jti: self.jwt_jti,
            ..JwtKeySettings::default()
        })
    }
}
