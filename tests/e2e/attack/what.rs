//! Requests for an own pod that ask for more than its identity.

use anyhow::Result;

use super::{
    Attacks,
    Expected::{self, Denied, Refused},
    csr::Csr,
    field::Field,
    request::Request,
};

pub fn try_all(field: &Field<'_>, attacks: &mut Attacks) -> Result<()> {
    in_the_csr(field, attacks)?;
    beside_the_csr(field, attacks)
}

fn in_the_csr(field: &Field<'_>, attacks: &mut Attacks) -> Result<()> {
    let own = &field.own;
    let id = own.spiffe_id();
    let uri = format!("URI:{id}");
    let other = format!("URI:{}", field.victim.spiffe_id());
    let mut bend = |name: &str, expected: Expected, bend: &dyn Fn(Csr) -> Csr| -> Result<()> {
        let request = Request::honest(field, own).csr(bend);
        attacks.add(name, expected, field.ask(&field.driver, &request)?);
        Ok(())
    };
    let subject = Denied(&["SubjectNotEmpty"]);
    bend("a common name", subject, &|csr| csr.subject("/CN=system:admin"))?;
    bend("O=system:masters", subject, &|csr| csr.subject("/O=system:masters/CN=admin"))?;
    let names = Denied(&["ForbiddenName"]);
    for (name, more) in [
        ("a DNS name beside the URI", "DNS:kubernetes.default.svc"),
        ("an IP address beside the URI", "IP:10.96.0.1"),
        ("an email address beside the URI", "email:root@example.org"),
        ("two URIs", other.as_str()),
    ] {
        bend(name, names, &|csr| csr.names(&format!("{uri},{more}")))?;
    }
    bend("two URIs, the foreign one first", names, &|csr| csr.names(&format!("{other},{uri}")))?;
    bend("a DNS name and no URI", names, &|csr| csr.names("DNS:kubernetes"))?;
    let extension = Denied(&["ForbiddenExtension"]);
    for (name, more) in [
        ("CA:TRUE", "basicConstraints=critical,CA:TRUE"),
        ("key usages that sign certificates", "keyUsage=critical,keyCertSign,cRLSign"),
        ("an extended key usage of code signing", "extendedKeyUsage=codeSigning"),
        ("a foreign extension", "1.3.6.1.4.1.311.20.2=ASN1:UTF8String:SubCA"),
    ] {
        bend(name, extension, &|csr| csr.with(more))?;
    }
    bend("an attribute beside the extensions", Denied(&["ForbiddenAttribute"]), &|mut csr| {
        csr.challenge = true;
        csr
    })?;
    bend("a weak key: RSA of 1024 bits", Denied(&["BadSignature", "WeakKey"]), &|csr| {
        csr.key(&["rsa:1024"])
    })?;
    bend("an unlisted key: RSA of 3072 bits", Denied(&["WeakKey"]), &|csr| csr.key(&["rsa:3072"]))?;
    bend("an unlisted key: P-521", Denied(&["BadSignature", "WeakKey"]), &|csr| {
        csr.key(&["ec", "-pkeyopt", "ec_paramgen_curve:P-521"])
    })?;
    // The API server looks at the signature first.
    bend("a bad signature", Refused("verification failure"), &|mut csr| {
        csr.forged = true;
        csr
    })?;
    let path = id.trim_start_matches("spiffe://example.org");
    let foreign = format!("URI:spiffe://example.com{path}");
    bend("another trust domain", Denied(&["ForeignTrustDomain"]), &|csr| csr.names(&foreign))?;
    let spelt = format!("URI:spiffe://EXAMPLE.org{path}");
    bend("the trust domain in capitals", Denied(&["NotASpiffeId"]), &|csr| csr.names(&spelt))?;
    let dotted = "URI:spiffe://example.org/ns/e2e-attack/sa/x/../victim";
    bend("an ID that climbs", Denied(&["NotASpiffeId"]), &|csr| csr.names(dotted))
}

fn beside_the_csr(field: &Field<'_>, attacks: &mut Attacks) -> Result<()> {
    let honest = || Request::honest(field, &field.own);
    let day = 24 * 3600;
    let with_ca = ["digital signature", "server auth", "cert sign"];
    let attempts: [(&str, &'static [&'static str], Request); 9] = [
        ("a smuggled usage", &["WrongUsages"], honest().usages(&with_ca)),
        ("usages with code signing", &["WrongUsages"], honest().usages(&["code signing"])),
        (
            "a lifetime too long, by expirationSeconds",
            &["WrongExpiration"],
            honest().expiration(Some(365 * day)),
        ),
        ("no expirationSeconds", &["WrongExpiration"], honest().expiration(None)),
        (
            "a lifetime too long, by annotation",
            &["TtlNotAllowed"],
            honest().with("ttl", "48h").expiration(Some(2 * day)),
        ),
        ("a lifetime that is none", &["MalformedTtl"], honest().with("ttl", "-1h")),
        (
            "a key algorithm that is not the key's",
            &["WrongKeyAlgorithm"],
            honest().with("key-algorithm", "rsa-4096"),
        ),
        (
            "a DNS name that no policy gives",
            &["DnsNameNotAllowed"],
            honest().with("dns-names", "kubernetes.default.svc"),
        ),
        ("a wildcard", &["MalformedDnsNames"], honest().with("dns-names", "*.example.org")),
    ];
    for (name, reasons, request) in attempts {
        attacks.add(name, Denied(reasons), field.ask(&field.driver, &request)?);
    }
    Ok(())
}
