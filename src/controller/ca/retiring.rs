//! The certificates of a local CA that is being left. Its key must not be here.

use std::{fs, io, path::Path};

use super::moment::Moment;
use crate::{
    id::TrustDomain,
    pki::{Certificate, TrustBundle, certificates_from_pem},
};

/// Beyond any real bundle.
const MAX_FILE: u64 = 1 << 20;

/// The CA certificates in `tls.crt` and `ca.crt` of this directory; none of a file that is not there.
pub(super) fn certificates(
    directory: &Path,
    trust_domain: &TrustDomain,
    now: Moment,
) -> Result<Vec<Certificate>, String> {
    let shown = directory.display();
    if directory.join("tls.key").exists() {
        return Err(format!(
            "{shown} has the old CA's key, which must not come here: mount only tls.crt and ca.crt"
        ));
    }
    let mut found: Vec<Certificate> = Vec::new();
    for name in ["tls.crt", "ca.crt"] {
        let path = directory.join(name);
        let text = match read(&path) {
            Ok(Some(text)) => text,
            Ok(None) => continue,
            Err(error) => return Err(format!("cannot read {}: {error}", path.display())),
        };
        if text.contains("PRIVATE KEY") {
            return Err(format!("{} has a private key, which must not come here", path.display()));
        }
        let read = certificates_from_pem(&text)
            .map_err(|error| error.to_string())
            .and_then(|read| check(read, trust_domain))
            .map_err(|error| format!("{}: {error}", path.display()))?;
        for certificate in read {
            if !found.contains(&certificate) && certificate.not_after() > now.time() {
                found.push(certificate);
            }
        }
    }
    Ok(found)
}

/// Each must be fit for a bundle of the trust domain.
fn check(read: Vec<Certificate>, trust_domain: &TrustDomain) -> Result<Vec<Certificate>, String> {
    let own = trust_domain.id();
    for certificate in &read {
        let foreign = |uri: &&String| uri.starts_with("spiffe:") && **uri != own.as_str();
        if let Some(uri) = certificate.uri_sans().iter().find(foreign) {
            return Err(format!("it is a CA of {uri:?}, not of {own}"));
        }
    }
    let bundle = TrustBundle::new(trust_domain.clone(), read).map_err(|error| error.to_string())?;
    Ok(bundle.x509_authorities().to_vec())
}

fn read(path: &Path) -> io::Result<Option<String>> {
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
        Ok(metadata) if !metadata.is_file() || metadata.len() > MAX_FILE => {
            Err(io::Error::other("it is not a file of at most 1 MiB"))
        }
        Ok(_) => fs::read_to_string(path).map(Some),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::pki::{Authority, KeyAlgorithm};

    /// Invariant 5: of the old CA only the certificate is taken.
    #[test]
    fn only_certificates_are_read() {
        let domain: TrustDomain = "example.org".parse().unwrap();
        let now = Moment::of(std::time::UNIX_EPOCH + Duration::from_secs(1_800_000_000));
        let hour = Duration::from_secs(3600);
        let ca = Authority::create(&domain, KeyAlgorithm::EcdsaP256, hour, now.time()).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
        let get = |now| certificates(directory.path(), &domain, now);

        assert_eq!(get(now).unwrap(), []);
        put("tls.crt", &ca.certificate_pem());
        put("ca.crt", &ca.certificate_pem());
        assert_eq!(get(now).unwrap(), ca.roots());
        assert_eq!(get(now.after(hour * 2)).unwrap(), [], "ended");

        put("ca.crt", &format!("{}{}", ca.certificate_pem(), *ca.key_pem()));
        let said = get(now).unwrap_err();
        assert!(said.contains("has a private key"), "{said}");
        put("ca.crt", "no");
        assert!(get(now).unwrap_err().contains("no certificate found"));
        let other: TrustDomain = "other.org".parse().unwrap();
        let foreign = Authority::create(&other, KeyAlgorithm::EcdsaP256, hour, now.time()).unwrap();
        put("ca.crt", &foreign.certificate_pem());
        assert!(get(now).unwrap_err().contains("not of spiffe://example.org"));
        fs::remove_file(directory.path().join("ca.crt")).unwrap();
        put("tls.key", &ca.key_pem());
        assert!(get(now).unwrap_err().contains("mount only tls.crt and ca.crt"));
    }
}
