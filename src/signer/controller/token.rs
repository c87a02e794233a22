//! The driver's own token: a file that kubelet writes anew long before it expires.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use tokio::{task::spawn_blocking, time::Instant};
use tonic::metadata::{Ascii, MetadataValue};

use crate::{
    class::Class,
    clock::Clock,
    jose::{Jws, MAX_TOKEN},
    signer::SignError,
    sys::RegularFile,
};

/// How long what was read is used.
const FRESH: Duration = Duration::from_secs(10);

/// Where the token is, and what was read there last.
pub(super) struct DriverToken {
    source: Arc<Source>,
    clock: Arc<dyn Clock>,
    read: Mutex<Option<(Instant, Read)>>,
}

struct Source {
    path: PathBuf,
    audience: String,
}

/// `Bearer …`, marked as sensitive, and its end; `Err` says what is wrong with the file.
type Read = Result<(MetadataValue<Ascii>, Option<SystemTime>), String>;

// === impl DriverToken ===

impl DriverToken {
    pub(super) fn new(path: PathBuf, audience: String, clock: Arc<dyn Clock>) -> Self {
        Self { source: Arc::new(Source { path, audience }), clock, read: Mutex::default() }
    }

    /// The token as metadata, for the controller alone.
    pub(super) async fn bearer(&self) -> Result<MetadataValue<Ascii>, SignError> {
        let known = self.last().filter(|(at, _)| at.elapsed() < FRESH);
        let read = match known {
            Some((_, read)) => read,
            None => self.reread().await,
        };
        self.usable(read)
    }

    /// Reads the file again. True if it holds another token than before.
    pub(super) async fn changed(&self) -> bool {
        let before = self.last().and_then(|(_, read)| read.ok());
        let now = self.reread().await.ok();
        now.is_some() && now.map(|(token, _)| token) != before.map(|(token, _)| token)
    }

    /// Why there is none, as far as it is known.
    pub(super) fn problem(&self) -> Option<SignError> {
        self.usable(self.last()?.1).err()
    }

    async fn reread(&self) -> Read {
        let source = self.source.clone();
        let read = spawn_blocking(move || source.read()).await;
        let read = read.unwrap_or_else(|_panic| Err("the driver failed inside".to_owned()));
        *self.read.lock().unwrap_or_else(PoisonError::into_inner) =
            Some((Instant::now(), read.clone()));
        read
    }

    fn last(&self) -> Option<(Instant, Read)> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn usable(&self, read: Read) -> Result<MetadataValue<Ascii>, SignError> {
        let wrong = |reason: &str| {
            let path = self.source.path.display();
            let message = format!(
                "the driver's own token, {path}: {reason}; mount a projected serviceAccountToken \
                 with the audience {:?} there",
                self.source.audience
            );
            SignError::new(Class::NotReady, message)
        };
        let (token, end) = read.map_err(|reason| wrong(&reason))?;
        match end {
            Some(end) if end <= self.clock.now() => {
                Err(wrong("it has expired, and kubelet has not written a new one"))
            }
            _ => Ok(token),
        }
    }
}

// === impl Source ===

impl Source {
    /// Nothing that it says holds a part of the token.
    fn read(&self) -> Read {
        let file = RegularFile::read(&self.path, MAX_TOKEN).map_err(|error| error.to_string())?;
        let text = std::str::from_utf8(&file.content).map_err(|_error| "it is no text")?;
        let text = text.trim_ascii();
        let jws = Jws::parse(text).map_err(|_error| "it is no JWT")?;
        let audience = jws.audience().unwrap_or_default();
        // Whoever gets it could use it at every other audience, the API server above all.
        if audience != [self.audience.as_str()] {
            return Err("it is not for this audience alone".to_owned());
        }
        let end = jws.time("exp").ok().flatten();
        let bearer = zeroize::Zeroizing::new(format!("Bearer {text}"));
        let mut value =
            MetadataValue::try_from(bearer.as_str()).map_err(|_error| "it is no JWT")?;
        value.set_sensitive(true);
        Ok((value, end))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::clock::SystemClock;

    fn jwt(claims: &str) -> String {
        use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
        let parts = [r#"{"alg":"RS256","kid":"k"}"#, claims, "signature"];
        parts.map(|part| BASE64.encode(part)).join(".")
    }

    #[tokio::test(start_paused = true)]
    async fn the_file_is_read_again_and_only_our_audience_alone_is_told_anybody() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let clock = Arc::new(SystemClock);
        let token = DriverToken::new(path.clone(), "svid.dev".to_owned(), clock);
        assert!(token.problem().is_none(), "nobody looked");
        let error = token.bearer().await.unwrap_err();
        assert!(error.to_string().contains("serviceAccountToken"), "{error}");
        let first = jwt(r#"{"aud":["svid.dev"],"exp":4102444800}"#);
        fs::write(&path, format!("{first}\n")).unwrap();
        assert!(token.bearer().await.is_err() && token.problem().is_some(), "read a moment ago");
        assert!(token.changed().await && !token.changed().await);
        let bearer = token.bearer().await.unwrap();
        assert_eq!(bearer.to_str().unwrap(), format!("Bearer {first}"));
        assert!(bearer.is_sensitive() && !format!("{bearer:?}").contains(&first[..8]));
        assert!(token.problem().is_none());
        // As kubelet does it, long before the end.
        let second = jwt(r#"{"aud":"svid.dev","exp":4102444801}"#);
        fs::write(&path, &second).unwrap();
        assert_eq!(token.bearer().await.unwrap(), bearer);
        tokio::time::advance(FRESH).await;
        assert_eq!(token.bearer().await.unwrap().to_str().unwrap(), format!("Bearer {second}"));
        for (bad, part) in [
            (jwt(r#"{"aud":["https://kubernetes.default.svc"],"exp":4102444800}"#), "alone"),
            (jwt(r#"{"aud":["svid.dev","https://kubernetes.default.svc"]}"#), "alone"),
            (jwt("{}"), "alone"),
            (jwt(r#"{"aud":"svid.dev","exp":1700000000}"#), "expired"),
            ("c2VjcmV0".to_owned(), "no JWT"),
            ("x".repeat(MAX_TOKEN + 1), "more than"),
        ] {
            fs::write(&path, &bad).unwrap();
            tokio::time::advance(FRESH).await;
            let error = token.bearer().await.unwrap_err();
            assert_eq!(error.class(), Class::NotReady);
            assert!(error.to_string().contains(part), "{error}");
            assert!(!error.to_string().contains(&bad[..8]), "{error}");
        }
    }
}
