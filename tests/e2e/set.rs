//! What a container finds in its volume, checked by the library and by openssl.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result, anyhow, bail, ensure};
use svid_csi::{
    id::SpiffeId,
    pki::{PrivateKey, TrustBundle, X509Svid},
};

use crate::{command::Run, ground::TRUST_DOMAIN, patience::now};

/// One whole set, read through one resolved `..data`.
pub struct Set {
    /// Relative names, such as `tls.crt` and `federated/other.example.pem`.
    pub files: BTreeMap<String, String>,
    pub svid: X509Svid,
    pub key: PrivateKey,
    pub bundle: TrustBundle,
}

/// File names of certificate, key and bundle in each layout.
const LAYOUTS: [[&str; 3]; 4] = [
    ["tls.crt", "tls.key", "ca.crt"],
    ["svid.pem", "svid_key.pem", "svid_bundle.pem"],
    ["client.cert", "client.key", "ca.crt"],
    [
        "credential-bundle.private-key.pem",
        "credential-bundle.private-key.pem",
        "example.org.x509.pem",
    ],
];

// === impl Set ===

impl Set {
    /// Prints the files of the volume `$1` with a line before each.
    pub const SCRIPT: &str = r#"cd "$(readlink -f "$1/..data")" && for f in * */*
        do if [ -f "$f" ]; then printf '\n@@@ %s\n' "$f"; cat "$f"; fi; done"#;

    pub fn read(volume: &Path) -> Result<Self> {
        let data = fs::read_link(volume.join("..data")).context("..data")?;
        let mut files = BTreeMap::new();
        collect(&volume.join(data), "", &mut files)?;
        Self::from_files(files)
    }

    pub fn from_frames(text: &str) -> Result<Self> {
        let mut files = BTreeMap::new();
        for frame in text.split("\n@@@ ").skip(1) {
            let (name, content) = frame.split_once('\n').unwrap_or((frame, ""));
            files.insert(name.to_owned(), content.to_owned());
        }
        Self::from_files(files)
    }

    fn from_files(files: BTreeMap<String, String>) -> Result<Self> {
        let layout = LAYOUTS.into_iter().find(|l| l.iter().all(|name| files.contains_key(*name)));
        let names = files.keys().cloned().collect::<Vec<_>>().join(" ");
        let layout = layout.with_context(|| format!("no layout has these files: {names}"))?;
        let [certificate, key, bundle] = layout.map(|name| files[name].as_str());
        let domain = TRUST_DOMAIN.parse().map_err(|error| anyhow!("{error}"))?;
        let (key_pem, chain_pem) = split(key, certificate)?;
        Ok(Self {
            svid: X509Svid::from_pem(chain_pem).context("certificate")?,
            key: PrivateKey::from_pem(key_pem).context("key")?,
            bundle: TrustBundle::from_pem(domain, bundle).context("bundle")?,
            files,
        })
    }

    /// Key, certificate and bundle belong together, now, and are `id`'s (invariant 2).
    pub fn check(&self, id: &str) -> Result<()> {
        let id: SpiffeId = id.parse().map_err(|error| anyhow!("{error}"))?;
        let spki = self.key.spki_der();
        self.svid.verify(&id, spki, &self.bundle, now()).context("the set does not hold")?;
        ensure!(self.files.contains_key("bundle.json"), "there is no bundle.json");
        Ok(())
    }

    /// The same by a verifier that shares no code with us; the SPIFFE ID that it finds.
    pub fn openssl(&self) -> Result<String> {
        let scratch = tempfile::tempdir()?;
        let path = |name: &str| scratch.path().join(name).display().to_string();
        fs::write(path("crt"), self.svid.chain_pem())?;
        fs::write(path("key"), self.key.to_pem().as_bytes())?;
        fs::write(path("ca"), self.bundle.to_pem())?;
        for purpose in ["sslserver", "sslclient"] {
            let args = ["verify", "-x509_strict", "-purpose", purpose];
            let files = ["-CAfile", &path("ca"), "-untrusted", &path("crt"), &path("crt")];
            openssl(args.into_iter().chain(files)).text()?;
        }
        let certified = openssl(["x509", "-noout", "-pubkey", "-in", &path("crt")]).text()?;
        let own = openssl(["pkey", "-pubout", "-in", &path("key")]).text()?;
        ensure!(certified == own, "openssl: the key is not the certificate's");
        let args = ["x509", "-noout", "-ext", "subjectAltName", "-in", &path("crt")];
        let names = openssl(args).text()?;
        match names.lines().skip(1).flat_map(|l| l.split(", ")).collect::<Vec<_>>().as_slice() {
            [name] => {
                let uri = name.trim().strip_prefix("URI:");
                Ok(uri.context("openssl: the name is not a URI")?.to_owned())
            }
            names => bail!("openssl: {} names instead of one", names.len()),
        }
    }

    pub fn serial(&self) -> &str {
        self.svid.serial_hex()
    }
}

/// openssl without the machine's own roots and configuration.
pub fn openssl<'a>(args: impl IntoIterator<Item = &'a str>) -> Run {
    Run::new("openssl", args)
        .env("SSL_CERT_FILE", "/dev/null")
        .env("SSL_CERT_DIR", "/nonexistent")
        .env("LC_ALL", "C")
}

/// Key and chain, also where both are in one file.
fn split<'t>(key: &'t str, chain: &'t str) -> Result<(&'t str, &'t str)> {
    if key != chain {
        return Ok((key, chain));
    }
    let at = key.find("-----BEGIN CERTIFICATE").context("no certificate after the key")?;
    Ok(key.split_at(at))
}

fn collect(dir: &Path, prefix: &str, files: &mut BTreeMap<String, String>) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let entry = entry?;
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), &format!("{name}/"), files)?;
        } else {
            let text = fs::read_to_string(entry.path()).with_context(|| name.clone())?;
            files.insert(name, text);
        }
    }
    Ok(())
}
