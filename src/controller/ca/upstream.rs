//! A CA that something else renews, in a Secret with `tls.crt`, `tls.key` and `ca.crt`.

use std::{str, sync::Arc};

use super::{document::SecretData, lifecycle::Upstream, moment::Moment};
use crate::{id::TrustDomain, pki::Authority};

/// What the upstream Secret `name` offers; `data` is nothing if there is no such Secret.
pub(super) fn offered(
    name: &str,
    data: Option<&SecretData>,
    trust_domain: &TrustDomain,
    now: Moment,
) -> Upstream {
    let unusable = |reason: String| Upstream::Unusable(format!("upstream Secret {name}: {reason}"));
    let Some(data) = data else {
        return unusable("there is none; the copy of what was there goes on".to_owned());
    };
    let text = |key: &str| match data.get(key) {
        None => Ok(None),
        Some(bytes) => match str::from_utf8(bytes) {
            Ok(text) => Ok(Some(text)),
            Err(_) => Err(format!("{key} is not text")),
        },
    };
    let needed = |key: &str| text(key)?.ok_or_else(|| format!("{key} is missing"));
    let load = || {
        let (certificate, key) = (needed("tls.crt")?, needed("tls.key")?);
        let roots = text("ca.crt")?.filter(|roots| !roots.trim().is_empty());
        Authority::from_pem(trust_domain, certificate, key, roots, now.time())
            .map_err(|error| error.to_string())
    };
    match load() {
        Ok(authority) => Upstream::Offered(Arc::new(authority)),
        Err(reason) => unusable(reason),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use zeroize::Zeroizing;

    use super::*;
    use crate::pki::KeyAlgorithm;

    fn data(parts: &[(&str, &str)]) -> SecretData {
        let owned = |text: &str| Zeroizing::new(text.as_bytes().to_vec());
        parts.iter().map(|(key, text)| ((*key).to_owned(), owned(text))).collect()
    }

    #[test]
    fn what_is_wrong_with_the_upstream_secret_is_said() {
        let domain: TrustDomain = "example.org".parse().unwrap();
        let now = Moment::of(std::time::UNIX_EPOCH + Duration::from_secs(1_800_000_000));
        let hour = Duration::from_secs(3600);
        let make = |domain: &TrustDomain| {
            Authority::create(domain, KeyAlgorithm::EcdsaP256, hour, now.time()).unwrap()
        };
        let (one, two) = (make(&domain), make(&domain));
        let foreign = make(&"other.org".parse().unwrap());
        let (crt, key) = (one.certificate_pem(), one.key_pem());
        let cases: [(Option<SecretData>, Moment, &str); 7] = [
            (None, now, "there is none"),
            (Some(data(&[])), now, "tls.crt is missing"),
            (Some(data(&[("tls.crt", &crt)])), now, "tls.key is missing"),
            (Some(data(&[("tls.crt", "no"), ("tls.key", &key)])), now, "tls.crt: no certificate"),
            (
                Some(data(&[("tls.crt", &two.certificate_pem()), ("tls.key", &key)])),
                now,
                "tls.key does not belong",
            ),
            (
                Some(data(&[("tls.crt", &crt), ("tls.key", &key)])),
                now.after(hour * 2),
                "has expired",
            ),
            (
                Some(data(&[
                    ("tls.crt", &foreign.certificate_pem()),
                    ("tls.key", &foreign.key_pem()),
                ])),
                now,
                "spiffe://other.org",
            ),
        ];
        for (data, now, reason) in cases {
            match offered("up", data.as_ref(), &domain, now) {
                Upstream::Unusable(said) => {
                    assert!(said.contains(reason), "{said}");
                    assert!(!said.contains("PRIVATE"), "{said}");
                }
                other => panic!("{reason}: {other:?}"),
            }
        }
        let good = data(&[("tls.crt", &crt), ("tls.key", &key), ("ca.crt", "")]);
        assert!(matches!(offered("up", Some(&good), &domain, now), Upstream::Offered(_)));
    }
}
