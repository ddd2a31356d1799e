//! Child processes that end with the test.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::poll;

/// A child whose output goes to a file; killed when dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `program`; standard output and error go to `<name>.log` in `folder`.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn start<S: AsRef<OsStr>>(
        folder: &Path,
        name: &str,
        program: impl AsRef<OsStr>,
        args: &[S],
    ) -> Self {
        let mut command = Command::new(program);
        command.args(args);
        Self::start_command(folder, name, command)
    }

    /// The same for a prepared command.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn start_command(folder: &Path, name: &str, command: Command) -> Self {
        Self::start_fed(folder, name, command, Stdio::null())
    }

    /// The same with something on its standard input.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn start_fed(folder: &Path, name: &str, mut command: Command, input: Stdio) -> Self {
        let log = folder.join(format!("{name}.log"));
        let file = File::create(&log).expect("the test's folder is writable");
        let twin = file.try_clone().expect("a file can be duplicated");
        let child = command
            .stdin(input)
            .stdout(file)
            .stderr(twin)
            .spawn()
            .unwrap_or_else(|e| {
                panic!("{command:?} cannot be started: {e} (scripts/test installs it)")
            });
        Process {
            name: name.into(),
            child,
            log,
        }
    }

    /// The same with a pipe to its standard input, whose writing end is returned.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn start_writable(folder: &Path, name: &str, command: Command) -> (Self, ChildStdin) {
        let mut process = Self::start_fed(folder, name, command, Stdio::piped());
        let pipe = process.child.stdin.take().expect("it was asked for");
        (process, pipe)
    }

    /// Starts a command whose standard output is for another one's input.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn start_piped(folder: &Path, name: &str, mut command: Command) -> (Self, Stdio) {
        let log = folder.join(format!("{name}.log"));
        let file = File::create(&log).expect("the test's folder is writable");
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(file)
            .spawn()
            .unwrap_or_else(|e| panic!("{command:?} cannot be started: {e}"));
        let pipe = child.stdout.take().map_or_else(Stdio::null, Stdio::from);
        let name = name.into();
        (Process { name, child, log }, pipe)
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // It may have ended already.
            let _ = kill_process(pid, signal);
        }
    }

    /// Its exit status once it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// If it still runs after `within`.
    pub fn wait(&mut self, within: Duration) -> ExitStatus {
        let status = poll(within, || self.child.try_wait().ok().flatten());
        status
            .unwrap_or_else(|| panic!("{} still runs after {within:?}\n{}", self.name, self.tail()))
    }

    /// All that it wrote.
    pub fn output(&self) -> String {
        fs::read(&self.log)
            .map(|b| String::from_utf8_lossy(&b).into_owned())
            .unwrap_or_default()
    }

    /// The end of what it wrote.
    pub fn tail(&self) -> String {
        let output = self.output();
        let lines: Vec<&str> = output.lines().collect();
        format!(
            "--- {}:\n{}",
            self.log.display(),
            lines[lines.len().saturating_sub(30)..].join("\n")
        )
    }

    /// Resident memory in bytes, from /proc.
    pub fn resident_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap_or_default();
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
        line.and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok())
            .unwrap_or(0)
            * 1024
    }

    /// Processor time used so far, all threads, from /proc (ticks of 10 ms).
    pub fn cpu_time(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.id())).unwrap_or_default();
        let fields: Vec<&str> = stat
            .rsplit(')')
            .next()
            .unwrap_or("")
            .split_whitespace()
            .collect();
        // proc_pid_stat(5): utime and stime are fields 14 and 15; the first here is field 3.
        let ticks = |i: usize| {
            fields
                .get(i)
                .and_then(|f| f.parse::<u64>().ok())
                .unwrap_or(0)
        };
        Duration::from_millis((ticks(11) + ticks(12)) * 10)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a command to its end and returns exit code and output, both streams together.
///
/// # Panics
/// If it cannot be started or does not end within `within`.
pub fn run<S: AsRef<OsStr>>(
    folder: &Path,
    name: &str,
    program: impl AsRef<OsStr>,
    args: &[S],
    within: Duration,
) -> (Option<i32>, String) {
    let mut process = Process::start(folder, name, program, args);
    let status = process.wait(within);
    (status.code(), process.output())
}
