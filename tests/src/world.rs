//! A server with a data directory of its own, started, killed and started again as the real program.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use gureum_proto::ServerUrl;
use tempfile::TempDir;

use crate::admin::Admin;
use crate::child::{Running, binary};
use crate::person::Person;
use crate::wait::{SOON, eventually};

/// How a server is set up.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// `--retention`, if it is not the usual one.
    pub retention: Option<&'static str>,
    /// `--commit-retention`, likewise.
    pub commit_retention: Option<&'static str>,
    /// Further flags.
    pub flags: Vec<&'static str>,
    /// Further settings, each a flag and its value, that only the test's surroundings know.
    pub settings: Vec<(&'static str, String)>,
    /// The data directory, if it is not to be a temporary one.
    pub data_dir: Option<PathBuf>,
    /// The server's program, if it is not the one that lies beside this.
    pub program: Option<PathBuf>,
    /// Where it listens, if not on loopback.
    pub listen: Option<IpAddr>,
    /// The environment variable FAILPOINTS: at which steps the server is to fail.
    pub failpoints: Option<String>,
}

/// A server and the homes of those who use it.
#[derive(Debug)]
pub struct World {
    options: Options,
    data_dir: PathBuf,
    homes: TempDir,
    server: Option<Server>,
    /// Where the server listens, across restarts.
    addresses: Option<(SocketAddr, SocketAddr)>,
    /// The standard error of servers that have ended.
    log: Vec<String>,
}

#[derive(Debug)]
struct Server {
    process: Running,
    listen: SocketAddr,
    admin: SocketAddr,
    url: String,
}

impl World {
    /// Starts a server as the settings' defaults have it.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(Options::default())
    }

    /// Starts a server whose messages live so long.
    #[must_use]
    pub fn with_retention(retention: &'static str) -> Self {
        Self::start_with(Options { retention: Some(retention), ..Options::default() })
    }

    /// Starts a server.
    #[must_use]
    pub fn start_with(options: Options) -> Self {
        let homes = tempfile::tempdir().unwrap();
        let data_dir = options.data_dir.clone().unwrap_or_else(|| homes.path().join("server"));
        let mut world = Self { options, data_dir, homes, server: None, addresses: None, log: Vec::new() };
        let listen = world.options.listen.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        world.launch(&SocketAddr::new(listen, 0).to_string(), "127.0.0.1:0");
        world
    }

    /// Starts the server again, which may end before it is ready.
    ///
    /// # Errors
    /// How it ended.
    pub fn try_restart(&mut self) -> Result<(), ExitStatus> {
        let (listen, admin) = self.addresses.expect("it has run before");
        let mut process = Running::start(&mut self.command(&listen.to_string(), &admin.to_string()));
        let ended = eventually("the server is ready or has ended", SOON, || {
            let is_ready = process.out.all().iter().any(|line| line.contains("ready"));
            if is_ready { Some(None) } else { process.has_ended().map(Some) }
        });
        match ended {
            Some(status) => Err(status),
            None => {
                self.serve(process);
                Ok(())
            }
        }
    }

    fn launch(&mut self, listen: &str, admin: &str) {
        let process = Running::start(&mut self.command(listen, admin));
        self.serve(process);
    }

    fn serve(&mut self, mut process: Running) {
        let ready = process.wait_for("the server is ready", |line| {
            let event: serde_json::Value = serde_json::from_str(line).ok()?;
            (event["event"] == "ready").then_some(event)
        });
        let address = |name: &str| ready[name].as_str().unwrap().parse().unwrap();
        let url = ready["url"].as_str().unwrap().to_owned();
        let (listen, admin) = (address("listen"), address("admin"));
        self.addresses = Some((listen, admin));
        self.server = Some(Server { process, listen, admin, url });
    }

    fn command(&self, listen: &str, admin: &str) -> Command {
        let mut command = Command::new(self.program());
        command.arg("serve").arg("--data-dir").arg(&self.data_dir).args(["--listen", listen, "--admin", admin]);
        for (flag, value) in
            [("--retention", self.options.retention), ("--commit-retention", self.options.commit_retention)]
        {
            if let Some(value) = value {
                command.args([flag, value]);
            }
        }
        command.args(&self.options.flags);
        for (flag, value) in &self.options.settings {
            command.arg(flag).arg(value);
        }
        if let Some(failpoints) = &self.options.failpoints {
            command.env("FAILPOINTS", failpoints);
        }
        command
    }

    fn program(&self) -> PathBuf {
        self.options.program.clone().unwrap_or_else(|| binary("gureumd"))
    }

    fn server(&self) -> &Server {
        self.server.as_ref().expect("the server runs")
    }

    /// Where clients connect to.
    #[must_use]
    pub fn listen(&self) -> SocketAddr {
        self.server().listen
    }

    /// The admin pages.
    #[must_use]
    pub fn admin(&self) -> Admin {
        Admin(self.server().admin)
    }

    /// The server's address with its pin.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.server().url
    }

    /// Its data directory.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// The last time that the server has noted, and starts from.
    #[must_use]
    pub fn last_known_ms(&self) -> u64 {
        gureum_server::time::load_last_known_ms(&self.data_dir).unwrap().expect("a server notes its time")
    }

    /// Makes a server that does not run believe that it was last on at another time.
    pub fn set_last_known_ms(&self, time_ms: u64) {
        gureum_server::time::save_last_known_ms(&self.data_dir, time_ms).unwrap();
    }

    /// A directory for whatever a test needs.
    #[must_use]
    pub fn directory(&self, name: &str) -> PathBuf {
        self.homes.path().join(name)
    }

    /// The server's process id.
    #[must_use]
    pub fn process_id(&self) -> u32 {
        self.server().process.id()
    }

    /// Its resident memory, in KiB.
    #[must_use]
    pub fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process_id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a process has memory");
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// Everything that the server has logged, those before a restart included.
    #[must_use]
    pub fn log(&self) -> String {
        let now = self.server.iter().flat_map(|server| server.process.err.all());
        self.log.iter().cloned().chain(now).collect::<Vec<_>>().join("\n")
    }

    /// Ends the server by SIGKILL and starts it again at the same address.
    pub fn kill_and_restart(&mut self) {
        self.kill();
        self.restart();
    }

    /// Ends the server by SIGKILL.
    pub fn kill(&mut self) {
        let mut server = self.server.take().expect("the server runs");
        server.process.kill();
        self.log.extend(server.process.err.all());
    }

    /// Ends the server by SIGTERM.
    #[track_caller]
    pub fn stop(&mut self) -> ExitStatus {
        self.begin_to_stop();
        self.wait_for_end()
    }

    /// Sends SIGTERM and does not wait for the end.
    pub fn begin_to_stop(&self) {
        self.server().process.signal("TERM");
    }

    /// Waits until the server has ended by itself.
    #[track_caller]
    pub fn wait_for_end(&mut self) -> ExitStatus {
        let mut server = self.server.take().expect("the server runs");
        let status = server.process.wait(SOON);
        self.log.extend(server.process.err.all());
        status
    }

    /// Starts the server again at the address that it had.
    pub fn restart(&mut self) {
        let (listen, admin) = self.addresses.expect("it has run before");
        self.launch(&listen.to_string(), &admin.to_string());
    }

    /// Whether its messages live for another time than usual.
    #[must_use]
    pub const fn has_retention(&self) -> bool {
        self.options.retention.is_some()
    }

    /// At which steps the server is to fail from its next start on.
    pub fn fail_at(&mut self, failpoints: Option<String>) {
        self.options.failpoints = failpoints;
    }

    /// Starts the server again, which is expected to end before it is ready; how it ended and what it said.
    #[track_caller]
    pub fn restart_in_vain(&mut self) -> (ExitStatus, String) {
        let (listen, admin) = self.addresses.expect("it has run before");
        let mut process = Running::start(&mut self.command(&listen.to_string(), &admin.to_string()));
        let status = process.wait(SOON);
        (status, process.err.all().join("\n"))
    }

    /// How the server has ended, if it has.
    pub fn has_ended(&mut self) -> Option<ExitStatus> {
        let status = self.server.as_mut().expect("it was started").process.has_ended()?;
        let server = self.server.take().expect("it was there just now");
        self.log.extend(server.process.err.all());
        Some(status)
    }

    /// Makes an invite.
    #[must_use]
    pub fn invite(&self, uses: u32) -> String {
        let output = Command::new(self.program())
            .arg("invite")
            .arg("--data-dir")
            .arg(&self.data_dir)
            .args(["--uses", &uses.to_string()])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// An invite whose bearer connects by way of another address.
    #[must_use]
    pub fn invite_via(&self, address: SocketAddr) -> String {
        let url: ServerUrl = self.invite(1).parse().unwrap();
        ServerUrl { port: address.port(), ..url }.to_string()
    }

    /// A person who has no account yet.
    #[must_use]
    pub fn stranger(&self, name: &str) -> Person {
        Person::new(name, self.homes.path().join(name))
    }

    /// A person with an account.
    #[must_use]
    pub fn person(&self, name: &str) -> Person {
        self.person_with(name, &self.invite(1))
    }

    /// A person who registers with this invite.
    #[must_use]
    pub fn person_with(&self, name: &str, invite: &str) -> Person {
        let person = self.stranger(name);
        person.ok(&["register", invite, "--handle", name]);
        person
    }

    /// Two people with accounts.
    #[must_use]
    pub fn pair(&self) -> (Person, Person) {
        (self.person("alice"), self.person("bob"))
    }

    /// Starts a server that is expected to refuse, and returns how it ended and what it said.
    #[must_use]
    pub fn fail_to_start(data_dir: &Path, deadline: Duration) -> (ExitStatus, String) {
        let mut command = Command::new(binary("gureumd"));
        command.arg("serve").arg("--data-dir").arg(data_dir);
        command.args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
        let mut process = Running::start(&mut command);
        let status = process.wait(deadline);
        (status, process.err.all().join("\n"))
    }
}
