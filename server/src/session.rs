//! One connection's conversation with the server, as a pure state machine: it decides, the connection's shell moves
//! bytes and performs the actions.
//!
//! ```text
//!     Register, Recover,                  Hello               proof holds
//!      RequestCode                        New ──► Proving ────────────────► Ready
//!   New ──────────────► Registering,                 └── proof fails ──► Closed ◄── any violation
//!    ▲ ▲                Recovering,
//!    │ └──── answer ───── Coding
//!    │       Link
//!   New ──────────────► Linking ── waits for minutes: an answer, a reply, then Linked
//!    ▲───── Linked ──────┘
//! ```

mod authority;
mod life;
mod subscription;
mod typing;

use std::collections::VecDeque;

use bytes::Bytes;
use gureum_proto::limits::SENDS_IN_FLIGHT_MAX;
use gureum_proto::{
    ClientFrame, Code, CodeSent, EXPORTER_BYTES, Hello, Life, Link, Notice, Phone, PhoneNotice, Position, Ready,
    Recover, Recovering, Refusal, Register, Registered, Send, Sent, ServerFrame,
};
use gureum_wire::{Frame, FrameError};

use crate::limits::{LINK_BUNDLE_MS_MAX, LINK_MS_MAX};
pub use authority::{Authenticated, DeviceFacts};
pub use life::{Standing, judge};
use subscription::Subscription;
pub use subscription::{Item, Page};
pub use typing::{Heard, TypingRelay};

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
    /// The answer to [`Action::OfferLink`] if it is refused; else nothing is said until a device answers the code.
    LinkRefused(Refusal),
    /// A device of an account answers the code.
    LinkAnswered(Bytes),
    /// The log of that account has the device that waits.
    LinkLogged,
    /// What it is handed; nothing more comes.
    LinkFinished(Bytes),
    /// The answer to [`Action::Recover`].
    Recovered(Result<Recovery, Refusal>),
    /// The answer to [`Action::RequestCode`].
    CodeSent(Result<CodeSent, Refusal>),
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
    /// The device may no longer act: it was revoked, or its account deleted, as the code says.
    CutOff(Code),
    /// Another copy of the device's state has taken over.
    Copied,
    /// Others have claimed KeyPackages of the device.
    Noticed(Notice),
    /// The account's phone number has moved, or somebody has tried.
    Phone(PhoneNotice),
    /// The server stops; the client is to come back after this long.
    Drain {
        /// Milliseconds.
        come_back_ms: u64,
    },
    /// A deadline may have passed.
    Tick,
}

/// How far the recovery of an account has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recovery {
    /// The account is known; its log stands there.
    Known(Recovering),
    /// The log has the entry.
    Done(Registered),
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
    /// Let a device of an account find the one that waits here.
    OfferLink(Link),
    /// Hand on what the device replies to the answer that it got.
    ReplyLink(Bytes),
    /// Bring an account back.
    Recover(Recover),
    /// Send a code to a phone number.
    RequestCode(Phone),
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
    /// Write the answers to sends to the session stream.
    Answer(Vec<Sent>),
    /// Write anything else to it.
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
    /// A device of an account that adds this one.
    Link,
    /// What that device hands over.
    Bundle,
}

/// Actions for which a session that waits has room: a wake asks for a read, and then its page for a delivery.
const ACTIONS_KEPT: usize = 1;

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
    Linking(Waiting),
    Recovering,
    Coding,
    Proving(Box<Hello>),
    Ready(Active),
    Closed,
}

/// A device that waits to be linked.
#[derive(Debug)]
struct Waiting {
    until_ms: u64,
    /// It has been told of an answer and has not replied.
    may_reply: bool,
    /// The log has it, and only what it is handed is missing.
    is_logged: bool,
}

#[derive(Debug)]
struct Active {
    authority: Authenticated,
    subscription: Option<Subscription>,
    sends_in_flight: u32,
}

impl Recovery {
    fn into_frame(self) -> ServerFrame {
        match self {
            Self::Known(recovering) => ServerFrame::Recovering(recovering),
            Self::Done(registered) => ServerFrame::Registered(registered),
        }
    }
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
        matches!(self.phase, Phase::New | Phase::Linking(_) | Phase::Ready(_))
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
        let next = self.actions.pop_front();
        if next.is_none() {
            // An action takes 200 bytes in this line, and a proof asks for five at once: who is silent does not keep them.
            self.actions.shrink_to(ACTIONS_KEPT);
        }
        next
    }

    /// When to hand in a [`Input::Tick`], and why.
    #[must_use]
    pub const fn poll_timeout(&self) -> Option<(u64, Deadline)> {
        match &self.phase {
            Phase::New | Phase::Registering | Phase::Recovering | Phase::Coding | Phase::Proving(_) => {
                Some((self.proof_deadline_ms, Deadline::Proof))
            }
            Phase::Linking(waiting) if waiting.is_logged => Some((waiting.until_ms, Deadline::Bundle)),
            Phase::Linking(waiting) => Some((waiting.until_ms, Deadline::Link)),
            Phase::Ready(_) | Phase::Closed => None,
        }
    }

    /// Takes one input at a time `now_ms`.
    pub fn handle(&mut self, input: Input, now_ms: u64) {
        if matches!(self.phase, Phase::Closed) {
            return;
        }
        match input {
            Input::Frame(frame) => self.on_frame(frame, now_ms),
            Input::Broken(error) => self.close(broken(&error), error.to_string()),
            Input::Facts { facts, exporter } => self.on_facts(facts.as_deref(), &exporter, now_ms),
            Input::LookUpFailed | Input::ReadFailed => self.close(Code::Unavailable, String::new()),
            Input::Registered(result) => {
                self.answer(matches!(self.phase, Phase::Registering), result.map(ServerFrame::Registered));
            }
            Input::LinkRefused(refusal) => self.answer(matches!(self.phase, Phase::Linking(_)), Err(refusal)),
            Input::LinkAnswered(payload) => self.on_link_answered(payload),
            Input::LinkLogged => self.on_link_logged(now_ms),
            Input::LinkFinished(payload) => self.on_linked(payload, now_ms),
            Input::Recovered(result) => {
                self.answer(matches!(self.phase, Phase::Recovering), result.map(Recovery::into_frame));
            }
            Input::CodeSent(result) => {
                self.answer(matches!(self.phase, Phase::Coding), result.map(ServerFrame::CodeSent));
            }
            Input::Answered(answers) => self.on_answers(answers),
            Input::Woken => self.on_subscription(Subscription::woken),
            Input::Page(page) => self.on_page(page),
            Input::Written => self.on_subscription(Subscription::written),
            Input::Displaced => self.close(Code::Displaced, String::new()),
            Input::CutOff(why) => self.close(why, String::new()),
            Input::Copied => self.close(Code::DeviceCopied, String::new()),
            Input::Noticed(notice) => self.say_if_ready(ServerFrame::Notice(notice)),
            Input::Phone(notice) => self.say_if_ready(ServerFrame::PhoneNotice(notice)),
            Input::Drain { come_back_ms } => self.actions.push_back(Action::Say(ServerFrame::Drain { come_back_ms })),
            Input::Tick => self.on_tick(now_ms),
        }
    }

    fn on_tick(&mut self, now_ms: u64) {
        match self.poll_timeout().filter(|(deadline_ms, _)| now_ms >= *deadline_ms) {
            Some((_, Deadline::Proof)) => self.close(Code::ProofTimeout, String::new()),
            Some((_, Deadline::Link)) => self.close(Code::LinkGone, String::new()),
            // Whoever added the device hands nothing over: it is linked all the same.
            Some((_, Deadline::Bundle)) => self.on_linked(Bytes::new(), now_ms),
            None => {}
        }
    }

    fn on_frame(&mut self, frame: Frame, now_ms: u64) {
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
            (Phase::New, ClientFrame::Link(link)) => {
                let until_ms = now_ms.saturating_add(LINK_MS_MAX);
                self.phase = Phase::Linking(Waiting { until_ms, may_reply: false, is_logged: false });
                self.actions.push_back(Action::OfferLink(link));
            }
            (Phase::Linking(waiting), ClientFrame::LinkReply(payload)) if waiting.may_reply => {
                waiting.may_reply = false;
                self.actions.push_back(Action::ReplyLink(payload));
            }
            (Phase::New, ClientFrame::Recover(recover)) => {
                self.phase = Phase::Recovering;
                self.actions.push_back(Action::Recover(recover));
            }
            (Phase::New, ClientFrame::RequestCode(phone)) => {
                self.phase = Phase::Coding;
                self.actions.push_back(Action::RequestCode(phone));
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
            epochs_digest: Some(facts.epochs_digest),
            log_entries: facts.log_entries,
            key_packages_left: facts.key_packages_left,
            last_resort_used: facts.last_resort_used,
            stale: standing == Some(Standing::Stale),
            push_differs: claim.push_digest != facts.push_digest,
            phone: facts.phone,
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

    /// Tells the answer to a frame that is no proof, if it is waited for; then another frame may come.
    fn answer(&mut self, is_awaited: bool, result: Result<ServerFrame, Refusal>) {
        if is_awaited {
            self.phase = Phase::New;
            self.actions.push_back(Action::Say(result.unwrap_or_else(ServerFrame::Refused)));
        }
    }

    fn on_link_answered(&mut self, payload: Bytes) {
        if let Phase::Linking(waiting) = &mut self.phase {
            waiting.may_reply = true;
            self.actions.push_back(Action::Say(ServerFrame::LinkAnswer(payload)));
        }
    }

    fn on_link_logged(&mut self, now_ms: u64) {
        if let Phase::Linking(waiting) = &mut self.phase
            && !waiting.is_logged
        {
            *waiting = Waiting { until_ms: now_ms.saturating_add(LINK_BUNDLE_MS_MAX), is_logged: true, ..*waiting };
        }
    }

    /// The device may prove itself from now on, on this connection as well.
    fn on_linked(&mut self, payload: Bytes, now_ms: u64) {
        if matches!(self.phase, Phase::Linking(_)) {
            self.phase = Phase::New;
            self.proof_deadline_ms = now_ms.saturating_add(self.config.proof_timeout_ms);
            self.actions.push_back(Action::Say(ServerFrame::Linked(payload)));
        }
    }

    fn on_answers(&mut self, answers: Vec<Sent>) {
        if let Phase::Ready(active) = &mut self.phase {
            let count = u32::try_from(answers.len()).unwrap_or(u32::MAX);
            active.sends_in_flight = active.sends_in_flight.saturating_sub(count);
            if !answers.is_empty() {
                self.actions.push_back(Action::Answer(answers));
            }
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

    fn say_if_ready(&mut self, frame: ServerFrame) {
        if matches!(self.phase, Phase::Ready(_)) {
            self.actions.push_back(Action::Say(frame));
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
