//! `gureum chat`: what is typed goes out, what comes is shown above the line being typed.

mod typist;

use std::collections::BTreeMap;
use std::io::{BufRead, IsTerminal};
use std::time::Duration;

use gureum_client::vault::{Event, HistoryItem, Resolved, SentMessage, StoredEvent, Target, With};
use gureum_client::{Client, ClientError, ClientEvent, ClientSession, Inbox, SessionCommands, SessionOptions};
use gureum_proto::{ConversationId, Handle};
use rustyline::error::ReadlineError;
use rustyline::{Editor, ExternalPrinter};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use typist::Typist;

use crate::args::ChatArgs;
use crate::home::{Home, whose};
use crate::output::{Output, printable, typing_json};
use crate::send::sent_line;
use crate::signal::Interrupt;

/// Entries of the conversation shown at the start.
const HISTORY_SHOWN: u32 = 20;
/// Lines typed that wait to be handed over.
const LINES_MAX: usize = 16;
/// Messages without an answer before typing has to wait.
const UNANSWERED_MAX: usize = 64;
/// How long another command of this home may go on to take the inbox.
const INBOX_WAIT_MAX: Duration = Duration::from_secs(5);
/// How often is looked whether it is done.
const INBOX_AGAIN: Duration = Duration::from_millis(50);
/// Events shown and then marked together: after a crash in between, at most these are shown again.
const EVENTS_AT_ONCE: usize = 256;

pub(crate) async fn run(home: &Home, output: Output, args: ChatArgs) -> anyhow::Result<()> {
    let mut interrupt = Interrupt::listen()?;
    let client = home.open().await?;
    let begun = tokio::select! {
        biased;
        () = interrupt.wait() => return Ok(()),
        begun = begin(&client) => begun,
    };
    let mut session = begun?;
    let commands = session.commands();
    let resolved = match client.resolve(&args.with).await? {
        // Somebody may be called that who is not known here, also where a group is. Without the server it counts what it
        // has said before.
        Resolved::Group(_) if args.with.handle_meant().is_some() => {
            Box::pin(session.finish(commands.resolve(args.with.clone()))).await?
        }
        Resolved::Unknown if args.with.may_be_somebody() => {
            Box::pin(session.finish(commands.resolve(args.with.clone()))).await?
        }
        resolved => resolved,
    };
    let Some(with) = whose(&resolved) else { anyhow::bail!("there is no conversation with {} here", args.with) };
    let history = client.history(Some(with), HISTORY_SHOWN).await?;
    for item in &history {
        output.print(&output.history(item)?)?;
    }
    let has_read = history.iter().any(|item| matches!(item, HistoryItem::Message(message) if !message.own));
    let (screen, input) = terminal(output, &args.with)?;
    // Another group of this name, or another name, changes nothing about where this goes.
    let handle = match resolved {
        Resolved::Contact(contact) if args.with.phone().is_some() => Some(contact.handle),
        _ => None,
    };
    let to = match (with, &handle) {
        (With::Group(conversation), _) => conversation.into(),
        // Each message to a number would ask the server whose it is.
        (With::Account(_), Some(handle)) => handle.clone().into(),
        (With::Account(_), None) => args.with.clone(),
    };
    let mut chat = Chat {
        client,
        with,
        to,
        typed: args.with,
        handle,
        screen,
        output,
        commands,
        unanswered: JoinSet::new(),
        has_read,
        has_failed: false,
        shown_typing_until: BTreeMap::new(),
    };
    let result = Box::pin(chat.talk(&mut session, input, &mut interrupt)).await;
    drop(chat);
    Box::pin(session.close()).await;
    result
}

/// Takes the inbox; from a command of this home that is about to be done with it, as soon as it is.
async fn begin(client: &Client) -> Result<ClientSession, ClientError> {
    let deadline = Instant::now() + INBOX_WAIT_MAX;
    let mut is_told = false;
    loop {
        match client.session(SessionOptions { inbox: Inbox::Take, reconnect: true }) {
            Err(ClientError::Receiving(_)) if Instant::now() < deadline => {
                if !std::mem::replace(&mut is_told, true) {
                    eprintln!("gureum: another gureum takes the inbox of this home; waiting for it");
                }
                tokio::time::sleep(INBOX_AGAIN).await;
            }
            begun => return begun,
        }
    }
}

struct Chat {
    client: Client,
    with: With,
    to: Target,
    /// Whom this is with, as it was typed.
    typed: Target,
    /// Whom that stands for, if it is a number.
    handle: Option<Handle>,
    screen: Screen,
    output: Output,
    commands: SessionCommands,
    unanswered: JoinSet<Result<SentMessage, ClientError>>,
    /// Something was shown, and the session does not know yet that it is read.
    has_read: bool,
    /// A message could not be sent: whoever typed it has seen why, a program must learn it from the exit code.
    has_failed: bool,
    /// Of whom it is on the screen that they type.
    shown_typing_until: BTreeMap<Handle, Instant>,
}

/// What comes from the keyboard.
struct Input {
    lines: mpsc::Receiver<String>,
    /// Whether there is something in the line that is being typed; news at each key. Ends at once where that is not seen.
    types: watch::Receiver<bool>,
}

impl Chat {
    async fn talk(
        &mut self,
        session: &mut ClientSession,
        mut input: Input,
        interrupt: &mut Interrupt,
    ) -> anyhow::Result<()> {
        self.show_news().await?;
        let mut typing = true;
        while typing || !self.unanswered.is_empty() {
            let room = self.unanswered.len() < UNANSWERED_MAX;
            tokio::select! {
                biased;
                () = interrupt.wait() => return Ok(()),
                Some(answer) = self.unanswered.join_next() => self.show_answer(answer?)?,
                event = session.next() => match event {
                    Some(ClientEvent::News | ClientEvent::CaughtUp | ClientEvent::Sent(_)) => self.show_news().await?,
                    Some(ClientEvent::Disconnected { error, retry_in }) => {
                        let error = printable(&error.to_string());
                        self.screen.print(format!("· {error}; trying again in {:.1} s", retry_in.as_secs_f64()))?;
                    }
                    Some(ClientEvent::Stopped(error)) => return Err(error.into()),
                    Some(ClientEvent::Typing { conversation, from, ends_in }) => {
                        self.show_typing(conversation, from, ends_in).await?;
                    }
                    Some(ClientEvent::Connected) => (),
                    None => return Ok(()),
                },
                Ok(()) = input.types.changed() => {
                    let types = *input.types.borrow_and_update();
                    self.commands.typing(self.to.clone(), types);
                }
                line = input.lines.recv(), if typing && room => match line {
                    Some(line) if line.trim().is_empty() => (),
                    Some(line) => self.hand_over(line).await?,
                    None => typing = false,
                },
            }
        }
        anyhow::ensure!(!self.has_failed || matches!(self.screen, Screen::Editor(_)), "not everything was sent");
        Ok(())
    }

    async fn hand_over(&mut self, line: String) -> anyhow::Result<()> {
        // Handed over here and awaited elsewhere: the order of typing is the order of sending.
        let pending = self.commands.hand_over(self.to.clone(), line).await?;
        self.unanswered.spawn(pending.result());
        Ok(())
    }

    /// Programs are told of what the server has; people see it in the line that they typed.
    fn show_answer(&mut self, answer: Result<SentMessage, ClientError>) -> anyhow::Result<()> {
        match answer {
            Ok(sent) if self.output.json => {
                self.output.print_json(&sent_line(&self.typed, self.handle.as_ref(), &sent))
            }
            Ok(_) => Ok(()),
            // What would be said from here on goes to somebody whose words are not shown here.
            Err(error) if error.is_handle_moved() => Err(error.into()),
            Err(error) => {
                self.has_failed = true;
                self.screen.print(format!("· {}", printable(&error.to_string())))
            }
        }
    }

    /// Shows what belongs to this conversation, and leaves the rest for `gureum receive`. What is shown is read.
    async fn show_news(&mut self) -> anyhow::Result<()> {
        loop {
            let events = self.client.unreported_events_with(self.with, EVENTS_AT_ONCE).await?;
            if events.is_empty() {
                break;
            }
            for StoredEvent { event, .. } in &events {
                if let Event::Message(message) = event
                    && !message.own
                {
                    self.has_read = true;
                    self.shown_typing_until.remove(&message.from_handle);
                }
                if let Some(line) = self.output.event(event)? {
                    self.screen.print(self.screen.toned(event, line))?;
                }
            }
            self.client.mark_reported(events.into_iter().map(|stored| stored.id).collect()).await?;
        }
        if self.has_read {
            self.has_read = !self.commands.note_read(self.to.clone());
        }
        Ok(())
    }

    /// Programs are told each time, people once until it ends.
    async fn show_typing(
        &mut self,
        conversation: ConversationId,
        from: Handle,
        ends_in: Duration,
    ) -> anyhow::Result<()> {
        if whose(&self.client.resolve(&conversation.into()).await?) != Some(self.with) {
            return Ok(());
        }
        if self.output.json {
            return self.output.print_json(&typing_json(conversation, &from, ends_in));
        }
        let now = Instant::now();
        self.shown_typing_until.retain(|_, until| now < *until);
        let is_shown = self.shown_typing_until.remove(&from).is_some();
        if ends_in.is_zero() {
            return Ok(());
        }
        self.shown_typing_until.insert(from.clone(), now + ends_in);
        if is_shown || matches!(self.screen, Screen::Plain(_)) {
            return Ok(());
        }
        self.screen.print(self.screen.dim(format!("· {from} is typing")))
    }
}

/// Where what comes is shown.
enum Screen {
    Editor(Box<dyn ExternalPrinter + Send>),
    Plain(Output),
}

impl Screen {
    /// A line as it looks there: what nobody has said does not stand out.
    fn toned(&self, event: &Event, line: String) -> String {
        if matches!(event, Event::Receipt { .. } | Event::Read { .. }) { self.dim(line) } else { line }
    }

    fn dim(&self, line: String) -> String {
        match self {
            Self::Editor(_) => format!("\u{1b}[2m{line}\u{1b}[0m"),
            Self::Plain(_) => line,
        }
    }

    fn print(&mut self, line: String) -> anyhow::Result<()> {
        match self {
            Self::Editor(printer) => Ok(printer.print(format!("{line}\n"))?),
            Self::Plain(output) => Ok(output.print(&line)?),
        }
    }
}

/// A line editor on a terminal, plain lines otherwise; each on a thread that may wait for ever.
fn terminal(output: Output, with: &Target) -> anyhow::Result<(Screen, Input)> {
    let (sender, lines) = mpsc::channel(LINES_MAX);
    let (typed, types) = watch::channel(false);
    let input = Input { lines, types };
    if output.json || !std::io::stdin().is_terminal() || !std::io::stdout().is_terminal() {
        std::thread::Builder::new().name("typing".to_owned()).spawn(move || {
            for line in std::io::stdin().lock().lines() {
                let Ok(line) = line else { break };
                if sender.blocking_send(line).is_err() {
                    break;
                }
            }
        })?;
        return Ok((Screen::Plain(output), input));
    }
    let mut editor = Editor::with_helper(Typist::new(typed))?;
    let printer = editor.create_external_printer()?;
    let prompt = format!("to {}> ", printable(with.as_str()));
    std::thread::Builder::new().name("typing".to_owned()).spawn(move || {
        loop {
            match editor.readline(&prompt) {
                Ok(line) => {
                    // A history that refuses a line is no reason to lose it.
                    let _ = editor.add_history_entry(line.as_str());
                    if sender.blocking_send(line).is_err() {
                        return;
                    }
                }
                Err(ReadlineError::Signal(_)) => (),
                Err(_) => return,
            }
        }
    })?;
    Ok((Screen::Editor(Box::new(printer)), input))
}
