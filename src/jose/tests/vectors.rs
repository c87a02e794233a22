//! Signatures and names that others made.

use super::*;

fn rfc7515_rsa() -> Value {
    json!({
        "kty": "RSA",
        "kid": "rfc7515",
        "n": "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ",
        "e": "AQAB",
    })
}

fn rfc7515_ec() -> Value {
    json!({
        "kty": "EC",
        "kid": "rfc7515",
        "crv": "P-256",
        "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
        "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
    })
}

/// The payload of RFC 7515's examples.
const JOE: &str = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";

fn verifies(jwk: &Value, algorithm: JwtAlgorithm, message: &str, signature: &str) -> bool {
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let authority = JwtAuthority::from_jwk(jwk).unwrap();
    authority.verifies(algorithm, message.as_bytes(), &signature)
}

// RFC 7515 §A.2.
#[test]
fn the_rs256_example_verifies() {
    let message = format!("eyJhbGciOiJSUzI1NiJ9.{JOE}");
    let signature = "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";
    let key = rfc7515_rsa();
    assert!(verifies(&key, JwtAlgorithm::Rs256, &message, signature));
    for other in [JwtAlgorithm::Rs384, JwtAlgorithm::Ps256, JwtAlgorithm::Es256] {
        assert!(!verifies(&key, other, &message, signature), "{other}");
    }
}

// RFC 7515 §A.3.
#[test]
fn the_es256_example_verifies() {
    let message = format!("eyJhbGciOiJFUzI1NiJ9.{JOE}");
    let signature =
        "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
    assert!(verifies(&rfc7515_ec(), JwtAlgorithm::Es256, &message, signature));
    // The same numbers in the form of ASN.1 are another signature.
    assert!(!verifies(&rfc7515_ec(), JwtAlgorithm::Es256, &message, &format!("MEUC{signature}")));
}

// RFC 7638 §3.1.
#[test]
fn the_thumbprint_is_the_examples() {
    let jwk = json!({
        "kty": "RSA",
        "kid": "2011-04-29",
        "alg": "RS256",
        "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw",
        "e": "AQAB",
    });
    let authority = JwtAuthority::from_jwk(&jwk).unwrap();
    assert_eq!(authority.key_id(), "2011-04-29", "a foreign name is kept");
    assert_eq!(authority.thumbprint(), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
}

/// Every algorithm, by the standard's own names, against what openssl signs.
#[test]
fn what_openssl_signs_verifies() {
    use std::{fs, process::Command};

    let dir = tempfile::TempDir::new().unwrap();
    let openssl = |line: &str| {
        let run = Command::new("openssl").args(line.split(' ')).current_dir(&dir).output();
        let run = run.expect("openssl");
        assert!(run.status.success(), "{line}: {}", String::from_utf8_lossy(&run.stderr));
        run.stdout
    };
    let number = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    openssl("genrsa -out rsa.pem 3072");
    for curve in ["P-256", "P-384", "P-521"] {
        openssl(&format!(
            "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:{curve} -out {curve}.pem"
        ));
    }
    for algorithm in JwtAlgorithm::ALL {
        let name = algorithm.as_str();
        let (kind, hash) = name.split_at(2);
        let (file, size) = match name {
            "ES256" => ("P-256", 32),
            "ES384" => ("P-384", 48),
            "ES512" => ("P-521", 66),
            _ => ("rsa", 0),
        };
        // The end of the public key's DER is the point, or modulus and exponent.
        let der = openssl(&format!("pkey -in {file}.pem -pubout -outform DER"));
        let jwk = match kind {
            "ES" => {
                let (x, y) = der[der.len() - 2 * size..].split_at(size);
                json!({"kty": "EC", "kid": "k", "crv": file, "x": number(x), "y": number(y)})
            }
            _ => {
                let end = der.len() - 5;
                let n = &der[end - 384..end];
                json!({"kty": "RSA", "kid": "k", "n": number(n), "e": "AQAB"})
            }
        };
        let header = json!({"alg": name, "kid": "k", "typ": "JWT"});
        let body = json!({"sub": id().as_str(), "aud": AUDIENCE, "exp": 1_900_000_000});
        let message = format!("{}.{}", encode(&header), encode(&body));
        fs::write(dir.path().join("m"), &message).unwrap();
        let pss = match kind {
            "PS" => " -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:digest",
            _ => "",
        };
        let mut signature = openssl(&format!("dgst -sha{hash} -sign {file}.pem{pss} m"));
        if kind == "ES" {
            signature = fixed(&signature, size);
        }
        let token = format!("{message}.{}", number(&signature));
        let authorities: Arc<[JwtAuthority]> = vec![JwtAuthority::from_jwk(&jwk).unwrap()].into();
        assert_eq!(check(&token, &authorities).unwrap().id, id(), "{name}");
        let other = format!("{}.{}", encode(&header), encode(&json!({"a": 1})));
        assert!(!authorities[0].verifies(algorithm, other.as_bytes(), &signature), "{name}");
    }
}

/// Two INTEGERs of ASN.1 as RFC 7518 §3.4 has them.
fn fixed(der: &[u8], size: usize) -> Vec<u8> {
    use crate::encoding::der::{INTEGER, Reader, SEQUENCE};
    let mut body = Reader::new(der).enter(SEQUENCE).unwrap();
    let mut number = || {
        let content = body.expect(INTEGER).unwrap().content;
        let zeros = content.iter().take_while(|byte| **byte == 0).count();
        let content = &content[zeros..];
        [vec![0; size - content.len()], content.to_vec()].concat()
    };
    [number(), number()].concat()
}
