//! JWT-SVID.md, as issuer and as validator.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::{
    requirements,
    token::{self, AUDIENCE, Forger, fetch, part, refused, validate},
};
use crate::workload_api::Ground;

requirements! {
    JwtSvid "2" Must
    "A token's header has `alg`, `kid` and `typ` and nothing else."
    async fn jwt_svid_2_the_header_has_nothing_else() {
        let ground = Ground::new();
        let (_pod, mut api) = ground.pod(1).await;
        let header = part(&fetch(&mut api, &[AUDIENCE]).await, 0);
        let mut names: Vec<_> = header.as_object().unwrap().keys().map(String::as_str).collect();
        names.retain(|name| !["alg", "kid", "typ"].contains(name));
        assert_eq!(names, [""; 0]);
    }

    JwtSvid "2" Must
    "Only JWS is taken: no encrypted token, and none whose key or critical extension comes with it."
    async fn jwt_svid_2_only_plain_signatures_are_taken() {
        let ground = Ground::new();
        let (_pod, mut api) = ground.pod(1).await;
        let forger = Forger::new(&ground);
        let jwk = json!({"kty": "oct", "k": "c2VjcmV0"});
        refused(&mut api, &[
            "eyJhbGciOiJSU0EtT0FFUCJ9.a.b.c.d".to_owned(),
            forger.with_header(|header| header["jwk"] = jwk),
            forger.with_header(|header| header["jku"] = "https://example.org/keys".into()),
            forger.with_header(|header| header["crit"] = json!(["exp"])),
            forger.with_header(|header| header["b64"] = false.into()),
        ])
        .await;
    }

    JwtSvid "2.1" Must
    "`alg` is one of RS, PS and ES 256, 384 and 512; any other is refused before anything is computed."
    async fn jwt_svid_2_1_other_algorithms_are_refused() {
        let ground = Ground::new();
        let (_pod, mut api) = ground.pod(1).await;
        let issued = part(&fetch(&mut api, &[AUDIENCE]).await, 0);
        assert_eq!(issued["alg"], "ES256");
        let forger = Forger::new(&ground);
        let mut tokens = Vec::new();
        for alg in ["none", "None", "HS256", "EdDSA", "ES256K", "RS256", "ES384", "PS256", ""] {
            tokens.push(forger.with_header(|header| header["alg"] = alg.into()));
        }
        tokens.push(forger.with_header(|header| {
            header.as_object_mut().unwrap().remove("alg");
        }));
        let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#);
        let claims = URL_SAFE_NO_PAD.encode(token::claims().to_string());
        tokens.push(format!("{none}.{claims}."));
        refused(&mut api, &tokens).await;
    }

    JwtSvid "2.3" Must
    "`typ`, where it is set, is `JWT` or `JOSE`."
    async fn jwt_svid_2_3_typ_is_jwt_or_jose() {
        let ground = Ground::new();
        let (_pod, mut api) = ground.pod(1).await;
        let issued = part(&fetch(&mut api, &[AUDIENCE]).await, 0);
        assert!(matches!(issued["typ"].as_str(), None | Some("JWT" | "JOSE")), "{issued}");
        let forger = Forger::new(&ground);
        for typ in ["JWT", "JOSE"] {
            let token = forger.with_header(|header| header["typ"] = typ.into());
            validate(&mut api, &token).await.unwrap();
        }
        let without = forger.with_header(|header| {
            header.as_object_mut().unwrap().remove("typ");
        });
        validate(&mut api, &without).await.unwrap();
        refused(&mut api, &["wit+jwt", "at+jwt", ""].map(|typ| {
            forger.with_header(|header| header["typ"] = typ.into())
        }))
        .await;
    }

    JwtSvid "3.1" Must
    "`sub` is the SPIFFE ID of the workload."
    async fn jwt_svid_3_1_the_subject_is_the_spiffe_id() {
        let ground = Ground::new();
        let (pod, mut api) = ground.pod(1).await;
        let issued = part(&fetch(&mut api, &[AUDIENCE]).await, 1);
        assert_eq!(issued["sub"], Value::String(pod.id()));
        let forger = Forger::new(&ground);
        let mut tokens = vec![forger.with_claims(|claims| {
            claims.as_object_mut().unwrap().remove("sub");
        })];
        for sub in [json!(""), json!("spiffe://example.org/a/../b"), json!(7), json!(null)] {
            tokens.push(forger.with_claims(|claims| claims["sub"] = sub));
        }
        refused(&mut api, &tokens).await;
    }

    JwtSvid "3.2" Must
    "`aud` is there with at least one value; without it, or without the validator's own, a token is refused."
    async fn jwt_svid_3_2_the_audience_is_checked() {
        let ground = Ground::new();
        let (_pod, mut api) = ground.pod(1).await;
        let issued = part(&fetch(&mut api, &[AUDIENCE]).await, 1);
        assert_eq!(issued["aud"], json!([AUDIENCE]), "an array");
        let forger = Forger::new(&ground);
        for aud in [json!(AUDIENCE), json!(["shop", AUDIENCE])] {
            let token = forger.with_claims(|claims| claims["aud"] = aud);
            validate(&mut api, &token).await.unwrap();
        }
        let mut tokens = vec![forger.with_claims(|claims| {
            claims.as_object_mut().unwrap().remove("aud");
        })];
        for aud in [json!([]), json!(["shop"]), json!("BANK"), json!(null), json!([7])] {
            tokens.push(forger.with_claims(|claims| claims["aud"] = aud));
        }
        refused(&mut api, &tokens).await;
    }

    JwtSvid "3.3" Must
    "`exp` is set; a token without it, or past it, is refused."
    async fn jwt_svid_3_3_the_end_is_checked() {
        let ground = Ground::new();
        let (_pod, mut api) = ground.pod(1).await;
        let issued = part(&fetch(&mut api, &[AUDIENCE]).await, 1);
        let exp = issued["exp"].as_u64().expect("an integer, as AWS wants it");
        assert!(exp > token::now() && exp <= token::now() + 3_600, "{issued}");
        let forger = Forger::new(&ground);
        let mut tokens = vec![forger.with_claims(|claims| {
            claims.as_object_mut().unwrap().remove("exp");
        })];
        for exp in [json!(0), json!(token::now() - 120), json!("soon"), json!(-1), json!(null)] {
            tokens.push(forger.with_claims(|claims| claims["exp"] = exp));
        }
        refused(&mut api, &tokens).await;
    }

    JwtSvid "4" Must
    "A token that was valid is refused once it has expired, though it was remembered."
    async fn jwt_svid_4_what_was_valid_once_expires() {
        let ground = Ground::new();
        let (_pod, mut api) = ground.pod(1).await;
        let token = fetch(&mut api, &[AUDIENCE]).await;
        validate(&mut api, &token).await.unwrap();
        validate(&mut api, &token).await.unwrap();
        ground.machine.clock.set_ahead(std::time::Duration::from_secs(1_000));
        refused(&mut api, &[token]).await;
    }

    JwtSvid "5.1" Must
    "Tokens are in compact serialization; the JSON serialization is not taken."
    async fn jwt_svid_5_1_only_compact_serialization() {
        let ground = Ground::new();
        let (_pod, mut api) = ground.pod(1).await;
        let token = fetch(&mut api, &[AUDIENCE]).await;
        let parts: Vec<_> = token.split('.').collect();
        let [header, payload, signature] = parts[..] else { panic!("{} parts", parts.len()) };
        let flat = json!({"protected": header, "payload": payload, "signature": signature});
        let general = json!({
            "payload": payload,
            "signatures": [{"protected": header, "signature": signature}],
        });
        refused(&mut api, &[flat.to_string(), general.to_string(), format!(" {token}")]).await;
    }
}
