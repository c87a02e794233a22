//! The node plugin in a real cluster: real kubelets, containerds and pods (docs/testing.md).
//!
//! Every suite takes the cluster as it finds it, leaves it so, and ends with one line that says
//! what was seen.

#![allow(missing_docs, unreachable_pub, reason = "tests are nobody's interface")]

mod attack;
mod away;
mod ca;
mod ca_rotation;
mod cert_manager;
mod change;
mod cluster;
mod command;
mod control;
mod diagnostics;
mod direct;
mod documented;
mod examples;
mod failures;
mod fleet;
mod ground;
mod helm;
mod images;
mod issuers;
mod jwt_files;
mod late;
mod leave_local;
mod load;
mod node;
mod observer;
mod outage;
mod ownership;
mod patience;
mod pod;
mod pod_certificate;
mod reboot;
mod restarts;
mod results;
mod rotation;
mod scale;
mod set;
mod signer;
mod story;
mod watch;
mod workload;
mod workload_api;

use std::{
    any::Any,
    env, fs,
    io::Write,
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
};

use anyhow::{Context, Result, anyhow, bail};

use crate::{
    ground::Ground,
    patience::{heed_signals, interrupted},
    results::{Outcome, Results},
    signer::Signer,
    story::{Seen, Story},
};

/// A part of the proof that can run alone.
struct Suite {
    name: &'static str,
    about: &'static str,
    /// Whether it must look into nodes, restart or kill them: only in our own cluster.
    needs_nodes: bool,
    /// Whether it is about the controller, and so for nobody who signs with `SIGNER=local`.
    needs_controller: bool,
    /// Whether it runs again with each further signer.
    brief: bool,
    run: fn(&Ground, &Story) -> Result<Seen>,
}

const SUITES: &[Suite] = &[
    Suite {
        name: "examples",
        about: "every file of deploy/examples as it stands",
        needs_nodes: false,
        needs_controller: false,
        brief: false,
        run: examples::run,
    },
    Suite {
        name: "ownership",
        about: "owners and modes for every kind of user, and that nobody else sees or changes a file",
        needs_nodes: false,
        needs_controller: false,
        brief: false,
        run: ownership::run,
    },
    Suite {
        name: "rotation",
        about: "ten renewals and a new CA under the eyes of applications",
        needs_nodes: false,
        needs_controller: false,
        brief: false,
        run: rotation::run,
    },
    Suite {
        name: "scale",
        about: "a hundred pods at once beside the same pods with an emptyDir",
        needs_nodes: false,
        needs_controller: false,
        brief: false,
        run: scale::run,
    },
    Suite {
        name: "restarts",
        about: "driver killed, upgraded, away for two minutes; kubelet and containerd restarted",
        needs_nodes: true,
        needs_controller: false,
        brief: false,
        run: restarts::run,
    },
    Suite {
        name: "workload",
        about: "go-spiffe and Python at the volume's socket, through kills and upgrades of the driver",
        needs_nodes: true,
        needs_controller: false,
        brief: true,
        run: workload_api::run,
    },
    Suite {
        name: "reboot",
        about: "a node's processes and memory gone: pods get new keys and certificates",
        needs_nodes: true,
        needs_controller: false,
        brief: false,
        run: reboot::run,
    },
    Suite {
        name: "failures",
        about: "what a user sees when something is wrong, and that it gets right by itself",
        needs_nodes: true,
        needs_controller: false,
        brief: false,
        run: failures::run,
    },
    Suite {
        name: "helm",
        about: "install as the README says, upgrade, rollback and uninstall under running pods",
        needs_nodes: true,
        needs_controller: true,
        brief: false,
        run: helm::run,
    },
    Suite {
        name: "attack",
        about: "with a node's credentials: identities of other pods, hostile requests, the CA",
        needs_nodes: true,
        needs_controller: true,
        brief: false,
        run: attack::run,
    },
    Suite {
        name: "pod-certificate",
        about: "podCertificate volumes: mutual TLS with ours, denials, and who may ask",
        needs_nodes: true,
        needs_controller: true,
        brief: false,
        run: pod_certificate::run,
    },
    Suite {
        name: "ca-rotation",
        about: "CA and JWT key replaced twice under mutual TLS and JWT-SVIDs, the leader killed in every phase",
        needs_nodes: true,
        needs_controller: true,
        brief: false,
        run: ca_rotation::run,
    },
    Suite {
        name: "direct",
        about: "the controller asked directly: replicas and drivers killed, no API server for a while",
        needs_nodes: true,
        needs_controller: true,
        brief: true,
        run: direct::run,
    },
    Suite {
        name: "cert-manager",
        about: "cert-manager's own controller and webhook: issuers, attacks, another approver",
        needs_nodes: true,
        needs_controller: true,
        brief: false,
        run: cert_manager::run,
    },
    Suite {
        name: "away",
        about: "no controller for a quarter of the SVIDs' life, while they fall due",
        needs_nodes: true,
        needs_controller: true,
        brief: false,
        run: away::run,
    },
    Suite {
        name: "leave-local",
        about: "from signer local to csr under mutual TLS by two upgrades",
        needs_nodes: true,
        needs_controller: true,
        brief: false,
        run: leave_local::run,
    },
];

/// Suites that are about certificates of the controller's CA.
const OWN_CA: [&str; 6] = ["failures", "helm", "attack", "ca-rotation", "away", "leave-local"];

const USAGE: &str =
    "usage: make e2e [SUITE=name,…] [SIGNER=csr|controller|cert-manager|local] [KEEP=1]
  SIGNER=csr,controller  all with the first, the brief ones (*) again after an upgrade to the next;
                csr, the chart's default, unless said; local is the CA's key on every node
  KEEP=1        uses the cluster that is up, if it is, and leaves it up
  ROUNDS=2      suite scale: each kind of pod twice
  CLUSTER_DIR   where the cluster keeps its state (/var/tmp/svid-csi-e2e)
  KUBECONFIG    another cluster instead; IMAGE and EXAMPLE_IMAGE must be names that it can pull
suites:";

fn main() -> ExitCode {
    match tested() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            say(&format!("e2e: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Whether all went well.
fn tested() -> Result<bool> {
    let wanted = env::var("SUITE").unwrap_or_default();
    let args = env::args().skip(1).collect::<Vec<_>>().join(",");
    let names: Vec<_> =
        wanted.split(',').chain(args.split(',')).filter(|n| !n.is_empty()).collect();
    if names.iter().any(|name| ["-h", "--help"].contains(name)) {
        say(&usage());
        return Ok(true);
    }
    if let Some(name) = names.iter().find(|name| SUITES.iter().all(|suite| suite.name != **name)) {
        bail!("there is no suite {name}\n{}", usage());
    }
    heed_signals()?;
    let (signer, further) = signers()?;
    let mut ground = Ground::from_environment(signer)?;
    ground.is_free()?;
    let mut results = Results::default();
    let laid = caught(|| ground.lay(&Story::begin("the cluster")));
    if let Err(error) = &laid {
        failed(&ground, "the cluster", error);
    } else {
        let named = |suite: &&Suite| names.is_empty() || names.contains(&suite.name);
        let mut fit = SUITES.iter().filter(named).all(|s| run(&ground, s, s.name, &mut results));
        for signer in further {
            fit = fit && changed_to(&mut ground, signer, &mut results);
            fit = fit
                && SUITES.iter().filter(named).filter(|suite| suite.brief).all(|suite| {
                    let name = format!("{}-{}", suite.name, signer.name());
                    run(&ground, suite, &name, &mut results)
                });
        }
    }
    let shown = results.show(&ground.out);
    ground.clear().context("the cluster's end")?;
    shown?;
    laid?;
    Ok(results.are_good() && !interrupted())
}

/// The first, with which everything runs, and the others.
fn signers() -> Result<(Signer, Vec<Signer>)> {
    let mut signers = Signer::from_environment()?;
    let first = signers.remove(0);
    Ok((first, signers))
}

/// Upgrades to another signer, as a person does: whether it can be worked with.
fn changed_to(ground: &mut Ground, signer: Signer, results: &mut Results) -> bool {
    if interrupted() {
        return false;
    }
    let name = format!("to-{}", signer.name());
    let story = Story::begin(&name);
    let changed = caught(|| change::run(ground, signer, &story));
    let changed = changed.and_then(|seen| ground.sweep().map(|()| seen));
    let fit = changed.is_ok();
    let outcome = match changed {
        Ok(seen) => {
            say(&format!("{name}: {}", seen.line));
            Outcome::Passed(seen)
        }
        Err(error) => {
            failed(ground, &name, &error);
            Outcome::Failed(format!("{error:#}"))
        }
    };
    results.add(&name, story.elapsed().as_secs_f64(), outcome);
    fit
}

/// Whether the next suite still finds what it needs.
fn run(ground: &Ground, suite: &Suite, name: &str, results: &mut Results) -> bool {
    if interrupted() {
        return false;
    }
    if let Some(reason) = suite.unfit(ground) {
        say(&format!("{name}: skipped: {reason}"));
        results.add(name, 0.0, Outcome::Skipped);
        return true;
    }
    let story = Story::begin(name);
    let seen = caught(|| (suite.run)(ground, &story));
    let seconds = story.elapsed().as_secs_f64();
    match &seen {
        Ok(seen) => say(&format!("{name}: {} ({seconds:.0} s)", seen.line)),
        Err(error) => failed(ground, name, error),
    }
    let swept = if interrupted() { Ok(()) } else { caught(|| ground.sweep()) };
    let swept = swept.context("what the suite left behind");
    if let Err(error) = &swept {
        failed(ground, &format!("{name}-after"), error);
        say("the cluster is not fit for another suite");
    }
    let fit = swept.is_ok();
    results.add(
        name,
        seconds,
        match seen.and_then(|seen| swept.map(|()| seen)) {
            Ok(seen) => Outcome::Passed(seen),
            Err(error) => Outcome::Failed(format!("{error:#}")),
        },
    );
    fit
}

// === impl Suite ===

impl Suite {
    /// Why it can't run here.
    fn unfit(&self, ground: &Ground) -> Option<&'static str> {
        if self.needs_nodes && !ground.cluster.is_ours() {
            return Some("it needs the nodes themselves, and this cluster is yours");
        }
        let of_cert_manager = ground.signer == Signer::CertManager;
        if self.name == "cert-manager" && !of_cert_manager {
            return Some("it is about cert-manager; SIGNER=cert-manager runs it");
        }
        // These make requests, policies or CAs of our own controller's kind.
        if of_cert_manager && OWN_CA.contains(&self.name) {
            return Some("it is about the controller's own CA; SIGNER=csr runs it");
        }
        let local = !ground.signer.is_decided();
        if self.name == "direct" && ground.signer != Signer::Controller {
            return Some("it is about signer controller; SIGNER=controller runs it");
        }
        (self.needs_controller && local).then_some("it is about the controller; SIGNER=csr runs it")
    }
}

/// Says what failed, and keeps what was to be seen then.
fn failed(ground: &Ground, name: &str, error: &anyhow::Error) {
    say(&format!("{name}: FAILED: {error:#}"));
    if interrupted() {
        return;
    }
    let directory = ground.out.join(name.replace(' ', "-"));
    let _ = fs::remove_dir_all(&directory);
    if fs::create_dir_all(&directory).is_ok() {
        let _ = fs::write(directory.join("failure.txt"), format!("{error:?}\n"));
        diagnostics::collect(ground, &directory);
        say(&format!("{name}: pods, events and logs are in {}", directory.display()));
    }
}

/// A panic is a failure like any other: the cluster must still go.
fn caught<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(panicked(&*panic)))
}

fn panicked(panic: &(dyn Any + Send)) -> anyhow::Error {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    anyhow!("panic: {}", text.unwrap_or("?"))
}

fn usage() -> String {
    let lines = SUITES.iter().map(|suite| {
        let mark = if suite.brief { "*" } else { " " };
        format!("\n {mark}{:<11}  {}", suite.name, suite.about)
    });
    lines.fold(USAGE.to_owned(), |all, line| all + &line)
}

/// Says it to the person.
fn say(line: &str) {
    // Nobody may be listening any more.
    let _ = writeln!(std::io::stdout(), "{line}");
}
