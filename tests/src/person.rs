//! A person at a terminal: runs `gureum` in a home, and reads what it prints.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use gureum_client::Dialer;
use gureum_client::vault::{KeySource, Vault};
use gureum_proto::{AccountId, ConversationKind, Ready, Request, Response};
use serde_json::Value;

use crate::child::{Running, binary};
use crate::wait::eventually;

/// How long any command may take.
const COMMAND_MAX: Duration = Duration::from_secs(30);

/// Somebody with a home.
#[derive(Debug, Clone)]
pub struct Person {
    /// Their handle.
    pub name: String,
    /// Their home.
    pub home: PathBuf,
    /// What their command lines begin with, to run them elsewhere.
    pub within: Vec<String>,
}

/// How a command ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code; `None` after a signal.
    pub code: Option<i32>,
    /// The objects that it printed.
    pub events: Vec<Value>,
    /// What it said on standard error.
    pub said: String,
    /// How long it took.
    pub took: Duration,
}

impl Person {
    /// Somebody who will have this home.
    #[must_use]
    pub fn new(name: &str, home: PathBuf) -> Self {
        Self { name: name.to_owned(), home, within: Vec::new() }
    }

    /// The command line of this home, with `--json`.
    #[must_use]
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = self.command_for_people(&["--json"]);
        command.args(args);
        command
    }

    /// The command line of this home, as people type it.
    #[must_use]
    pub fn command_for_people(&self, args: &[&str]) -> Command {
        let mut words = self.within.iter().map(PathBuf::from).chain([binary("gureum")]);
        let mut command = Command::new(words.next().expect("the program itself"));
        command.args(words).arg("--home").arg(&self.home).args(args);
        command
    }

    /// Runs a command to its end.
    #[track_caller]
    #[must_use]
    pub fn run(&self, args: &[&str]) -> Ended {
        Self::finish(&mut self.command(args))
    }

    /// Runs any command line to its end, and reads its lines of JSON.
    #[track_caller]
    #[must_use]
    pub fn finish(command: &mut Command) -> Ended {
        let started = Instant::now();
        Self::end(Running::start(command), started)
    }

    /// Waits for the end of a command that is told nothing more, and reads its lines of JSON.
    #[track_caller]
    fn end(mut running: Running, started: Instant) -> Ended {
        running.end_input();
        let status = running.wait(COMMAND_MAX);
        let took = started.elapsed();
        let read = |line: &String| serde_json::from_str(line).unwrap_or_else(|_| Value::String(line.clone()));
        let events = running.out.all().iter().map(read).collect();
        Ended { code: status.code(), events, said: running.err.all().join("\n"), took }
    }

    /// Registers with a phone number, and types the code that `code` gives when the server has sent one.
    #[track_caller]
    #[must_use]
    pub fn register_by_phone(&self, server: &str, phone: &str, more: &[&str], code: impl FnOnce() -> String) -> Ended {
        let started = Instant::now();
        let asking = ["register", "--server", server, "--phone", phone, "--handle", self.name.as_str()];
        let mut running = Running::start(&mut self.command(&[&asking[..], more].concat()));
        let is_sent = |line: &str| is_event(line, "code_sent").then_some(());
        if running.out.find(COMMAND_MAX, is_sent).is_some() {
            running.type_line(&code());
        }
        Self::end(running, started)
    }

    /// Listens for wake-ups: the server knows where from when this returns.
    #[track_caller]
    #[must_use]
    pub fn push_listen(&self) -> PushListener {
        let mut running = Running::start(&mut self.command(&["push", "listen"]));
        let listening = event(&mut running, "push_listening");
        PushListener { running, endpoint: string(&listening["endpoint"]) }
    }

    /// Runs a command that must succeed.
    #[track_caller]
    pub fn ok(&self, args: &[&str]) -> Vec<Value> {
        let ended = self.run(args);
        assert_eq!(ended.code, Some(0), "{} {args:?}: {}\n{:#?}", self.name, ended.said, ended.events);
        ended.events
    }

    /// Shows a code, by a `gureum link` that runs until the device is linked.
    #[track_caller]
    #[must_use]
    pub fn show_code(&self, server: &str, device_name: &str) -> (Running, String) {
        let mut running = Running::start(&mut self.command(&["link", server, "--device-name", device_name]));
        let code = event(&mut running, "link_code");
        (running, string(&code["code"]))
    }

    /// Another home of this person, which this one has added to the account.
    #[track_caller]
    #[must_use]
    pub fn link(&self, server: &str, home: PathBuf, device_name: &str) -> Self {
        let other = Self::new(&self.name, home);
        let (mut running, code) = other.show_code(server, device_name);
        self.ok(&["devices", "approve", &code]);
        event(&mut running, "linked");
        assert!(running.wait(COMMAND_MAX).success(), "{:?}", running.err.all());
        other
    }

    /// Sends a message and returns what `send` printed.
    #[track_caller]
    pub fn send(&self, to: &Self, text: &str) -> Value {
        let mut events = self.ok(&["send", &to.name, text]);
        assert_eq!(events.len(), 1, "send prints one object: {events:#?}");
        events.remove(0)
    }

    /// Takes the inbox and returns what came, but for receipts: those come whenever the other one's device is connected.
    #[track_caller]
    #[must_use]
    pub fn receive(&self) -> Vec<Value> {
        let came = self.ok(&["receive"]);
        came.into_iter().filter(|event| event["event"] != "receipt").collect()
    }

    /// Takes the inbox and returns the receipts that came: which kind, of which message.
    #[track_caller]
    #[must_use]
    pub fn receive_receipts(&self) -> Vec<(String, String)> {
        receipts(&self.ok(&["receive"]))
    }

    /// Takes the inbox and returns the texts that came.
    #[track_caller]
    #[must_use]
    pub fn receive_texts(&self) -> Vec<String> {
        texts(&self.receive())
    }

    /// The history of this home.
    #[track_caller]
    #[must_use]
    pub fn history(&self) -> Vec<Value> {
        self.ok(&["history"])
    }

    /// Who wrote what, as the history has it.
    #[track_caller]
    #[must_use]
    pub fn talk(&self) -> Vec<(String, String)> {
        let messages = self.history().into_iter().filter(|event| event["event"] == "message");
        messages.map(|event| (string(&event["from"]), string(&event["text"]))).collect()
    }

    /// Follows the inbox.
    #[must_use]
    pub fn follow(&self) -> Follower {
        Follower { running: Running::start(&mut self.command(&["receive", "--follow"])) }
    }

    /// Follows the inbox, and returns when everything that waited has come.
    #[track_caller]
    #[must_use]
    pub fn follow_from_now(&self) -> Follower {
        let follower = self.follow();
        let up_to_date = |line: &str| line.contains("up to date").then_some(());
        let said = follower.running.err.find(COMMAND_MAX, up_to_date);
        assert!(said.is_some(), "{} is not up to date: {:#?}", self.name, follower.running.err.all());
        follower
    }

    /// Talks to somebody: what is typed goes out.
    #[must_use]
    pub fn chat(&self, with: &Self) -> Running {
        Running::start(&mut self.command(&["chat", &with.name]))
    }

    /// Talks to somebody on a terminal.
    #[must_use]
    pub fn chat_on_terminal(&self, with: &Self) -> Running {
        Running::on_terminal(self.command_for_people(&["chat", &with.name]))
    }

    /// Ends the epoch of every conversation by a commit that renews this device's keys, as a week of talk would.
    pub async fn renew_keys(&self) {
        let mut vault = Vault::open(&self.home, &KeySource::File).unwrap();
        let identity = vault.identity().clone();
        let unproven = Dialer::new(identity.server.clone()).unwrap().connect().await.unwrap();
        let claim = vault.hello_claim(false).unwrap();
        let (link, _events, _ready) = unproven.prove(claim, &identity.proof).await.unwrap();
        for conversation in vault.conversations().unwrap() {
            let commit = vault.commit_self_update(conversation.id).unwrap().expect("a conversation that goes on");
            let answer = link.request(&Request::SubmitCommit(commit)).await;
            assert!(matches!(answer, Ok(Response::CommitAccepted { .. })), "{answer:?}");
            vault.commit_accepted(conversation.id).unwrap();
        }
        link.close().await;
    }

    /// The account of this home.
    #[must_use]
    pub fn account(&self) -> AccountId {
        Vault::open(&self.home, &KeySource::File).unwrap().identity().account
    }

    /// What the server says to another connection of this home.
    pub async fn ready(&self) -> Ready {
        let mut vault = Vault::open(&self.home, &KeySource::File).unwrap();
        let identity = vault.identity().clone();
        let unproven = Dialer::new(identity.server.clone()).unwrap().connect().await.unwrap();
        let claim = vault.hello_claim(false).unwrap();
        let (link, _events, ready) = unproven.prove(claim, &identity.proof).await.unwrap();
        link.close().await;
        ready
    }

    /// The epoch of this home's one conversation with others.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        let conversations = Vault::open(&self.home, &KeySource::File).unwrap().conversations().unwrap();
        let with_others = conversations.iter().find(|conversation| conversation.kind != ConversationKind::Own);
        with_others.expect("a conversation").epoch
    }

    /// The path of a file in the home.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        Path::new(&self.home).join(name)
    }
}

/// A `receive --follow` that runs.
#[derive(Debug)]
pub struct Follower {
    /// Its process.
    pub running: Running,
}

impl Follower {
    /// Waits for the message with this text.
    #[track_caller]
    pub fn wait_for_text(&mut self, text: &str) -> Value {
        self.running.wait_for(text, |line| {
            let event: Value = serde_json::from_str(line).ok()?;
            (event["event"] == "message" && event["text"] == text).then_some(event)
        })
    }

    /// Waits until it is told that a message has come to its reader, or was read.
    #[track_caller]
    pub fn wait_for_receipt(&mut self, kind: &str, message_id: &Value) -> Value {
        wait_for_receipt(&mut self.running, kind, message_id)
    }

    /// Everything printed so far.
    #[must_use]
    pub fn events(&self) -> Vec<Value> {
        self.running.out.all().iter().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Ends it by SIGKILL, and returns what it had printed.
    #[must_use]
    pub fn kill(mut self) -> Vec<Value> {
        self.running.kill();
        self.events()
    }

    /// Ends it by Ctrl-C, and returns what it had printed.
    #[track_caller]
    #[must_use]
    pub fn interrupt(mut self) -> Vec<Value> {
        self.running.signal("INT");
        let status = self.running.wait(COMMAND_MAX);
        assert!(status.success(), "interrupted: {status:?} {:#?}", self.running.err.all());
        self.events()
    }
}

/// A `push listen` that runs.
#[derive(Debug)]
pub struct PushListener {
    /// Its process.
    pub running: Running,
    /// Where it is woken.
    pub endpoint: String,
}

impl PushListener {
    /// What has come so far: the kind of each wake-up.
    #[must_use]
    pub fn wakes(&self) -> Vec<String> {
        let lines = self.running.out.all();
        let events = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        events.filter(|event| event["event"] == "wake").map(|event| string(&event["kind"])).collect()
    }

    /// Waits until so many wake-ups have come, and returns all.
    #[track_caller]
    #[must_use]
    pub fn wait_for_wakes(&self, count: usize) -> Vec<String> {
        eventually("wake-ups", COMMAND_MAX, || Some(self.wakes()).filter(|wakes| wakes.len() >= count))
    }

    /// Ends it by Ctrl-C, so that nothing wakes the device any more, and returns what had come.
    #[track_caller]
    #[must_use]
    pub fn interrupt(mut self) -> Vec<String> {
        self.running.signal("INT");
        let status = self.running.wait(COMMAND_MAX);
        assert!(status.success(), "interrupted: {status:?} {:#?}", self.running.err.all());
        self.wakes()
    }
}

/// Whether a line is an event of this name.
fn is_event(line: &str, name: &str) -> bool {
    serde_json::from_str::<Value>(line).is_ok_and(|event| event["event"] == name)
}

/// Waits for an event of this name.
#[track_caller]
pub fn event(running: &mut Running, name: &str) -> Value {
    running.wait_for(name, |line| {
        let event: Value = serde_json::from_str(line).ok()?;
        (event["event"] == name).then_some(event)
    })
}

/// Waits until it is told that a message has come to its reader, or was read.
#[track_caller]
pub fn wait_for_receipt(running: &mut Running, kind: &str, message_id: &Value) -> Value {
    running.wait_for(kind, |line| {
        let event: Value = serde_json::from_str(line).ok()?;
        let is_it = event["event"] == "receipt" && event["kind"] == kind && event["message_id"] == *message_id;
        is_it.then_some(event)
    })
}

/// The events of this name, in order.
#[must_use]
pub fn named<'a>(events: &'a [Value], name: &str) -> Vec<&'a Value> {
    events.iter().filter(|event| event["event"] == name).collect()
}

/// The texts of messages among events, in order.
#[must_use]
pub fn texts(events: &[Value]) -> Vec<String> {
    events.iter().filter(|event| event["event"] == "message").map(|event| string(&event["text"])).collect()
}

/// The receipts among events, in order: which kind, of which message.
#[must_use]
pub fn receipts(events: &[Value]) -> Vec<(String, String)> {
    let receipts = events.iter().filter(|event| event["event"] == "receipt");
    receipts.map(|event| (string(&event["kind"]), string(&event["message_id"]))).collect()
}

/// The gaps among events: how many messages, and why.
#[must_use]
pub fn gaps(events: &[Value]) -> Vec<(u64, String)> {
    let gaps = events.iter().filter(|event| event["event"] == "gap");
    gaps.map(|event| (number(&event["count"]), string(&event["reason"]))).collect()
}

/// A field that is a string.
#[track_caller]
#[must_use]
pub fn string(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is no string")).to_owned()
}

/// A field that is a whole number.
#[track_caller]
#[must_use]
pub fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number"))
}
