//! CSRs of every kind, by openssl.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use base64::{Engine, prelude::BASE64_STANDARD as STANDARD};
use rcgen::{Attribute, CertificateParams, DistinguishedName, KeyPair, SanType};

use crate::set::openssl;

/// Nothing of the machine's own configuration.
const CONFIG: &str = "[dn]\n[req]\nprompt = no\ndistinguished_name = dn\n";

/// A CSR to be made.
#[derive(Clone, Debug)]
pub struct Csr {
    id: String,
    pub subject: String,
    /// `-newkey` and what belongs to it.
    pub key: Vec<&'static str>,
    /// X.509 extensions, as openssl spells them.
    pub extensions: Vec<String>,
    /// An attribute beside the extensions.
    pub challenge: bool,
    /// One bit of the signature is wrong.
    pub forged: bool,
}

// === impl Csr ===

impl Csr {
    /// The shape that the driver makes.
    pub fn of(id: &str) -> Self {
        Self {
            id: id.to_owned(),
            subject: "/".to_owned(),
            key: vec!["ec", "-pkeyopt", "ec_paramgen_curve:P-256"],
            extensions: vec![format!("subjectAltName=critical,URI:{id}")],
            challenge: false,
            forged: false,
        }
    }

    /// Other alternative names.
    pub fn names(mut self, names: &str) -> Self {
        self.extensions[0] = format!("subjectAltName=critical,{names}");
        self
    }

    /// One extension more.
    pub fn with(mut self, extension: &str) -> Self {
        self.extensions.push(extension.to_owned());
        self
    }

    pub fn subject(mut self, subject: &str) -> Self {
        subject.clone_into(&mut self.subject);
        self
    }

    pub fn key(mut self, key: &[&'static str]) -> Self {
        self.key = key.to_vec();
        self
    }

    /// As PEM.
    pub fn pem(&self, scratch: &Path) -> Result<String> {
        let path = |name: &str| scratch.join(name).display().to_string();
        if self.challenge {
            return challenged(&self.id);
        }
        fs::write(path("req.cnf"), CONFIG)?;
        let (config, out) = (path("req.cnf"), path("csr.pem"));
        let mut args = vec!["req", "-new", "-nodes", "-config", &config, "-keyout", "/dev/null"];
        args.extend(["-subj", &self.subject, "-out", &out, "-newkey"]);
        args.extend(&self.key);
        for extension in &self.extensions {
            args.extend(["-addext", extension]);
        }
        openssl(args).text()?;
        let pem = fs::read_to_string(&out)?;
        if self.forged { forged(&pem) } else { Ok(pem) }
    }
}

/// The same with the last bit of the signature turned.
fn forged(pem: &str) -> Result<String> {
    let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let mut der = STANDARD.decode(body)?;
    *der.last_mut().context("an empty CSR")? ^= 1;
    let kind = "CERTIFICATE REQUEST";
    Ok(format!("-----BEGIN {kind}-----\n{}\n-----END {kind}-----\n", STANDARD.encode(der)))
}

/// With a challenge password, which openssl writes only if somebody types it.
fn challenged(id: &str) -> Result<String> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![SanType::URI(id.try_into()?)];
    // A SET of one PrintableString.
    let values = [&[0x31, 10, 0x13, 8][..], b"password"].concat();
    let password = Attribute { oid: &[1, 2, 840, 113549, 1, 9, 7], values };
    let key = KeyPair::generate()?;
    Ok(params.serialize_request_with_attributes(&key, vec![password])?.pem()?)
}
