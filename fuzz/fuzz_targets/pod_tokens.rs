//! The pods' tokens as kubelet hands them over, in JSON that may be anything.

#![no_main]

use libfuzzer_sys::fuzz_target;
use svid_csi::volume::{PodToken, PodTokenError};

const AUDIENCE: &str = "svid.dev";

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    match PodToken::from_json(Some(text), AUDIENCE) {
        Ok(token) => {
            let secret = token.secret();
            assert!(!secret.is_empty() && secret.len() <= 16 << 10);
            assert!(secret.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)));
            // What says when it ends has no letters but those of the type.
            let shown = format!("{token:?}");
            assert!(secret.len() < 24 || !shown.contains(secret), "{shown}");
            let json: serde_json::Value = serde_json::from_str(text).expect("it was read");
            assert_eq!(json[AUDIENCE]["token"], secret);
        }
        Err(error) => {
            // Whatever was wrong, no part of it is told.
            let length = error.to_string().len() + format!("{error:?}").len();
            assert!(length < 600, "{length}");
            if let PodTokenError::Malformed { reason } = &error {
                let digits = |c: char| c.is_ascii_digit();
                let plain = reason.replace(digits, "");
                const REASONS: [&str; 5] = [
                    "too long",
                    "a token is empty or too long",
                    "a token is no JWS",
                    "not of the form that Kubernetes has, at byte  of line ",
                    "not JSON, at byte  of line ",
                ];
                assert!(REASONS.contains(&plain.as_str()), "{reason}");
            }
        }
    }
});
