//! Keys and proofs as Go's crypto/x509 makes them for a kubelet.

use super::{CsrError, KeyAlgorithm, PublicKey};
use base64::{Engine, prelude::BASE64_STANDARD};

const POD_UID: &str = "8a5b0f5e-6a0d-4b8e-9a57-0d6f2c3b1a90";
const P256_STUB: &str = concat!(
    "MIG5MGICAQAwADBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABLUT2H155naam8t6M6yQWz+Yd7ssAYxS9CJh+1MV",
    "g9Q6JXpe+Ulucvs5nlreIUG2Uw6u10xNl8pP3j0q/txLf/6gADAKBggqhkjOPQQDAgNHADBEAiBgN7g5d7wQE1re",
    "JKc6TVcWmw2L/zbgJYc0KwJfKTPQIAIgCLfj/fPYM0hHa0pikYhj3Ud88pBqEOH53W6Ny54pFIE=",
);
const P256_SPKI: &str = concat!(
    "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEtRPYfXnmdpqby3ozrJBbP5h3uywBjFL0ImH7UxWD1Dolel75SW5y",
    "+zmeWt4hQbZTDq7XTE2Xyk/ePSr+3Et//g==",
);
const P256_PROOF: &str = concat!(
    "MEQCIA53rIXcHlDjGd5Jxt/UNimTxYU//JU76Se3UZpRFZYzAiBRrEEwPWyw/UICJcrrAXhbozJl83cBjfcgTDo5",
    "raLt6g==",
);
const P384_STUB: &str = concat!(
    "MIH4MH8CAQAwADB2MBAGByqGSM49AgEGBSuBBAAiA2IABJwXPqmVE8ETC59/h+J7CeC3AozEFSUat+zSmj17uRPq",
    "0TdjWx1FuKnDxx4ENq0sxeeQTG085CufJC4S4dlVNEUbb35e3lb6OZhp3wVGZKz3OgV4stZfu2Z4Yi0XfY6KP6AA",
    "MAoGCCqGSM49BAMDA2kAMGYCMQDauP0tm5PKFbQifvubiKgDHfYKI1tNi6ZEZMEv1PkmthNX70W5OFLyGZirvNXc",
    "8cwCMQC+RGOTtVzGWgo2L7cDcvXnVHpv57f8rsFvRUJJGxg7odfyqY5nxDm0bkNO5YUeLTs=",
);
const P384_SPKI: &str = concat!(
    "MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAEnBc+qZUTwRMLn3+H4nsJ4LcCjMQVJRq37NKaPXu5E+rRN2NbHUW4qcPH",
    "HgQ2rSzF55BMbTzkK58kLhLh2VU0RRtvfl7eVvo5mGnfBUZkrPc6BXiy1l+7ZnhiLRd9joo/",
);
const P384_PROOF: &str = concat!(
    "MGUCMDsrg0HljrXDCGNGi0+oT2CgKu4UDecH2VElnAGq6APGoGjZHyseqNeuhPwfTQgeRwIxAO4bqcy8SUix2zT7",
    "u+rU/96On5EFXGEBo+gcZv0HE4oV/4jOwwwpRaXLehGF/KsS0Q==",
);
const P521_STUB: &str = concat!(
    "MIIBQjCBpQIBADAAMIGbMBAGByqGSM49AgEGBSuBBAAjA4GGAAQAe1cBSwYVBe+O8iSElT3d+A3xAs7OG4iyUram",
    "aLdDTShZAsy0Qm5PPKSZNIYkQMU2zg3cXx43x3xTb4TSgu2Ny+4AfQ4KWJR/meD9Ng4rULG5TTmvc13H5+KTT6+9",
    "Dq6zOnDO4Cuhe852v+HSN9W186qmtde2u2iFDq7Y77mhjEK0kwagADAKBggqhkjOPQQDBAOBiwAwgYcCQToeP1R1",
    "wjR2H3aiAs5lcwpUba7lV8iNP+qXYuzDNwVOFzgdyr9Qow3MIMC5Lfu49LN/byx+uRpbeXE4JdDXbe4eAkIBNg0q",
    "2ORywuOr7cxFw+uDUlOQpd4CKdKkQRVBWSxAvicYmMl1JOGTyg0biVAu1mD1fcHi6AKivisJq+b08AaXQa8=",
);
const P521_SPKI: &str = concat!(
    "MIGbMBAGByqGSM49AgEGBSuBBAAjA4GGAAQAe1cBSwYVBe+O8iSElT3d+A3xAs7OG4iyUramaLdDTShZAsy0Qm5P",
    "PKSZNIYkQMU2zg3cXx43x3xTb4TSgu2Ny+4AfQ4KWJR/meD9Ng4rULG5TTmvc13H5+KTT6+9Dq6zOnDO4Cuhe852",
    "v+HSN9W186qmtde2u2iFDq7Y77mhjEK0kwY=",
);
const P521_PROOF: &str = concat!(
    "MIGIAkIBlPmxiGQ89Uigt6hfv8QmqbR25gSr9A56MRB0HS81fOBVS23enOb6YdEZrnXt7AtlJ3z/CuR/JCSJvf46",
    "lzKuHj8CQgFAn7WKKce0sACAeXzf45/5HZ4mmyEqvnrtmpI8cUzwEdXG/blygba1MejQD9q9nUFfNiuPIsfV7Urj",
    "va9B7u68IQ==",
);
const ED25519_STUB: &str = concat!(
    "MH8wMwIBADAAMCowBQYDK2VwAyEAuTUzz0TV0JKZod647F7QtRhyIQWa4VFbx8v0DUXhtUCgADAFBgMrZXADQQDZ",
    "ZRLj7BNY+UgTSmjOb3Y4rtcrZv2fguDow7Gwb9+Bm6w+RH3bAr/ynmq8O9bmIWvdxj6RROzqIc/2n2WaBP4J",
);
const ED25519_SPKI: &str = "MCowBQYDK2VwAyEAuTUzz0TV0JKZod647F7QtRhyIQWa4VFbx8v0DUXhtUA=";
const ED25519_PROOF: &str =
    "d9YaSm1+Yn2eOO5FlQ7RwCmXham8pFldV5higJCAw06Y9OxN5Lf0l4y/yBp4cETielj1xcp9189d5EePwsepAQ==";
const RSA4096_SPKI: &str = concat!(
    "MIICIjANBgkqhkiG9w0BAQEFAAOCAg8AMIICCgKCAgEAxS63SSiOFtwG+MeWNOVFoPhiN71Apr6IL4bQDzgjSe5q",
    "5aidr5KHSEDDrQ0t2J8oWI85TvJS+MFu5wyhMdPxOeaeIZx3i4nRDcXpa9WS0B6a6DyXPkNo6/eOSTQWm4TQW3d8",
    "NPp0BpnWJmrLwydzZt59b0+3iP8ABJjj0+PIL5s5jnIAHjshLhggpZOF/uJafYovs28UPpj8r/IEecrhgd/iTeje",
    "7LG5pc7PmeTjrMoV88/m6X5OQsgmGPI+WU/rcWBAFXevGRO+e8r7aH5SV68yLOp8GXAdSs3KvbYm3yuBE/ZGQuvl",
    "ikrTNmTfKQiaNp/4bdn0cNkLHVf1j3eUQJsJcU7UZKF9MiRCyrIS/yhY0tJ104oQZcP7w8nOHySpm99rP4YMcQKw",
    "1sRPFBpX4hMsa3v23TGbMK+AWaV432CmS38FTezE/RaQ0sRcVMXUwDGJYSAdwSaG6/s+Cu1U3xOOJCMum59C9WM+",
    "NglF29Fa98WDRpaUo5bXZus8QDMgwo1uRQO/A9dcxVnfDu0k2UWcEkJVR5DGlPFzc0d8qFizBiFcPjJkQFGceYVZ",
    "txyw6HVw/HKh8NwQAh8wBNZP5ExDin04WZowLok8FELIGsXN5IUSbOp8f4r0PdApfIIEuuJ2PDt/zhoe4jYG4nTk",
    "h4enN2SDCwzFXOXQtu6fu+kCAwEAAQ==",
);
const RSA4096_PROOF: &str = concat!(
    "C+nsjaNpWXCwwyVgBaS10RppE0w0tPu1VNTJZGC1FHvWbqE1jVLuA0NY/xzy+gXKsZBHd2LHjrGxdA3sWmboB4Nj",
    "gIhRhvmMelP8LJg35eyPM0Xo/+d7C1tTNH7LnEtLE0fTIyMxIg/uUydoJfYJMQP7KoX0SU1LW/af7AV/RIFRMwRB",
    "sbs1xOhM+BeXnhDPLNcG7C/wdKLZqoDmflZc14dxU0ekQtPe3I0bR2jix37UNbAxXttdmS9ZbRNHZogtdzGDseuj",
    "wFGPpth8VSpLjO4YVlTA65c2btDkHoISERL8nqnjxswZU0FwmbveHEdKEd+GF1FvHf6laVPJMBj5GxVE4eHQfRT4",
    "f8AMFcFBFPl3wkzwimbn4m+3kDHLXKLURS2Sd2i4YO6SerZulxSZDK1XJ1wJM1URrs7K/LymgLpJMwsoUfR185p+",
    "18KOxbIjduROaK5/x1G2JbBG+yjyP2dnaLMrYMOVdgmfwz3+B35cE0Se7rUS7/d6xAHpstJCBfjzsk09bffHaCYY",
    "fgsPxtgxymN9um981JCv3nwxZbvc6WbT9wMFsqa+DUQki82Iq7gzMGHuwCoSk7q6N6VVwvty7CNWAmsxwGAwUvhB",
    "zrAB1q0X+t8OIksJWK2BUHUEaPm4eVZUjhF8L4FDOaty7oqah69FMoA1FovirL8uEL4=",
);
const RSA3072_STUB: &str = concat!(
    "MIIDRTCCAa0CAQAwADCCAaIwDQYJKoZIhvcNAQEBBQADggGPADCCAYoCggGBALdoZ8MPzqCngcUvB3ypN0eEqVQz",
    "K6Rli8pqbskKkmpqvFYpKfVGpGXM2GBRNCyx0O3s90Y5cafMArDl7SIogKP+VWFGcVKS/EGQrT/Xdyct5C/HVlTQ",
    "qSS/e6Ghedg31t/KT/oSnUFp2Ow8v9H0MAGZMpj07KfC/HXR1DBwsmoARrhj3qpVJb2/UryXTIOAPZKUlZMds6Ly",
    "x4lxzHv6nmZMdYg7aQ+iTGzV4iYWA9TY96rtM2giEfh6EBKqCtPxQM+iN8ahsYDKJsWvSeU0deOKL4EMstWXgwqQ",
    "IDI9sSl4KSzHHebputgz2Myoe5md+HQpkCwH+9NZcsqrBCGriP0A6KoTBGHvUY7eekdb5afqePhc0ax6esCiCZiq",
    "HhIO46G8gYegOg/YTnMDyNgKUKivvzSq31dE55ivS6JjCXB8cLamJaYQBZXzcI59uXWa4BAMIG7Owf/qzmMcmuaV",
    "eAV+uTOoShje4sVYkNzpBf7odu3xF2qBNrJr4z92Aq42wwIDAQABoAAwDQYJKoZIhvcNAQELBQADggGBABxuarcR",
    "0e7P7mX0/rW87G1ZaE/6fZbgj3VEe2SASZ6T6VAkJzFxGnhlI1F6uPAGn9NrtNi+CwnvMbYbfy+Wx3Ao5cv/ie1Y",
    "F3tdZurURJL9M39rGIB3B4cIzMjJQnp9OByxbC7Y+r6SD8N9oFXJu0jg1q45+n+NvyVuwjxmOooit42LzZGEAvkW",
    "7Yk8QwXKiE++0hjdALVfGBjVysbwdquPW3JQJyvIxZ2M+ENqkUyqi1Igc/OaOwo81z+8h+wr/TTz9clGo7aARbvn",
    "4BNPnGCm6Av8sw/+yr7+5toCANZK5XQ/tKn1wV0tI8OToD+Wpuubvi6TFfKrjYL5nuqXr+KDQs/oOVDaOXYcBlbG",
    "T1yG4PM9Qsb5aZavmIchTF9IuU+qPkwzUA2KgOX9aSmqps+dSzLWKIhoj2MJJAqNaAVGoodkRkfloXb44I6beJ6/",
    "F58g4mRGVLpnGaulP1n3o/+95IiGkx6iJgSmNZHJ/C2LuftvPfKGXahzI8ZXFhYj9g==",
);
const WITH_SUBJECT: &str = concat!(
    "MIHHMG4CAQAwDDEKMAgGA1UEAxMBeDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABLUT2H155naam8t6M6yQWz+Y",
    "d7ssAYxS9CJh+1MVg9Q6JXpe+Ulucvs5nlreIUG2Uw6u10xNl8pP3j0q/txLf/6gADAKBggqhkjOPQQDAgNJADBG",
    "AiEAq+Oo4tYVD4JzRxcreMzJf8gBmjav6dRABp8IxT4CQj0CIQCfs6M1PPZgLxTZkoNd1oSR5pbqsNQQahWWwVSZ",
    "dAYQ/g==",
);
const WITH_NAMES: &str = concat!(
    "MIHjMIGJAgEAMAAwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAAS1E9h9eeZ2mpvLejOskFs/mHe7LAGMUvQiYftT",
    "FYPUOiV6XvlJbnL7OZ5a3iFBtlMOrtdMTZfKT949Kv7cS3/+oCcwJQYJKoZIhvcNAQkOMRgwFjAUBgNVHREEDTAL",
    "gglhLmV4YW1wbGUwCgYIKoZIzj0EAwIDSQAwRgIhAOQx/VbLmHhvTmdVS8AnOM5VCK4ThMPmYWHzp6Db+v/tAiEA",
    "8avQDvHE2Hq4s86DTMxxDxw1bTpdyBKUx8GcXtCGm0Q=",
);

fn bytes(text: &str) -> Vec<u8> {
    BASE64_STANDARD.decode(text).unwrap()
}

fn stub(text: &str) -> Result<Option<KeyAlgorithm>, CsrError> {
    PublicKey::of_stub_request(&bytes(text)).map(|key| key.algorithm())
}

fn proven(spki: &str, message: &str, proof: &str) -> Result<Option<KeyAlgorithm>, CsrError> {
    let key = PublicKey::of_proof(&bytes(spki), message.as_bytes(), &bytes(proof));
    key.map(|key| key.algorithm())
}

#[test]
fn a_kubelets_empty_request_gives_its_key() {
    for (text, algorithm) in [
        (P256_STUB, Some(KeyAlgorithm::EcdsaP256)),
        (P384_STUB, Some(KeyAlgorithm::EcdsaP384)),
        (ED25519_STUB, Some(KeyAlgorithm::Ed25519)),
        // Proven, but of a kind that nobody is given.
        (P521_STUB, None),
        (RSA3072_STUB, None),
    ] {
        assert_eq!(stub(text), Ok(algorithm), "{text}");
    }
    let key = PublicKey::of_stub_request(&bytes(P256_STUB)).unwrap();
    assert_eq!(key.spki_der(), bytes(P256_SPKI));
}

#[test]
fn a_request_that_asks_for_something_is_refused() {
    for text in [WITH_SUBJECT, WITH_NAMES] {
        assert_eq!(stub(text), Err(CsrError::NotEmpty));
    }
}

/// Invariant 5: whoever does not hold the key gets nothing certified.
#[test]
fn every_flipped_bit_of_a_request_is_noticed() {
    let good = bytes(ED25519_STUB);
    for at in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[at / 8] ^= 1 << (at % 8);
        let read = PublicKey::of_stub_request(&bad);
        assert!(read.is_err(), "bit {at}: {read:?}");
    }
    for end in 0..good.len() {
        assert!(PublicKey::of_stub_request(&good[..end]).is_err(), "{end} bytes");
    }
}

#[test]
fn a_kubelets_proof_is_checked() {
    for (spki, proof, algorithm) in [
        (P256_SPKI, P256_PROOF, Some(KeyAlgorithm::EcdsaP256)),
        (P384_SPKI, P384_PROOF, Some(KeyAlgorithm::EcdsaP384)),
        (ED25519_SPKI, ED25519_PROOF, Some(KeyAlgorithm::Ed25519)),
        (P521_SPKI, P521_PROOF, None),
    ] {
        assert_eq!(proven(spki, POD_UID, proof), Ok(algorithm), "{spki}");
        let other = POD_UID.replace('8', "9");
        assert_eq!(proven(spki, &other, proof), Err(CsrError::Signature), "{spki}");
        assert_eq!(proven(spki, POD_UID, "MAA="), Err(CsrError::Signature), "{spki}");
    }
    assert_eq!(proven(P256_SPKI, POD_UID, P384_PROOF), Err(CsrError::Signature));
    assert_eq!(proven("MAA=", POD_UID, P256_PROOF), Err(CsrError::Malformed));
}

/// Go salts with as much as fits, which no library here can verify: refused, rather than believed.
#[test]
fn an_rsa_keys_proof_is_refused_for_what_it_is() {
    assert_eq!(proven(RSA4096_SPKI, POD_UID, RSA4096_PROOF), Err(CsrError::Unprovable));
}
