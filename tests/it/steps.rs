//! Stops the plugin at an exact step of its work: before or after the n-th call to the kernel
//! that changes something below a directory, whichever thread makes it.
//!
//! The tracer is this test binary run once more, so that nothing for tests is in the plugin, and
//! its exit is still its parent's to see. (`strace --inject` counts each thread by itself.)

use std::{
    collections::HashSet,
    env,
    ffi::{CStr, OsStr},
    fs::{self, File},
    io::{self, Read, Write},
    os::unix::{ffi::OsStrExt, fs::FileExt},
    path::{Path, PathBuf},
    process::{Stdio, exit},
    thread,
};

use nix::{
    errno::Errno,
    libc,
    sys::{
        ptrace::{self, Options},
        signal::{Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStderr, Command},
};

/// Whom to trace, what counts, where to stop and what to do there, in the tracer's environment.
const ORDER: &str = "SVID_CSI_TEST_STEPS";

/// Where to stop; steps count from 1.
#[derive(Clone, Copy, Debug)]
pub enum Stop {
    /// Before the n-th step is made.
    Before(usize),
    /// When it has been made.
    After(usize),
}

/// What happens there.
#[derive(Clone, Copy, Debug)]
pub enum Then {
    /// SIGKILL to the whole process.
    Kill,
    /// The thread waits until [`Steps::release`]; the others go on.
    Hold,
}

/// A process under watch.
pub struct Steps {
    tracer: Child,
    lines: Lines<BufReader<ChildStderr>>,
    /// The steps made so far, for people.
    pub seen: Vec<String>,
}

// === impl Steps ===

impl Steps {
    /// Watches a process; from when this returns, each of its steps below `dir` counts.
    pub async fn watch(pid: u32, dir: &Path, stop: Stop, then: Then) -> Self {
        let (at, n) = match stop {
            Stop::Before(n) => ("before", n),
            Stop::After(n) => ("after", n),
        };
        let order = format!("{pid} {at} {n} {then:?} {}", dir.display());
        let mut tracer = Command::new(env::current_exe().unwrap())
            .args(["--exact", "steps::tracer", "--ignored", "--nocapture"])
            .env(ORDER, order)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let lines = BufReader::new(tracer.stderr.take().unwrap()).lines();
        let mut steps = Self { tracer, lines, seen: Vec::new() };
        assert!(steps.until("ready").await, "{:?}", steps.seen);
        steps
    }

    /// Waits until the process was stopped; false if it ended before that.
    pub async fn stopped(&mut self) -> bool {
        self.until("stopped").await
    }

    async fn until(&mut self, word: &str) -> bool {
        while let Some(line) = self.lines.next_line().await.unwrap() {
            if line == word {
                return true;
            }
            self.seen.push(line);
        }
        false
    }

    /// Lets the process go, and watches no longer.
    pub async fn release(mut self) -> Vec<String> {
        self.tracer.stdin = None;
        self.until("").await;
        self.tracer.wait().await.unwrap();
        self.seen
    }
}

/// Not a test: the tracer's process, see [`Steps::watch`].
#[test]
#[ignore = "run by other tests"]
fn tracer() {
    let Ok(order) = env::var(ORDER) else { return };
    let mut parts = order.splitn(5, ' ');
    let mut part = || parts.next().unwrap();
    let pid = Pid::from_raw(part().parse().unwrap());
    let (before, n) = (part() == "before", part().parse().unwrap());
    let (hold, dir) = (part() == "Hold", PathBuf::from(part()));
    thread::spawn(|| {
        let _ = io::stdin().read(&mut [0]);
        // What is traced goes on when its tracer is gone.
        exit(0);
    });
    let mut tracer =
        Tracer { pid, dir, stop: n, before, hold, count: 0, last: None, starting: HashSet::new() };
    tracer.seize();
    tracer.run();
    exit(0);
}

struct Tracer {
    pid: Pid,
    dir: PathBuf,
    stop: usize,
    before: bool,
    hold: bool,
    count: usize,
    /// Who makes the step after which to stop.
    last: Option<Pid>,
    /// Threads that are not under watch yet.
    starting: HashSet<Pid>,
}

// === impl Tracer ===

impl Tracer {
    /// Takes every thread there is; those they start come by themselves.
    fn seize(&mut self) {
        let options = Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_TRACECLONE;
        let mut known = HashSet::new();
        loop {
            let tasks = fs::read_dir(format!("/proc/{}/task", self.pid)).unwrap();
            let tasks = tasks.filter_map(|task| task.ok()?.file_name().to_str()?.parse().ok());
            let new: Vec<i32> = tasks.filter(|task| known.insert(*task)).collect();
            if new.is_empty() {
                return;
            }
            for task in new.into_iter().map(Pid::from_raw) {
                match ptrace::seize(task, options) {
                    Ok(()) => {
                        ptrace::interrupt(task).unwrap();
                        self.starting.insert(task);
                    }
                    // It ended, or came by itself.
                    Err(Errno::ESRCH | Errno::EPERM) => {}
                    Err(errno) => panic!("seize: {errno}"),
                }
            }
        }
    }

    fn run(&mut self) {
        loop {
            let Ok(status) = waitpid(None, Some(WaitPidFlag::__WALL)) else {
                return;
            };
            let (task, signal) = match status {
                WaitStatus::PtraceSyscall(task) => {
                    if self.syscall(task) {
                        say("stopped");
                        if !self.hold {
                            kill(self.pid, Signal::SIGKILL).unwrap();
                            return;
                        }
                        continue;
                    }
                    (task, None)
                }
                WaitStatus::PtraceEvent(task, ..) => (task, None),
                WaitStatus::Stopped(task, signal) => (task, Some(signal)),
                WaitStatus::Exited(task, _) | WaitStatus::Signaled(task, ..) => {
                    if task == self.pid {
                        return;
                    }
                    continue;
                }
                _ => continue,
            };
            // Fails only if the thread was killed meanwhile.
            let _ = ptrace::syscall(task, signal);
            if self.starting.remove(&task) && self.starting.is_empty() {
                say("ready");
            }
        }
    }

    /// Whether this is where to stop.
    fn syscall(&mut self, task: Pid) -> bool {
        let Ok(info) = ptrace::syscall_info(task) else {
            return false;
        };
        if info.op != libc::PTRACE_SYSCALL_INFO_ENTRY {
            return self.last == Some(task) && info.op == libc::PTRACE_SYSCALL_INFO_EXIT;
        }
        let Some((name, path)) = step(task).filter(|(_, path)| path.starts_with(&self.dir)) else {
            return false;
        };
        self.count += 1;
        let path = path.strip_prefix(&self.dir).unwrap_or(&path);
        if self.count == self.stop {
            if self.before {
                return true;
            }
            self.last = Some(task);
        }
        if self.count <= self.stop {
            say(&format!("{name} {}", path.display()));
        }
        false
    }
}

fn say(line: &str) {
    // Nobody may be listening any more.
    let _ = writeln!(io::stderr(), "{line}");
}

#[cfg(target_arch = "x86_64")]
fn registers(task: Pid) -> Option<(i64, [u64; 3])> {
    let regs = ptrace::getregs(task).ok()?;
    Some((regs.orig_rax.cast_signed(), [regs.rdi, regs.rsi, regs.rdx]))
}

#[cfg(target_arch = "aarch64")]
fn registers(task: Pid) -> Option<(i64, [u64; 3])> {
    let regs = ptrace::getregs(task).ok()?;
    Some((regs.regs[8].cast_signed(), [regs.regs[0], regs.regs[1], regs.regs[2]]))
}

/// The call that a thread is about to make, if it changes files or mounts, and on what.
fn step(task: Pid) -> Option<(&'static str, PathBuf)> {
    let (number, [a, b, c]) = registers(task)?;
    #[cfg(target_arch = "x86_64")]
    match number {
        libc::SYS_mkdir => return Some(("mkdir", text(task, a)?)),
        libc::SYS_rename => return Some(("rename", text(task, b)?)),
        libc::SYS_unlink => return Some(("unlink", text(task, a)?)),
        libc::SYS_rmdir => return Some(("rmdir", text(task, a)?)),
        _ => {}
    }
    Some(match number {
        libc::SYS_mkdirat => ("mkdirat", at(task, a, b)?),
        libc::SYS_mount => ("mount", text(task, b)?),
        libc::SYS_umount2 => ("umount2", text(task, a)?),
        libc::SYS_openat if c & libc::O_CREAT as u64 != 0 => ("create", at(task, a, b)?),
        // Not the log.
        libc::SYS_write if a > 2 => ("write", descriptor(task, a)?),
        libc::SYS_fchmod => ("fchmod", descriptor(task, a)?),
        libc::SYS_fchown => ("fchown", descriptor(task, a)?),
        libc::SYS_symlinkat => ("symlinkat", at(task, b, c)?),
        // Where from: where to is the fourth argument's business, and beside it.
        libc::SYS_renameat | libc::SYS_renameat2 => ("renameat", at(task, a, b)?),
        libc::SYS_unlinkat => ("unlinkat", at(task, a, b)?),
        _ => return None,
    })
}

fn at(task: Pid, dir: u64, name: u64) -> Option<PathBuf> {
    let name = text(task, name)?;
    if name.is_absolute() {
        return Some(name);
    }
    Some(descriptor(task, dir)?.join(name))
}

fn descriptor(task: Pid, fd: u64) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{task}/fd/{}", fd as i32)).ok()
}

/// A path in a thread's memory, also one through `/proc/self/fd`.
fn text(task: Pid, address: u64) -> Option<PathBuf> {
    let mut buffer = [0; 4096];
    let read = File::open(format!("/proc/{task}/mem")).ok()?.read_at(&mut buffer, address).ok()?;
    let bytes = CStr::from_bytes_until_nul(&buffer[..read]).ok()?.to_bytes();
    let path = PathBuf::from(OsStr::from_bytes(bytes));
    let Ok(rest) = path.strip_prefix("/proc/self/fd") else {
        return Some(path);
    };
    let mut rest = rest.components();
    let fd: u64 = rest.next()?.as_os_str().to_str()?.parse().ok()?;
    let base = descriptor(task, fd)?;
    Some(if rest.as_path() == Path::new("") { base } else { base.join(rest.as_path()) })
}
