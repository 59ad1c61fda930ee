//! `gureum receive`: prints what came, and with `--follow` what comes.

use gureum_client::{Client, ClientEvent, Inbox, SessionOptions};

use crate::args::ReceiveArgs;
use crate::home::Home;
use crate::output::{Output, printable};
use crate::signal::Interrupt;

/// Events printed and then marked together: after a crash in between, at most these are printed again.
const EVENTS_AT_ONCE: usize = 256;

pub(crate) async fn run(home: &Home, output: Output, args: ReceiveArgs) -> anyhow::Result<()> {
    let mut interrupt = Interrupt::listen()?;
    let client = home.open().await?;
    let mut session = client.session(SessionOptions { inbox: Inbox::Take, reconnect: args.follow })?;
    // What an earlier command took while it did something else.
    print_news(&client, output).await?;
    let result = loop {
        let event = tokio::select! {
            biased;
            () = interrupt.wait() => break Ok(()),
            event = session.next() => event,
        };
        match event {
            Some(ClientEvent::News | ClientEvent::Sent(_)) => print_news(&client, output).await?,
            Some(ClientEvent::CaughtUp) => {
                print_news(&client, output).await?;
                if !args.follow {
                    break Ok(());
                }
                eprintln!("gureum: up to date; waiting for messages");
            }
            Some(ClientEvent::Disconnected { error, retry_in }) => {
                let error = printable(&error.to_string());
                eprintln!("gureum: {error}; trying again in {:.1} s", retry_in.as_secs_f64());
            }
            Some(ClientEvent::Stopped(error)) => break Err(error.into()),
            Some(ClientEvent::Connected) => (),
            None => break Ok(()),
        }
    };
    Box::pin(session.close()).await;
    print_news(&client, output).await?;
    result
}

/// Prints everything that nobody was told of yet.
pub(crate) async fn print_news(client: &Client, output: Output) -> anyhow::Result<()> {
    loop {
        let events = client.unreported_events(EVENTS_AT_ONCE).await?;
        if events.is_empty() {
            return Ok(());
        }
        for line in output.events(&events)? {
            output.print(&line)?;
        }
        client.mark_reported(events.into_iter().map(|stored| stored.id).collect()).await?;
    }
}
