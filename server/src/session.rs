//! One connection's conversation with the server, as a pure state machine: it decides, the connection's shell moves
//! bytes and performs the actions.
//!
//! ```text
//!          Register                Hello               proof holds
//!   New ──────────► Registering     New ──► Proving ────────────────► Ready
//!    ▲───── answer ──────┘                     └── proof fails ──► Closed ◄── any violation
//! ```

mod authority;
mod life;
mod subscription;

use std::collections::VecDeque;

use gureum_proto::limits::SENDS_IN_FLIGHT_MAX;
use gureum_proto::{
    ClientFrame, Code, EXPORTER_BYTES, Hello, Life, Position, Ready, Refusal, Register, Registered, Send, Sent,
    ServerFrame,
};
use gureum_wire::{Frame, FrameError};

pub use authority::{Authenticated, DeviceFacts};
pub use life::{Standing, judge};
use subscription::Subscription;
pub use subscription::{Item, Page};

/// What is fixed for a session from its start.
#[derive(Debug, Clone)]
pub struct SessionConfig {
    /// The server name of the TLS handshake, if the client sent one (it sends none for an IP address).
    pub tls_server_name: Option<String>,
    /// How long a connection may stay without a proof, in milliseconds.
    pub proof_timeout_ms: u64,
    /// How long messages stay.
    pub retention_ms: u64,
    /// How long commits stay.
    pub commit_retention_ms: u64,
}

/// Everything that can happen to a session.
#[derive(Debug)]
pub enum Input {
    /// A frame came on the session stream. Only while [`Session::accepts_frames`].
    Frame(Frame),
    /// The session stream is not a stream of frames.
    Broken(FrameError),
    /// The answer to [`Action::LookUp`]: what the directory has of the device, and this connection's exporter.
    Facts {
        /// `None`: no such account or device.
        facts: Option<Box<DeviceFacts>>,
        /// The secret that the proof must cover.
        exporter: [u8; EXPORTER_BYTES],
    },
    /// The directory or the exporter could not be asked.
    LookUpFailed,
    /// The answer to [`Action::Register`].
    Registered(Result<Registered, Refusal>),
    /// Answers to sends.
    Answered(Vec<Sent>),
    /// The inbox may have grown.
    Woken,
    /// The answer to [`Action::Read`].
    Page(Page),
    /// The store could not be read.
    ReadFailed,
    /// Everything handed over for delivery is written.
    Written,
    /// A newer subscription of this device took over.
    Displaced,
    /// The device was revoked.
    Revoked,
    /// Another copy of the device's state has taken over.
    Copied,
    /// The server stops; the client is to come back after this long.
    Drain {
        /// Milliseconds.
        come_back_ms: u64,
    },
    /// A deadline may have passed.
    Tick,
}

/// Everything that a session can ask of its shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Ask the directory about the device of this claim, and the connection for its exporter.
    LookUp {
        /// The unconfirmed account and device.
        claim: Box<gureum_proto::HelloClaim>,
    },
    /// Make an account.
    Register(Register),
    /// The connection is this device's from now on.
    Attach {
        /// Whose.
        authority: Authenticated,
        /// Whether to open the delivery stream.
        subscribes: bool,
        /// Where in its life the device says to be.
        life: Option<Life>,
    },
    /// Submit that the device's life goes on.
    Live(Life),
    /// Submit a message.
    Send(Send),
    /// Submit a cursor.
    Ack(Position),
    /// Read the inbox after this position.
    Read {
        /// The last position handed over.
        after: Position,
    },
    /// Write to the session stream.
    Say(ServerFrame),
    /// Write to the delivery stream, then say [`Input::Written`].
    Deliver(Vec<Item>),
    /// Close the connection.
    Close {
        /// Why.
        code: Code,
        /// For a person who reads the client's log.
        detail: String,
    },
}

/// What a session waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deadline {
    /// The proof.
    Proof,
}

/// The machine.
#[derive(Debug)]
pub struct Session {
    config: SessionConfig,
    phase: Phase,
    proof_deadline_ms: u64,
    actions: VecDeque<Action>,
}

#[derive(Debug)]
enum Phase {
    New,
    Registering,
    Proving(Box<Hello>),
    Ready(Active),
    Closed,
}

#[derive(Debug)]
struct Active {
    authority: Authenticated,
    subscription: Option<Subscription>,
    sends_in_flight: u32,
}

impl Session {
    /// A session of a connection that was accepted at `now_ms`.
    #[must_use]
    pub fn new(config: SessionConfig, now_ms: u64) -> Self {
        let proof_deadline_ms = now_ms.saturating_add(config.proof_timeout_ms);
        Self { config, phase: Phase::New, proof_deadline_ms, actions: VecDeque::new() }
    }

    /// Whether a frame may be handed in now. While it is false the frame waits where it is, so that a client need
    /// not wait for the answer to its Hello.
    #[must_use]
    pub const fn accepts_frames(&self) -> bool {
        matches!(self.phase, Phase::New | Phase::Ready(_))
    }

    /// Who it is, once proven.
    #[must_use]
    pub const fn authority(&self) -> Option<Authenticated> {
        match &self.phase {
            Phase::Ready(active) => Some(active.authority),
            _ => None,
        }
    }

    /// The next action, in the order in which they are to be performed.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When to hand in a [`Input::Tick`], and why.
    #[must_use]
    pub const fn poll_timeout(&self) -> Option<(u64, Deadline)> {
        match self.phase {
            Phase::New | Phase::Registering | Phase::Proving(_) => Some((self.proof_deadline_ms, Deadline::Proof)),
            Phase::Ready(_) | Phase::Closed => None,
        }
    }

    /// Takes one input at a time `now_ms`.
    pub fn handle(&mut self, input: Input, now_ms: u64) {
        if matches!(self.phase, Phase::Closed) {
            return;
        }
        match input {
            Input::Frame(frame) => self.on_frame(frame),
            Input::Broken(error) => self.close(broken(&error), error.to_string()),
            Input::Facts { facts, exporter } => self.on_facts(facts.as_deref(), &exporter, now_ms),
            Input::LookUpFailed | Input::ReadFailed => self.close(Code::Unavailable, String::new()),
            Input::Registered(result) => self.on_registered(result),
            Input::Answered(answers) => self.on_answers(answers),
            Input::Woken => self.on_subscription(Subscription::woken),
            Input::Page(page) => self.on_page(page),
            Input::Written => self.on_subscription(Subscription::written),
            Input::Displaced => self.close(Code::Displaced, String::new()),
            Input::Revoked => self.close(Code::DeviceRevoked, String::new()),
            Input::Copied => self.close(Code::DeviceCopied, String::new()),
            Input::Drain { come_back_ms } => self.actions.push_back(Action::Say(ServerFrame::Drain { come_back_ms })),
            Input::Tick => {
                if self.poll_timeout().is_some_and(|(deadline_ms, _)| now_ms >= deadline_ms) {
                    self.close(Code::ProofTimeout, String::new());
                }
            }
        }
    }

    fn on_frame(&mut self, frame: Frame) {
        let frame = match ClientFrame::decode(frame) {
            Ok(frame) => frame,
            Err(error) => return self.close(error.code(), error.to_string()),
        };
        match (&mut self.phase, frame) {
            (Phase::New, ClientFrame::Hello(hello)) => self.on_hello(hello),
            (Phase::New, ClientFrame::Register(register)) => {
                self.phase = Phase::Registering;
                self.actions.push_back(Action::Register(register));
            }
            (Phase::Ready(active), ClientFrame::Send(send)) => {
                if active.sends_in_flight >= SENDS_IN_FLIGHT_MAX {
                    let detail = format!("at most {SENDS_IN_FLIGHT_MAX} sends may be without an answer");
                    return self.close(Code::LimitReached, detail);
                }
                active.sends_in_flight += 1;
                self.actions.push_back(Action::Send(send));
            }
            (Phase::Ready(active), ClientFrame::Ack(position)) => {
                match active.subscription.as_mut().is_some_and(|subscription| subscription.may_ack(position)) {
                    true => self.actions.push_back(Action::Ack(position)),
                    false => self.close(Code::AckInvalid, String::new()),
                }
            }
            _ => self.close(Code::FrameUnexpected, "this frame has no meaning in this state".to_owned()),
        }
    }

    fn on_hello(&mut self, hello: Hello) {
        if !hello.speaks_our_version() {
            return self.close(Code::VersionUnsupported, String::new());
        }
        let is_ours = match &self.config.tls_server_name {
            Some(name) => name.eq_ignore_ascii_case(&hello.claim().server_name),
            None => hello.claim().server_name.parse::<std::net::IpAddr>().is_ok(),
        };
        if !is_ours {
            return self.close(Code::ProofInvalid, "the hello is for another server name".to_owned());
        }
        self.actions.push_back(Action::LookUp { claim: Box::new(hello.claim().clone()) });
        self.phase = Phase::Proving(Box::new(hello));
    }

    fn on_facts(&mut self, facts: Option<&DeviceFacts>, exporter: &[u8; EXPORTER_BYTES], now_ms: u64) {
        let Phase::Proving(hello) = &self.phase else { return };
        let Some(facts) = facts else { return self.close(Code::DeviceUnknown, String::new()) };
        let authority = match Authenticated::prove(hello, facts, exporter) {
            Ok(authority) => authority,
            Err(code) => return self.close(code, String::new()),
        };
        let claim = hello.claim().clone();
        let standing = claim.life.map(|life| judge(&facts.life, &life));
        if standing == Some(Standing::Copied) {
            return self.close(Code::DeviceCopied, String::new());
        }
        self.actions.push_back(Action::Attach { authority, subscribes: claim.subscribe, life: claim.life });
        if let (Some(Standing::GoesOn), Some(life)) = (standing, claim.life) {
            self.actions.push_back(Action::Live(life));
        }
        if claim.cursor > facts.cursor && claim.cursor.seq <= facts.head.seq {
            self.actions.push_back(Action::Ack(claim.cursor));
        }
        self.actions.push_back(Action::Say(ServerFrame::Ready(Ready {
            server_time_ms: now_ms,
            retention_ms: self.config.retention_ms,
            commit_retention_ms: self.config.commit_retention_ms,
            head: facts.head,
            accepted_counter: facts.accepted_counter,
            sends_in_flight_max: SENDS_IN_FLIGHT_MAX,
            epochs_differ: claim.epochs_digest.is_some_and(|digest| digest != facts.epochs_digest),
            log_entries: facts.log_entries,
            key_packages_left: facts.key_packages_left,
            stale: standing == Some(Standing::Stale),
        })));
        let mut subscription = claim.subscribe.then(|| {
            // A device that has taken nothing begins where it was added. The cursor of an older copy is not its own.
            let begins = claim.cursor.seq == 0 && standing != Some(Standing::Stale);
            let from = if begins { facts.cursor } else { claim.cursor };
            Subscription::new(from.min(facts.head), facts.head.seq)
        });
        if let Some(subscription) = &mut subscription {
            subscription.begin(&mut self.actions);
        }
        self.phase = Phase::Ready(Active { authority, subscription, sends_in_flight: 0 });
    }

    fn on_registered(&mut self, result: Result<Registered, Refusal>) {
        if matches!(self.phase, Phase::Registering) {
            self.phase = Phase::New;
            let answer = match result {
                Ok(registered) => ServerFrame::Registered(registered),
                Err(refusal) => ServerFrame::Refused(refusal),
            };
            self.actions.push_back(Action::Say(answer));
        }
    }

    fn on_answers(&mut self, answers: Vec<Sent>) {
        if let Phase::Ready(active) = &mut self.phase {
            let count = u32::try_from(answers.len()).unwrap_or(u32::MAX);
            active.sends_in_flight = active.sends_in_flight.saturating_sub(count);
            self.actions.extend(answers.into_iter().map(|sent| Action::Say(ServerFrame::Sent(sent))));
        }
    }

    fn on_page(&mut self, page: Page) {
        self.on_subscription(|subscription, actions| subscription.page(page, actions));
    }

    fn on_subscription(&mut self, step: impl FnOnce(&mut Subscription, &mut VecDeque<Action>)) {
        if let Phase::Ready(Active { subscription: Some(subscription), .. }) = &mut self.phase {
            step(subscription, &mut self.actions);
        }
    }

    fn close(&mut self, code: Code, detail: String) {
        self.phase = Phase::Closed;
        self.actions.push_back(Action::Close { code, detail });
    }
}

/// What the peer of a broken stream of frames sees.
#[must_use]
pub const fn broken(error: &FrameError) -> Code {
    match error {
        FrameError::NonMinimalVarint => Code::FrameMalformed,
        FrameError::UnknownType(_) => Code::FrameUnknown,
        FrameError::TooLong { .. } | FrameError::IgnorableTooLong { .. } => Code::FrameTooLong,
        FrameError::Truncated => Code::FrameTruncated,
    }
}

#[cfg(test)]
mod tests;
