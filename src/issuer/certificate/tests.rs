//! DESIGN.md invariant 6: the controller shows only what a CA signed that may sign here and now.

use std::{io::sink, time::UNIX_EPOCH};

use super::*;
use crate::{
    controller::{audit::Audit, ca::tests::lineage::Lineage, metrics::Metrics},
    pki::Certificate,
};

struct Watch(Mutex<SystemTime>);

impl Clock for Watch {
    fn now(&self) -> SystemTime {
        *self.0.lock().unwrap()
    }
}

/// A controller's certificate through time.
struct Bench {
    clock: Arc<Watch>,
    lineage: Lineage,
    certificate: Arc<ServerCertificate>,
}

impl Bench {
    fn new() -> Self {
        let clock = Arc::new(Watch(Mutex::new(Lineage::start())));
        let lineage = Lineage::new(clock.clone());
        let audit = Audit::new(Box::new(sink()), "a".to_owned(), clock.clone());
        let issuance = Arc::new(Issuance {
            keyring: lineage.keyring.clone(),
            audit: Arc::new(audit),
            metrics: Arc::new(Metrics::default()),
            clock: clock.clone(),
        });
        let domain = "example.org".parse().unwrap();
        let certificate = ServerCertificate::new(issuance, &domain, clock.clone());
        Self { clock, lineage, certificate }
    }

    fn set(&mut self, now: SystemTime) {
        *self.clock.0.lock().unwrap() = now;
    }

    /// The leader does what is due then, and this replica hears of it.
    fn see(&mut self, now: SystemTime) {
        self.set(now);
        self.lineage.at(now);
    }

    fn shown(&self) -> Certificate {
        let key = self.certificate.now().unwrap();
        Certificate::from_der(&key.cert[0]).unwrap()
    }

    fn signing(&self) -> String {
        self.lineage.keyring.signing(self.clock.now()).unwrap().key_id().to_owned()
    }
}

#[tokio::test(start_paused = true)]
async fn there_is_none_before_something_may_sign() {
    let mut bench = Bench::new();
    assert!(bench.certificate.now().is_err());
    bench.see(Lineage::start());
    let shown = bench.shown();
    assert_eq!(shown.uri_sans(), ["spiffe://example.org/svid.dev/controller"]);
    assert_eq!(shown.authority_key_id_hex(), Some(bench.signing()));
    assert!(!format!("{:?}", bench.certificate).contains("key:"));
}

#[tokio::test(start_paused = true)]
async fn it_is_made_anew_at_half_of_its_life_and_when_another_ca_signs() {
    let mut bench = Bench::new();
    let start = Lineage::start();
    bench.see(start);
    let first = bench.shown();
    bench.see(start + TTL / 2 - Duration::from_secs(60));
    assert_eq!(bench.shown().serial_hex(), first.serial_hex());
    bench.see(start + TTL / 2);
    let second = bench.shown();
    assert_ne!(second.serial_hex(), first.serial_hex());
    assert_eq!(second.authority_key_id_hex(), first.authority_key_id_hex());

    // Until the next CA signs, every ten minutes are looked at from its preparation on.
    let (half, life) = (bench.lineage.lifetime() / 2, bench.lineage.lifetime());
    for now in [start + half, start + half + TTL, start + life * 2 / 3 - TTL] {
        bench.see(now);
        assert_eq!(bench.shown().authority_key_id_hex(), first.authority_key_id_hex());
    }
    let mut now = start + life * 2 / 3 - Duration::from_secs(120);
    bench.see(now);
    let before = bench.shown();
    for _ in 0..60 {
        now += Duration::from_secs(10);
        bench.see(now);
        assert_eq!(bench.shown().authority_key_id_hex(), Some(bench.signing()), "always that CA's");
    }
    assert_ne!(bench.shown().authority_key_id_hex(), before.authority_key_id_hex());
}

#[tokio::test(start_paused = true)]
async fn while_nothing_may_sign_the_last_one_goes_on_until_it_ends() {
    let mut bench = Bench::new();
    let start = Lineage::start();
    bench.see(start);
    let shown = bench.shown();
    tokio::time::advance(Duration::from_secs(3_600)).await;
    assert!(bench.lineage.keyring.signing(start).is_err(), "nothing was heard for long");
    bench.set(start + TTL - Duration::from_secs(1));
    assert_eq!(bench.shown().serial_hex(), shown.serial_hex());
    bench.set(shown.not_after());
    assert!(bench.certificate.now().is_err());
    assert!(shown.not_after() > UNIX_EPOCH);
}
