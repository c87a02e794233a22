//! What holds for every certificate, key and bundle, wherever it was found.

use std::time::{Duration, SystemTime};

use super::{
    content::Authorities,
    delivered::JwtKey,
    facts::{Authority, Bundle, Chain, Key, Svid},
    moment::{Moment, span},
    report::{Code, Inspected},
};
use crate::{
    jose::JwtAuthority,
    pki::{Certificate, PrivateKey, SvidError, X509Svid},
};

/// A bundle to verify against, and where it is from.
#[derive(Clone)]
pub(super) struct Against {
    pub(super) authorities: Authorities,
    pub(super) name: String,
}

const RENEW: &str = "the node plugin should have renewed it: look whether it runs on this node, \
                     and at its log";
const CLOCK: &str = "check the clocks of this node and of the signer";

/// Shows the first certificate of a chain and judges it by itself. The SVID, if it is one.
pub(super) fn svid(
    result: &mut Inspected,
    chain: &[Certificate],
    now: SystemTime,
) -> Option<X509Svid> {
    let leaf = chain.first()?;
    let (begin, end) = (Moment(leaf.not_before()), Moment(leaf.not_after()));
    let parsed = X509Svid::from_chain(chain.to_vec());
    result.svid = Some(Svid {
        spiffe_id: parsed.as_ref().ok().map(|svid| svid.id().to_string()),
        serial: leaf.serial_hex().to_owned(),
        subject: leaf.subject(),
        issuer: leaf.issuer(),
        not_before: begin,
        not_after: end,
        expires_in_seconds: end.seconds_from(now),
        key_algorithm: leaf.public_key_algorithm(),
        sha256: leaf.sha256(),
        chain_length: chain.len(),
        renewal: None,
    });
    if !leaf.is_valid_at(now) {
        if now < leaf.not_before() {
            let message = format!("the certificate becomes valid {}", begin.relative(now));
            result.error(Code::NotYetValid, message, CLOCK);
        } else {
            let message = format!("the certificate expired {}", end.relative(now));
            result.error(Code::Expired, message, RENEW);
        }
    }
    match parsed {
        Ok(svid) => Some(svid),
        Err(error) => {
            let action = "have it signed as an X.509-SVID (X509-SVID.md §2 to §4)";
            result.error(Code::NotAnSvid, error.to_string(), action);
            None
        }
    }
}

/// Whether the SVID chains to the bundle. Its own validity is judged apart: an expired one is
/// verified as of its end.
pub(super) fn chain(result: &mut Inspected, svid: &X509Svid, against: &Against, now: SystemTime) {
    let at = now.max(svid.not_before()).min(svid.not_after());
    let domain = svid.id().trust_domain();
    let verified = match against.authorities.bundle_of(domain) {
        Ok(bundle) => svid.verify_chain(&bundle, at).map_err(|e| (e.to_string(), chain_action(&e))),
        Err(error) => Err((error.to_string(), "replace the bundle")),
    };
    result.chain = Some(Chain {
        verified: verified.is_ok(),
        against: against.name.clone(),
        reason: verified.as_ref().err().map(|(reason, _)| reason.clone()),
    });
    if let Err((reason, action)) = verified {
        let message = format!("{}: {reason}", against.name);
        result.error(Code::NotChained, message, action);
    }
}

fn chain_action(error: &SvidError) -> &'static str {
    match error {
        SvidError::Untrusted => {
            "look whether it is the bundle of the right trust domain, and whether the CA was \
             replaced"
        }
        SvidError::AuthorityNotValid | SvidError::IntermediateNotValid => {
            "renew the CA; what it signed is worthless now"
        }
        _ => "look at who signed it",
    }
}

/// Shows a key, and whether it is the certificate's.
pub(super) fn key(result: &mut Inspected, key: &PrivateKey, leaf: Option<&Certificate>) {
    let matches = leaf.map(|leaf| leaf.spki_der() == key.spki_der());
    result.key = Some(Key { algorithm: key.algorithm().to_string(), matches });
    if matches == Some(false) {
        let action = "no TLS library will take the two together: replace both; in a volume, \
                      delete the pod";
        result.error(Code::KeyMismatch, "the private key is not the certificate's", action);
    }
}

/// Shows a bundle and judges its authorities.
pub(super) fn bundle(
    result: &mut Inspected,
    authorities: &Authorities,
    trust_domain: Option<String>,
    now: SystemTime,
) {
    if let Err(error) = authorities.check() {
        result.error(Code::Damaged, error.to_string(), "replace the bundle");
    }
    let all = &authorities.certificates;
    let ended: Vec<&Certificate> = all.iter().filter(|c| !c.is_valid_at(now)).collect();
    if !all.is_empty() && ended.len() == all.len() {
        result.error(
            Code::AuthorityExpired,
            "no authority of the bundle is valid now",
            "renew the CA; nobody can verify anything with this bundle",
        );
    } else if let Some(first) = ended.first() {
        let message = match now < first.not_before() {
            true => format!("the authority {} is not valid yet", first.subject()),
            false => format!("the authority {} has expired", first.subject()),
        };
        let action = "fine while a CA is being replaced: verifiers pass over it";
        result.warn(Code::AuthorityExpired, message, action);
    }
    result.bundle = Some(Bundle {
        trust_domain,
        sequence: authorities.sequence,
        refresh_hint_seconds: authorities.refresh_hint_seconds,
        authorities: all.iter().map(|c| authority(c, now)).collect(),
        jwt_authorities: authorities.jwt_authorities.iter().map(jwt_key).collect(),
    });
}

fn jwt_key(authority: &JwtAuthority) -> JwtKey {
    JwtKey { kid: authority.key_id().to_owned(), kind: authority.describe() }
}

fn authority(certificate: &Certificate, now: SystemTime) -> Authority {
    let not_after = Moment(certificate.not_after());
    Authority {
        subject: certificate.subject(),
        serial: certificate.serial_hex().to_owned(),
        not_before: Moment(certificate.not_before()),
        not_after,
        expires_in_seconds: not_after.seconds_from(now),
        key_algorithm: certificate.public_key_algorithm(),
        sha256: certificate.sha256(),
    }
}

/// A renewal that should have begun some time ago. After a restart overdue ones are spread, so a
/// little lateness is none.
pub(super) fn overdue(result: &mut Inspected, due: SystemTime, svid: &X509Svid, now: SystemTime) {
    const GRACE: Duration = Duration::from_secs(90);
    let left = svid.not_after().duration_since(due).unwrap_or_default();
    let late = now.duration_since(due).unwrap_or_default();
    // Once it has expired, that says enough.
    if late > GRACE.min(left / 2) && now <= svid.not_after() {
        let message = format!("its renewal is overdue by {}", span(late));
        result.error(Code::RenewalOverdue, message, RENEW);
    }
}
