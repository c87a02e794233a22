//! Which of cert-manager's issuers signs. How it is asked is the same as with
//! CertificateSigningRequests: [`RequestSigner`](super::requests::RequestSigner).

use std::{
    future::pending,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use tracing::{info, warn};

use super::SignError;
use crate::{
    class::Class,
    k8s::{ApiError, Cluster, ConfigText, IssuerRef, ObjectName},
    volume::IssuerChoice,
};

/// The issuer of volumes that name none: the one that the ConfigMap names, else the installation's.
pub struct Issuers {
    installed: Option<IssuerRef>,
    map: Option<(Cluster, ObjectName)>,
    current: Mutex<Current>,
}

/// What is known of the ConfigMap.
#[derive(Debug, Default)]
struct Current {
    issuer: Option<IssuerRef>,
    /// Whether the ConfigMap has been read, or found to be absent, or there is none to read.
    read: bool,
    problem: Option<String>,
    /// The one before, and since when it is that.
    before: Option<(IssuerRef, Instant)>,
}

/// For how long a node may not have heard of another issuer.
const GRACE: Duration = Duration::from_secs(60);

// === impl Issuers ===

impl Issuers {
    /// The installation's issuer, and the ConfigMap that may name another at any time.
    pub fn new(installed: Option<IssuerRef>, map: Option<(Cluster, ObjectName)>) -> Self {
        let current =
            Current { issuer: installed.clone(), read: map.is_none(), ..Current::default() };
        Self { installed, map, current: Mutex::new(current) }
    }

    /// Whom to ask. Whether a volume may choose is for the controller to say.
    pub fn choose(&self, choice: Option<&IssuerChoice>) -> Result<IssuerRef, SignError> {
        if let Some(IssuerChoice { name, kind, group }) = choice {
            return IssuerRef::new(name, kind.as_deref(), group.as_deref())
                .map_err(|error| SignError::new(Class::Invalid, error.to_string()));
        }
        self.ready()?;
        self.current().issuer.clone().ok_or_else(|| {
            SignError::new(
                Class::NotReady,
                "no issuer is known: set --cert-manager-issuer, or issuer-name in the ConfigMap of \
                 --cert-manager-issuer-config-map",
            )
        })
    }

    /// Whether volumes that name no issuer may be asking this one. A node may hear later of another
    /// one than the controller.
    pub fn is_default(&self, issuer: &IssuerRef) -> bool {
        let current = self.current();
        let before = current.before.as_ref().filter(|(_, since)| since.elapsed() <= GRACE);
        current.issuer.as_ref() == Some(issuer)
            || before.is_some_and(|(before, _)| before == issuer)
    }

    /// Reads the ConfigMap now: a node may also hear of it sooner.
    pub async fn read(&self) -> Result<(), ApiError> {
        if let Some((cluster, name)) = &self.map {
            let text = ConfigText::read(cluster, name).await?;
            self.take(text.as_ref(), name);
        }
        Ok(())
    }

    /// Why nobody can be asked yet.
    pub fn ready(&self) -> Result<(), SignError> {
        let current = self.current();
        match (&current.issuer, &current.problem, current.read) {
            (_, _, false) => Err(SignError::new(
                Class::Unavailable,
                "the API server has not said yet which issuer is to sign",
            )),
            (None, Some(problem), true) => Err(SignError::new(Class::NotReady, problem.clone())),
            _ => Ok(()),
        }
    }

    /// Follows the ConfigMap for ever.
    pub async fn follow(&self) {
        let Some((cluster, name)) = &self.map else { return pending().await };
        let (cache, watch) = ConfigText::follow(cluster, "issuer ConfigMap", name);
        let mut state = cache.state();
        let take = async {
            loop {
                if state.borrow_and_update().synced {
                    self.take(cache.get(name).as_deref(), name);
                }
                if state.changed().await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            () = watch => {}
            () = take => {}
        }
    }

    /// Takes what the watch shows; `None` is no ConfigMap, and leaves the installation's issuer.
    fn take(&self, text: Option<&ConfigText>, map: &ObjectName) {
        let told = text.map(ConfigText::issuer).transpose();
        let mut current = self.current();
        current.read = true;
        let problem = match told {
            Ok(told) => {
                let next = told.or_else(|| self.installed.clone());
                if next.is_some() && next != current.issuer {
                    info!(
                        issuer = next.as_ref().map(tracing::field::display),
                        "the issuer that signs"
                    );
                    let before = std::mem::replace(&mut current.issuer, next);
                    current.before = before.map(|before| (before, Instant::now()));
                }
                let absent = text.is_none() && current.issuer.is_none();
                absent.then(|| {
                    format!("the ConfigMap {map} is not there, and it is to name the issuer")
                })
            }
            Err(why) => Some(format!("the ConfigMap {map} names no issuer: {why}")),
        };
        if let Some(problem) = problem.as_ref().filter(|_| problem != current.problem) {
            warn!(problem, "the last issuer that was good stands");
        }
        current.problem = problem;
    }

    fn current(&self) -> std::sync::MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::k8s::fake::FakeApi;

    fn text(name: &str) -> ConfigText {
        ConfigText([("issuer-name".to_owned(), name.to_owned())].into())
    }

    fn issuers(installed: Option<&str>) -> (Issuers, ObjectName) {
        let (cluster, _) = FakeApi::new("worker-1", "n1");
        let name = ObjectName::new("svid-csi", "issuer");
        let installed = installed.map(|text| text.parse().unwrap());
        (Issuers::new(installed, Some((cluster, name.clone()))), name)
    }

    fn chosen(issuers: &Issuers) -> String {
        issuers.choose(None).unwrap().to_string()
    }

    /// Invariant 3: whatever becomes of the ConfigMap, the last good issuer stands.
    #[tokio::test]
    async fn the_configmap_says_who_signs_while_it_is_good() {
        let (issuers, map) = issuers(Some("ClusterIssuer/installed"));
        assert_eq!(issuers.choose(None).unwrap_err().class(), Class::Unavailable);
        issuers.take(None, &map);
        assert_eq!(chosen(&issuers), "ClusterIssuer/installed");
        issuers.take(Some(&text("other")), &map);
        assert_eq!(chosen(&issuers), "ClusterIssuer/other");
        for bad in [ConfigText::default(), text("Not A Name"), text("")] {
            issuers.take(Some(&bad), &map);
            assert_eq!(chosen(&issuers), "ClusterIssuer/other");
        }
        issuers.take(None, &map);
        assert_eq!(chosen(&issuers), "ClusterIssuer/installed");
    }

    #[tokio::test]
    async fn without_any_issuer_it_says_what_to_set() {
        let (issuers, map) = issuers(None);
        issuers.take(None, &map);
        let error = issuers.choose(None).unwrap_err();
        assert_eq!(error.class(), Class::NotReady);
        assert!(error.to_string().contains("svid-csi/issuer is not there"), "{error}");
        issuers.take(Some(&text("late")), &map);
        assert_eq!(chosen(&issuers), "ClusterIssuer/late");
        let nobody = Issuers::new(None, None).choose(None).unwrap_err();
        assert!(nobody.to_string().contains("--cert-manager-issuer"), "{nobody}");
    }

    #[test]
    fn a_volume_may_choose() {
        let choice = |kind: Option<&str>| IssuerChoice {
            name: "a".into(),
            kind: kind.map(str::to_owned),
            group: None,
        };
        let issuers = Issuers::new(None, None);
        let chosen = |choice| issuers.choose(Some(&choice)).map(|it| it.to_string());
        assert_eq!(chosen(choice(None)).unwrap(), "ClusterIssuer/a");
        assert_eq!(chosen(choice(Some("Issuer"))).unwrap(), "Issuer/a");
        assert_eq!(chosen(choice(Some("x/y"))).unwrap_err().class(), Class::Invalid);
    }
}
