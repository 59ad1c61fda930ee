//! A child process whose output is read line by line, and which does not outlive its test.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use nix::pty::{Winsize, openpty};

use crate::wait::{SOON, eventually};

/// A client that is idle notices the death of its server when it next says that it is there: every 20 s.
const PATIENCE: Duration = Duration::from_secs(60);

/// The terminal of a child that has one.
const TERMINAL: Winsize = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };

/// A running child.
#[derive(Debug)]
pub struct Running {
    child: Child,
    input: Option<File>,
    /// What it was started with, for messages.
    name: String,
    /// Its standard output.
    pub out: Arc<Lines>,
    /// Its standard error.
    pub err: Arc<Lines>,
}

/// Lines that a child has written so far.
#[derive(Debug, Default)]
pub struct Lines {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    lines: Vec<String>,
    ended: bool,
}

/// The path of one of the project's binaries.
///
/// # Panics
/// If it has not been built.
#[must_use]
pub fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let folder = test.parent().expect("a program lies in a folder");
    // Tests run in target/PROFILE/deps, programs in target/PROFILE.
    let profile = if folder.ends_with("deps") { folder.parent() } else { Some(folder) };
    let path = profile.expect("below target").join(name);
    assert!(path.exists(), "{} is missing: run `cargo build --workspace --bins` first", path.display());
    path
}

impl Running {
    /// Starts a command.
    #[must_use]
    pub fn start(command: &mut Command) -> Self {
        let name = format!("{command:?}");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let input = File::from(OwnedFd::from(child.stdin.take().unwrap()));
        let out = Lines::read(child.stdout.take().unwrap());
        Self::reading(name, child, input, out)
    }

    /// Starts a command on a terminal of its own. What it draws there is its output; a prompt, which the cursor stays
    /// behind, is no line yet.
    #[must_use]
    pub fn on_terminal(mut command: Command) -> Self {
        let name = format!("{command:?}");
        let pty = openpty(&TERMINAL, None).unwrap();
        // Those that no other child gets, which would keep the terminal open after this one's end.
        let [screen, keyboard] = [(); 2].map(|()| File::from(pty.master.try_clone().unwrap()));
        let [stdin, stdout] = [(); 2].map(|()| pty.slave.try_clone().unwrap());
        drop(pty);
        let child = command.env("TERM", "xterm").stdin(stdin).stdout(stdout).stderr(Stdio::piped()).spawn().unwrap();
        // It holds on to its side of the terminal as well.
        drop(command);
        Self::reading(name, child, keyboard, Lines::read(screen))
    }

    fn reading(name: String, mut child: Child, input: File, out: Arc<Lines>) -> Self {
        let err = Lines::read(child.stderr.take().unwrap());
        Self { child, input: Some(input), name, out, err }
    }

    /// Types a line.
    pub fn type_line(&mut self, line: &str) {
        self.type_keys(&format!("{line}\n"));
    }

    /// Types keys, as a terminal writes them.
    pub fn type_keys(&mut self, keys: &str) {
        self.input.as_mut().expect("its input is open").write_all(keys.as_bytes()).unwrap();
    }

    /// Ends its input.
    pub fn end_input(&mut self) {
        self.input = None;
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Ends it at once, by SIGKILL.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Sends it a signal by name, `TERM` or `INT`.
    pub fn signal(&self, signal: &str) {
        let status = Command::new("sh").arg("-c").arg(format!("kill -{signal} {}", self.id())).status().unwrap();
        assert!(status.success(), "no signal could be sent to {}", self.name);
    }

    /// How it has ended, if it has; then all it wrote is read.
    pub fn has_ended(&mut self) -> Option<ExitStatus> {
        let status = self.child.try_wait().unwrap()?;
        eventually(&self.name, SOON, || (self.out.has_ended() && self.err.has_ended()).then_some(()));
        Some(status)
    }

    /// Waits until it has ended by itself, and all it wrote is read.
    #[track_caller]
    pub fn wait(&mut self, deadline: Duration) -> ExitStatus {
        let started = Instant::now();
        let status = eventually(&self.name, deadline, || self.child.try_wait().unwrap());
        eventually(&self.name, deadline.saturating_sub(started.elapsed()) + SOON, || {
            (self.out.has_ended() && self.err.has_ended()).then_some(())
        });
        status
    }

    /// Waits for a line of its standard output for which `find` gives something.
    #[track_caller]
    pub fn wait_for<T>(&mut self, what: &str, find: impl Fn(&str) -> Option<T>) -> T {
        match self.out.find(PATIENCE, &find) {
            Some(found) => found,
            None => panic!(
                "{what}: never said by {}\nstdout: {:#?}\nstderr: {:#?}",
                self.name,
                self.out.all(),
                self.err.all()
            ),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Lines {
    fn read(stream: impl Read + Send + 'static) -> Arc<Self> {
        let lines = Arc::<Self>::default();
        let kept = Arc::clone(&lines);
        std::thread::spawn(move || {
            for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
                kept.state.lock().unwrap().lines.push(String::from_utf8_lossy(&line).into_owned());
                kept.changed.notify_all();
            }
            kept.state.lock().unwrap().ended = true;
            kept.changed.notify_all();
        });
        lines
    }

    /// Everything so far.
    #[must_use]
    pub fn all(&self) -> Vec<String> {
        self.state.lock().unwrap().lines.clone()
    }

    fn has_ended(&self) -> bool {
        self.state.lock().unwrap().ended
    }

    /// Waits for a line for which `find` gives something; `None` at the deadline or the end.
    pub fn find<T>(&self, deadline: Duration, find: impl Fn(&str) -> Option<T>) -> Option<T> {
        let until = Instant::now() + deadline;
        let mut state = self.state.lock().unwrap();
        let mut read = 0;
        loop {
            while read < state.lines.len() {
                if let Some(found) = find(&state.lines[read]) {
                    return Some(found);
                }
                read += 1;
            }
            let left = until.saturating_duration_since(Instant::now());
            if state.ended || left.is_zero() {
                return None;
            }
            state = self.changed.wait_timeout(state, left).unwrap().0;
        }
    }
}
