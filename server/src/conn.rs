//! One connection's shell: moves bytes between its streams and the session machine, and performs what that asks for.
//! One task owns all of it.

mod due;
mod mailbox;
mod request;
mod streams;
#[cfg(test)]
pub(crate) mod tests;
mod typing;
mod unproven;

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use gureum_proto::{
    Code, EXPORTER_BYTES, EXPORTER_LABEL, HelloClaim, Life, Position, Send as SendFrame, Sent, ServerFrame,
    exporter_context,
};
use gureum_wire::Decoder;
use quinn::{Connection, RecvStream, VarInt};
use tokio::task::JoinHandle;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};
use tokio_util::task::TaskTracker;

use crate::directory::Directory;
use crate::inbox::Inboxes;
use crate::limits::{
    CONNECTION_WINDOW_BYTES, REQUEST_INTERVAL_MS, REQUESTS_AT_ONCE_MAX, REREAD_MS, SEND_COUNTED_BYTES,
    SESSION_OUT_BYTES_MAX,
};
use crate::linking::{Linking, Offered};
use crate::metrics::Metrics;
use crate::pace::Pace;
use crate::requests::Requests;
use crate::router::{Answers, Router, Submission};
use crate::session::{Action, Authenticated, Input, Item, Page, Session, SessionConfig, Standing, judge};
use crate::store::StoreError;
use crate::time::Clock;
use crate::wake::{Attached, Hub, Listener};
use crate::work::Work;
use mailbox::Mailbox;
use streams::Outgoing;
use typing::Typings;

/// How long a wake may be lost before the session finds out by itself.
const REREAD: Duration = Duration::from_millis(REREAD_MS);

/// A frame that says that a message is stored: header, counter, id and number.
const ACCEPTED_BYTES: usize = 48;

/// What all connections share.
#[derive(Debug)]
pub(crate) struct Shared {
    /// Reads accounts.
    pub directory: Arc<Directory>,
    /// Reads inboxes.
    pub inboxes: Inboxes,
    /// Answers requests.
    pub requests: Arc<Requests>,
    /// Devices that wait to be linked.
    pub linking: Arc<Linking>,
    /// Takes what changes the store.
    pub router: Router,
    /// Who is connected.
    pub hub: Arc<Hub>,
    /// The server's time.
    pub clock: Arc<Clock>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// What every session starts from.
    pub session: SessionConfig,
    /// Where blocking work runs.
    pub work: Work,
    /// The server is stopping; the sessions are told.
    pub stopping: CancellationToken,
    /// Every task of every connection.
    pub tasks: TaskTracker,
}

/// Serves a connection until it ends. `proven` is dropped when it has proven itself, or has ended.
pub(crate) async fn serve<P>(connection: Connection, shared: Arc<Shared>, accepted: Accepted, proven: P) {
    shared.metrics.connections.increment(1.0);
    // Boxed: the one is done when the other begins, and a task keeps room for all that it holds itself.
    if let Some(shell) = Box::pin(Shell::accept(&connection, &shared, accepted)).await {
        let code = Box::pin(shell.run(proven)).await;
        shared.metrics.closes.increment(code);
    }
    connection.close(code(Code::Done), b"");
    shared.metrics.connections.decrement(1.0);
}

/// When a connection's handshake began, and by when it must have proven itself: one deadline for the handshake, the
/// session stream and the proof together.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Accepted {
    /// By the server's clock.
    pub(crate) at_ms: u64,
    /// By the timer's.
    pub(crate) proof_by: Instant,
}

struct Shell {
    connection: Connection,
    shared: Arc<Shared>,
    session: Session,
    decoder: Decoder,
    input: RecvStream,
    input_ended: bool,
    answers: Outgoing,
    delivery: Option<Outgoing>,
    mailbox: Arc<Mailbox>,
    offered: Option<Offered>,
    attached: Option<Attached>,
    reading: Option<JoinHandle<Result<Page, StoreError>>>,
    /// When to look into the store, whether or not there was a wake.
    reread_at: Instant,
    /// Ends when something is due, or before.
    timer: Pin<Box<Sleep>>,
    skips_tail: bool,
    sends: Vec<SendFrame>,
    sends_bytes: usize,
    /// The device that subscribes here, as push was told.
    subscribed: Option<Authenticated>,
    /// The furthest of the acks that wait to be submitted.
    acked: Option<Position>,
    read: Read,
    /// When the device, which says more than its pace allows, is heard again; `None`: now.
    heard_again_at: Option<Instant>,
    requests: Pace,
    typings: Option<Box<Typings>>,
}

/// What was read from the session stream and not yet counted against the device's pace.
#[derive(Default)]
struct Read {
    frames: usize,
    bytes: usize,
}

/// The connection is to be closed with a code and a detail for people.
struct Closing(Code, String);

impl Shell {
    /// Waits for the session stream, as long as a connection may stay without a proof. Boxed, because a future has room for
    /// each of its arguments twice.
    async fn accept(connection: &Connection, shared: &Arc<Shared>, accepted: Accepted) -> Option<Box<Self>> {
        let tls_server_name = connection
            .handshake_data()
            .and_then(|data| data.downcast::<quinn::crypto::rustls::HandshakeData>().ok())
            .and_then(|data| data.server_name);
        let config = SessionConfig { tls_server_name, ..shared.session.clone() };
        let opened = async {
            tokio::select! {
                biased;
                streams = connection.accept_bi() => streams,
                error = typing::discard(connection) => Err(error),
            }
        };
        let (output, input) = match tokio::time::timeout_at(accepted.proof_by, opened).await {
            Ok(Ok(streams)) => streams,
            Ok(Err(_)) => return None,
            Err(_) => {
                shared.metrics.closes.increment(Code::ProofTimeout);
                connection.close(code(Code::ProofTimeout), Code::ProofTimeout.text().as_bytes());
                return None;
            }
        };
        Some(Box::new(Self {
            connection: connection.clone(),
            shared: Arc::clone(shared),
            session: Session::new(config, accepted.at_ms),
            decoder: Decoder::new(),
            input,
            input_ended: false,
            answers: Outgoing::new(output),
            delivery: None,
            mailbox: Arc::default(),
            offered: None,
            attached: None,
            reading: None,
            reread_at: Instant::now() + REREAD,
            timer: Box::pin(tokio::time::sleep(REREAD)),
            skips_tail: false,
            sends: Vec::new(),
            sends_bytes: 0,
            subscribed: None,
            acked: None,
            read: Read::default(),
            heard_again_at: None,
            requests: Pace::new(Duration::from_millis(REQUEST_INTERVAL_MS), REQUESTS_AT_ONCE_MAX, Instant::now()),
            typings: None,
        }))
    }

    async fn run<P>(mut self: Box<Self>, proven: P) -> Code {
        let mut proven = Some(proven);
        let stopping = self.shared.stopping.clone();
        // Once for all turns: those who wait for it stand in one list, and to leave and join it touches others' memory.
        let mut stopped = pin!(stopping.cancelled());
        let mut is_drained = false;
        loop {
            let step = match self.advance_and_write().await {
                Ok(()) => {
                    if self.attached.is_some() {
                        proven = None;
                    }
                    self.wait(stopped.as_mut(), &mut is_drained).await
                }
                Err(closing) => Err(closing),
            };
            if let Err(Closing(reason, detail)) = step {
                let text = if detail.is_empty() { reason.text() } else { &detail };
                self.connection.close(code(reason), text.as_bytes());
                drop(proven);
                return reason;
            }
        }
    }

    /// Goes on until nothing is left to be done, or the client takes nothing more for now. What is to leave leaves in this
    /// same turn: to wait with it for what else happens would be a turn more for each answer and each delivery.
    async fn advance_and_write(&mut self) -> Result<(), Closing> {
        loop {
            self.advance().await?;
            let has_answered = self.answers.write_now().await?;
            let has_delivered = match &mut self.delivery {
                Some(delivery) => delivery.write_now().await?,
                None => false,
            };
            if has_delivered && !streams::has_output(self.delivery.as_ref()) {
                self.handle(Input::Written);
            }
            if !has_answered && !has_delivered {
                return Ok(());
            }
        }
    }

    /// Performs actions and takes frames until the session waits for something.
    async fn advance(&mut self) -> Result<(), Closing> {
        loop {
            while let Some(action) = self.session.poll_action() {
                self.perform(action).await?;
            }
            if !self.takes_frames() {
                break;
            }
            match self.decoder.next() {
                Ok(Some(frame)) => {
                    self.shared.metrics.frames_received.increment(1);
                    self.read.frames += 1;
                    self.handle(Input::Frame(frame));
                }
                Ok(None) => break,
                Err(error) => self.handle(Input::Broken(error)),
            }
        }
        self.count_read();
        self.submit().await
    }

    /// Counts what was read against the device's pace. One that is over it is not heard for a while: what it says
    /// next waits in the transport.
    fn count_read(&mut self) {
        let Some(from) = self.session.authority() else { return };
        let counted = self.read.frames.max(self.read.bytes / SEND_COUNTED_BYTES);
        if counted > 0 {
            self.read = Read { frames: 0, bytes: self.read.bytes % SEND_COUNTED_BYTES };
            self.heard_again_at = self.shared.requests.quotas.sends(from.device(), counted, Instant::now());
            if self.heard_again_at.is_some() {
                self.shared.metrics.sends_slowed.increment(1);
            }
        }
    }

    fn takes_frames(&self) -> bool {
        self.session.accepts_frames()
            && self.heard_again_at.is_none()
            && self.answers.buffered() < SESSION_OUT_BYTES_MAX
    }

    /// Waits for the next thing to happen and tells the session.
    async fn wait(
        &mut self,
        stopped: Pin<&mut WaitForCancellationFuture<'_>>,
        is_drained: &mut bool,
    ) -> Result<(), Closing> {
        let may_read = !self.input_ended && self.takes_frames();
        let dues = self.dues(Instant::now());
        dues.set(self.timer.as_mut());
        tokio::select! {
            // Answers and writes first: they make room for what the client sends next.
            biased;
            () = self.mailbox.changed() => self.take_mail(),
            written = self.answers.write(), if self.answers.buffered() > 0 => written?,
            written = streams::write(self.delivery.as_mut()), if streams::has_output(self.delivery.as_ref()) => {
                if written? {
                    self.handle(Input::Written);
                }
            }
            page = streams::join(self.reading.as_mut()), if self.reading.is_some() => {
                self.reading = None;
                self.on_page(page);
            }
            head = typing::join(self.typings.as_deref_mut()), if typing::is_looking(self.typings.as_deref()) => {
                self.on_roster(head.as_ref());
            }
            read = streams::read(&mut self.input, &mut self.decoder), if may_read => match read {
                Ok(Some(bytes)) => self.read.bytes += bytes,
                Ok(None) => {
                    self.input_ended = true;
                    if let Err(error) = self.decoder.finish() {
                        self.handle(Input::Broken(error));
                    }
                }
                Err(_) => return Err(Closing(Code::Done, String::new())),
            },
            // Requests count only from the proof on; those that came before it wait. There are never more tasks than
            // streams that the transport allows.
            stream = self.connection.accept_bi(), if self.attached.is_some() && dues.requests_open_at.is_none() => {
                let Ok((output, input)) = stream else { return Err(Closing(Code::Done, String::new())) };
                self.requests.take(1, Instant::now());
                if let Some(from) = self.session.authority() {
                    let asker = request::Asker { from, listener: Arc::<Mailbox>::clone(&self.mailbox) };
                    self.shared.tasks.spawn(request::answer(output, input, asker, Arc::clone(&self.shared)));
                }
            }
            () = stopped, if !*is_drained => {
                *is_drained = true;
                let come_back_ms = come_back_ms();
                self.handle(Input::Drain { come_back_ms });
            }
            () = self.timer.as_mut(), if dues.first().is_some() => self.on_time(&dues)?,
            // Last: whoever floods the server with them holds up nothing of its own. It tells of the connection's end as well.
            datagram = self.connection.read_datagram() => match datagram {
                Ok(datagram) => self.on_datagram(datagram),
                Err(_) => return Err(Closing(Code::Done, String::new())),
            },
        }
        Ok(())
    }

    async fn perform(&mut self, action: Action) -> Result<(), Closing> {
        match action {
            // Boxed: these happen once in a connection's life, and would else make its task larger for all of it.
            Action::LookUp { claim } => Box::pin(self.look_up(&claim)).await,
            Action::Register(register) => Box::pin(self.register(register)).await,
            Action::OfferLink(link) => self.offer_link(link),
            Action::ReplyLink(payload) => self.reply_link(payload),
            Action::Recover(recover) => Box::pin(self.recover(recover)).await,
            Action::RequestCode(phone) => Box::pin(self.request_code(phone)).await,
            Action::Attach { authority, subscribes, life } => {
                return Box::pin(self.attach(authority, subscribes, life)).await;
            }
            Action::Live(life) => {
                if let Some(from) = self.session.authority() {
                    let submitted = self.shared.router.submit(Submission::Live { from, life }).await;
                    submitted.map_err(|_| Closing(Code::Unavailable, String::new()))?;
                }
            }
            Action::Send(send) => {
                self.sends_bytes += send.ciphertext.len();
                self.sends.push(send);
            }
            // Of those that were read together, only the furthest costs anything.
            Action::Ack(position) => {
                if self.acked.replace(position).is_some() {
                    self.read.frames -= 1;
                }
            }
            Action::Read { after } => {
                if let Some(from) = self.session.authority() {
                    self.read(from, after);
                }
            }
            Action::Answer(answers) => self.answer(answers),
            Action::Say(frame) => {
                self.shared.metrics.frames_sent.increment(1);
                frame.put(self.answers.buffer());
            }
            Action::Deliver(items) => self.deliver(&items),
            Action::Close { code, detail } => {
                self.count_refusal(code);
                return Err(Closing(code, detail));
            }
        }
        Ok(())
    }

    async fn look_up(&mut self, claim: &HelloClaim) {
        let mut exporter = [0; EXPORTER_BYTES];
        let context = exporter_context(claim.account, claim.device);
        let exported = self.connection.export_keying_material(&mut exporter, EXPORTER_LABEL, &context);
        let (account, device) = (claim.account, claim.device);
        let directory = Arc::clone(&self.shared.directory);
        let facts = self.shared.work.run(move || directory.facts(account, device)).await;
        match (exported, facts) {
            (Ok(()), Some(Ok(facts))) => self.handle(Input::Facts { facts: facts.map(Box::new), exporter }),
            (_, Some(Err(error))) => {
                tracing::warn!(%error, "a device could not be looked up");
                self.handle(Input::LookUpFailed);
            }
            _ => self.handle(Input::LookUpFailed),
        }
    }

    async fn attach(&mut self, from: Authenticated, subscribes: bool, life: Option<Life>) -> Result<(), Closing> {
        self.shared.metrics.proofs_ok.increment(1);
        self.connection.set_receive_window(VarInt::from_u32(CONNECTION_WINDOW_BYTES));
        if subscribes {
            let limit = Duration::from_millis(self.shared.session.proof_timeout_ms);
            let opened = tokio::time::timeout(limit, self.connection.open_uni()).await;
            let Ok(Ok(stream)) = opened else { return Err(Closing(Code::TooSlow, String::new())) };
            self.delivery = Some(Outgoing::new(stream));
            self.shared.metrics.subscriptions.increment(1.0);
        }
        let listener: Arc<dyn Listener> = Arc::<Mailbox>::clone(&self.mailbox);
        let (account, device) = (from.account(), from.device());
        self.attached = Some(self.shared.hub.attach(account, device, subscribes, listener));
        // A revocation, a deletion or a copy that took over between the look-up and this moment found no session to end:
        // look again, now that any later one does.
        let directory = Arc::clone(&self.shared.directory);
        let look = move || {
            let is_gone = directory.is_gone(account)?;
            Ok::<_, StoreError>((directory.log(account)?, directory.life(account, device)?, is_gone))
        };
        let Some(Ok((Some(log), known, is_gone))) = self.shared.work.run(look).await else {
            return Err(Closing(Code::Unavailable, String::new()));
        };
        if is_gone {
            return Err(Closing(Code::AccountGone, String::new()));
        }
        if !log.is_active(device) {
            return Err(Closing(Code::DeviceRevoked, String::new()));
        }
        if life.is_some_and(|life| judge(&known, &life) == Standing::Copied) {
            return Err(Closing(Code::DeviceCopied, String::new()));
        }
        if subscribes && let Some(push) = &self.shared.requests.push {
            self.subscribed = Some(from);
            push.feed.connected(account, device);
        }
        // Another connection of the device may have used up what it may say now.
        self.count_read();
        self.shared.linking.proven(device);
        // Not waited for: who reads is served while the writer waits for a disk.
        self.shared.router.note(Submission::Seen { from });
        Ok(())
    }

    /// Reads the tail at once, or starts a read of the store.
    fn read(&mut self, from: Authenticated, after: Position) {
        let account = from.account();
        self.reread_at = Instant::now() + REREAD;
        let skips_tail = std::mem::take(&mut self.skips_tail);
        if !skips_tail && let Some(page) = self.shared.inboxes.read_tail(account, after) {
            self.shared.metrics.deliveries_tail.increment(envelopes(&page));
            return self.handle(Input::Page(page));
        }
        let inboxes = self.shared.inboxes.clone();
        self.reading = Some(self.shared.work.start(move || inboxes.read_store(account, after)));
    }

    fn on_page(&mut self, page: Option<Result<Page, StoreError>>) {
        match page {
            Some(Ok(page)) => {
                self.shared.metrics.deliveries_store.increment(envelopes(&page));
                for item in &page.items {
                    if let Item::Gap(gap) = item {
                        self.shared.metrics.gaps(gap.reason).increment(1);
                        self.shared.metrics.messages_missed.increment(gap.missed);
                    }
                }
                self.handle(Input::Page(page));
            }
            Some(Err(error)) => {
                tracing::warn!(%error, "an inbox could not be read");
                self.handle(Input::ReadFailed);
            }
            None => self.handle(Input::ReadFailed),
        }
    }

    fn answer(&mut self, answers: Vec<Sent>) {
        self.shared.metrics.frames_sent.increment(u64::try_from(answers.len()).unwrap_or(u64::MAX));
        let out = self.answers.buffer();
        out.reserve(answers.len().saturating_mul(ACCEPTED_BYTES));
        answers.into_iter().for_each(|sent| ServerFrame::Sent(sent).put(out));
    }

    fn deliver(&mut self, items: &[Item]) {
        let Some(delivery) = &mut self.delivery else { return };
        self.shared.metrics.frames_sent.increment(u64::try_from(items.len()).unwrap_or(u64::MAX));
        streams::put_items(items, delivery.buffer());
    }

    async fn submit(&mut self) -> Result<(), Closing> {
        let Some(from) = self.session.authority() else { return Ok(()) };
        let unavailable = |_| Closing(Code::Unavailable, String::new());
        if let Some(position) = self.acked.take() {
            self.shared.metrics.acks.increment(1);
            self.shared.router.submit(Submission::Ack { from, position }).await.map_err(unavailable)?;
        }
        if self.sends.is_empty() {
            return Ok(());
        }
        let permit = self.shared.router.reserve(std::mem::take(&mut self.sends_bytes)).await.map_err(unavailable)?;
        let answers: Arc<dyn Answers> = Arc::<Mailbox>::clone(&self.mailbox);
        let sends = std::mem::take(&mut self.sends);
        self.shared.router.submit(Submission::Sends { from, sends, answers, permit }).await.map_err(unavailable)
    }

    fn take_mail(&mut self) {
        let mail = self.mailbox.take();
        if !mail.answers.is_empty() {
            self.handle(Input::Answered(mail.answers));
        }
        let rare = mail.rare.map(|rare| *rare).unwrap_or_default();
        if let Some(payload) = rare.link.answer {
            self.handle(Input::LinkAnswered(payload));
        }
        if rare.link.is_logged {
            self.handle(Input::LinkLogged);
        }
        if let Some(payload) = rare.link.bundle {
            self.handle(Input::LinkFinished(payload));
        }
        if let Some(notice) = rare.notice {
            self.handle(Input::Noticed(notice));
        }
        if let Some(notice) = rare.phone {
            self.handle(Input::Phone(notice));
        }
        for datagram in rare.signals {
            // A client that takes none misses nothing else.
            let _ = self.connection.send_datagram(datagram);
        }
        if let Some(why) = mail.cut_off {
            self.handle(Input::CutOff(why));
        }
        for (happened, input) in
            [(mail.is_copied, Input::Copied), (mail.is_displaced, Input::Displaced), (mail.is_woken, Input::Woken)]
        {
            if happened {
                self.handle(input);
            }
        }
    }

    fn handle(&mut self, input: Input) {
        self.session.handle(input, self.shared.clock.now_ms());
    }

    fn count_refusal(&self, code: Code) {
        use Code::{DeviceCopied, DeviceRevoked, DeviceUnknown, ProofInvalid, ProofTimeout, VersionUnsupported};
        let of_proof = matches!(
            code,
            DeviceCopied | DeviceRevoked | DeviceUnknown | ProofInvalid | ProofTimeout | VersionUnsupported
        );
        if of_proof && self.attached.is_none() {
            self.shared.metrics.proofs_refused.increment(code);
        }
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        if self.delivery.is_some() {
            self.shared.metrics.subscriptions.decrement(1.0);
        }
        if let Some((from, push)) = self.subscribed.zip(self.shared.requests.push.as_ref()) {
            push.feed.closed(from.account(), from.device());
        }
    }
}

fn code(code: Code) -> VarInt {
    VarInt::from_u32(code.number())
}

fn envelopes(page: &Page) -> u64 {
    let count = page.items.iter().filter(|item| matches!(item, Item::Envelope { .. })).count();
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// How long to stay away while the server restarts: spread, so that not everybody comes back at once.
fn come_back_ms() -> u64 {
    const LEAST_MS: u64 = 500;
    const SPREAD_MS: u64 = 4_500;
    let mut bytes = [0; 8];
    // Without randomness everybody comes back at the same time, which is bad but no reason to fail.
    let _ = getrandom::fill(&mut bytes);
    LEAST_MS + u64::from_be_bytes(bytes) % SPREAD_MS
}
