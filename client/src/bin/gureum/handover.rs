//! Waits until a history is handed over from one device of the account to another, and says how far that has come.

use std::time::Duration;

use gureum_client::vault::{Event, HandOver, HandedOver};
use gureum_client::{Client, ClientEvent, ClientSession, Inbox, SessionOptions};
use gureum_proto::DeviceId;

use crate::output::{Line, Output, printable};
use crate::signal::Interrupt;

/// How often it is looked how far it has come.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Events among which the one is looked for that says that it is complete.
const EVENTS_SEARCHED: usize = 256;

/// Waits until this device has handed over its history to another one, unless somebody ends the wait: then later commands
/// go on with it.
pub(crate) async fn hand_over(client: &Client, output: Output, to: (DeviceId, &str)) -> anyhow::Result<()> {
    let (device, name) = to;
    let mut waiting = Waiting::begin(client, "handing over the history")?;
    let mut told = None;
    while waiting.goes_on().await {
        let owed = client.history_owed().await?.into_iter().find(|owed| owed.device == device);
        let Some(HandOver { messages, total: of, is_done, .. }) = owed else { break };
        let line = Line::History { from: None, to: Some(name), messages, of, done: is_done };
        if is_done {
            waiting.end().await;
            return output.print_either(&line, &format!("{} has what was said before.", printable(name)));
        }
        if of > 0 && told.replace(messages) != Some(messages) {
            show(output, &line, &format!("{} has {messages} of {of} messages", printable(name)))?;
        }
    }
    waiting.end().await;
    Ok(())
}

/// Waits until this device has the history of another one, unless somebody ends the wait: then later commands take the rest.
pub(crate) async fn take(client: &Client, output: Output) -> anyhow::Result<()> {
    let mut waiting = Waiting::begin(client, "waiting for what was said before")?;
    let mut told = None;
    while waiting.goes_on().await {
        // One whose rest cannot come counts where there is no other.
        let coming = client.history_coming().await?.into_iter();
        let coming = coming.max_by_key(|coming| (coming.is_done, !coming.is_over, coming.messages));
        let Some(HandedOver { from, messages, total: of, is_done, is_over }) = coming else { continue };
        if is_done || is_over {
            waiting.end().await;
            return show_end(client, output).await;
        }
        if told.replace(messages) != Some(messages) {
            let line = Line::History { from: Some(&from), to: None, messages, of, done: false };
            show(output, &line, &format!("{messages} of {of} messages are here"))?;
        }
    }
    waiting.end().await;
    Ok(())
}

/// Prints that it is complete, or that the rest cannot come, which is no news for the next `gureum receive` then.
async fn show_end(client: &Client, output: Output) -> anyhow::Result<()> {
    let mut news = client.unreported_events(EVENTS_SEARCHED).await?;
    news.retain(|stored| matches!(stored.event, Event::History { .. }));
    for line in output.events(&news)? {
        output.print(&line)?;
    }
    Ok(client.mark_reported(news.into_iter().map(|stored| stored.id).collect()).await?)
}

/// Says how far it has come: to people beside what they asked for.
fn show(output: Output, line: &Line<'_>, text: &str) -> anyhow::Result<()> {
    if output.json {
        return output.print_json(line);
    }
    eprintln!("gureum: {text}");
    Ok(())
}

/// A session that goes on with it, unless another process of this home has one that does.
struct Waiting {
    session: ClientSession,
    interrupt: Interrupt,
}

impl Waiting {
    fn begin(client: &Client, what: &str) -> anyhow::Result<Self> {
        let interrupt = Interrupt::listen()?;
        let session = client.session(SessionOptions { inbox: Inbox::TakeIfFree, reconnect: true })?;
        eprintln!("gureum: {what}; Ctrl-C leaves the rest to later commands");
        Ok(Self { session, interrupt })
    }

    /// Waits until it may have come further; `false` where the wait is over.
    async fn goes_on(&mut self) -> bool {
        let look = tokio::time::sleep(LOOK_EVERY);
        tokio::pin!(look);
        loop {
            tokio::select! {
                biased;
                () = self.interrupt.wait() => return false,
                event = self.session.next() => match event {
                    Some(ClientEvent::Stopped(error)) => {
                        eprintln!("gureum: {}", printable(&error.to_string()));
                        return false;
                    }
                    None => return false,
                    Some(_) => (),
                },
                () = &mut look => return true,
            }
        }
    }

    async fn end(self) {
        Box::pin(self.session.close()).await;
    }
}
