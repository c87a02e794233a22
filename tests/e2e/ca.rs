//! CAs made as a person makes one: by openssl.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Result, anyhow};
use serde_json::{Value, json};
use svid_csi::pki::TrustBundle;

use crate::{
    ground::{NAMESPACE, TRUST_DOMAIN},
    set::openssl,
};

pub const SECRET: &str = "svid-csi-ca";

/// A self-signed CA of the trust domain.
pub struct Ca {
    certificate: PathBuf,
    key: PathBuf,
    jwt_key: PathBuf,
}

// === impl Ca ===

impl Ca {
    /// Makes one whose files are named for it.
    pub fn make(directory: &Path, name: &str) -> Result<Self> {
        fs::create_dir_all(directory)?;
        let certificate = directory.join(format!("{name}.crt"));
        let key = directory.join(format!("{name}.key"));
        let shown = |path: &Path| path.display().to_string();
        let made = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"];
        let kind = ["-nodes", "-days", "30", "-addext", "keyUsage=critical,keyCertSign,cRLSign"];
        let names = [format!("/CN={name}"), format!("subjectAltName=URI:spiffe://{TRUST_DOMAIN}")];
        let files = [shown(&key), shown(&certificate)];
        let rest =
            ["-subj", &names[0], "-addext", &names[1], "-keyout", &files[0], "-out", &files[1]];
        openssl(made.into_iter().chain(kind).chain(rest)).text()?;
        let jwt_key = directory.join(format!("{name}-jwt.key"));
        let bits = ["-pkeyopt", "rsa_keygen_bits:2048", "-out", &shown(&jwt_key)];
        openssl(["genpkey", "-quiet", "-algorithm", "RSA"].into_iter().chain(bits)).text()?;
        Ok(Self { certificate, key, jwt_key })
    }

    /// Its Secret, to apply.
    pub fn secret(&self) -> Result<Value> {
        let read = |path: &Path| fs::read_to_string(path);
        let mut secret = secret(&read(&self.certificate)?, &read(&self.key)?);
        secret["stringData"]["jwt.key"] = read(&self.jwt_key)?.into();
        Ok(secret)
    }

    /// Its certificate as a bundle.
    pub fn root(&self) -> Result<TrustBundle> {
        let domain = TRUST_DOMAIN.parse().map_err(|error| anyhow!("{error}"))?;
        Ok(TrustBundle::from_pem(domain, &fs::read_to_string(&self.certificate)?)?)
    }
}

/// The Secret with these contents, good or not.
pub fn secret(certificate: &str, key: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": SECRET, "namespace": NAMESPACE},
        "type": "Opaque",
        "stringData": {"tls.crt": certificate, "tls.key": key},
    })
}
