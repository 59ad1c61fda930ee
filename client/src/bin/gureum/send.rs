//! `gureum send`: one message, on the server's disk or not sent.

use std::io::Read;

use anyhow::Context;
use gureum_client::{Inbox, SessionOptions, TEXT_BYTES_MAX};

use crate::args::SendArgs;
use crate::home::Home;
use crate::output::{Line, Output, printable, time_text};

pub(crate) async fn run(home: &Home, output: Output, args: SendArgs) -> anyhow::Result<()> {
    let text = if args.text == "-" { read_text()? } else { args.text };
    anyhow::ensure!(!text.is_empty(), "the message is empty; type something to send");
    anyhow::ensure!(
        text.len() <= TEXT_BYTES_MAX,
        "the message has {} bytes, and at most {TEXT_BYTES_MAX} fit; send it in parts",
        text.len()
    );
    let client = home.open().await?;
    // What waits in the inbox comes first: it may be the very conversation that this message would begin, or a commit
    // after which others can no longer read what is encrypted without it.
    let mut session = client.session(SessionOptions { inbox: Inbox::TakeIfFree, reconnect: false })?;
    let commands = session.commands();
    let sent = Box::pin(session.finish(commands.send(args.to.clone(), text))).await;
    drop(commands);
    Box::pin(session.close()).await;
    let sent = sent?;
    let line = Line::Sent {
        to: args.to.to_string(),
        conversation: sent.conversation.to_string(),
        message_id: sent.message_id.map(|id| id.to_string()),
        server_time_ms: sent.server_time_ms,
        durability: "fsync",
        gone: sent.gone.clone(),
        gone_more: (sent.gone_more > 0).then_some(sent.gone_more),
    };
    let more = if sent.gone_more > 0 { format!(" and {} more", sent.gone_more) } else { String::new() };
    let gone = match printable(&sent.gone.join(", ")) {
        nobody if nobody.is_empty() => nobody,
        who => format!(" (not to {who}{more}: deleted, says the server)"),
    };
    output.print_either(&line, &format!("{}  sent to {}{gone}", time_text(sent.server_time_ms), args.to))
}

fn read_text() -> anyhow::Result<String> {
    let mut text = String::new();
    // One byte more than fits tells too long from just fitting, the final newline aside.
    let limit = u64::try_from(TEXT_BYTES_MAX + 2).unwrap_or(u64::MAX);
    let reading = std::io::stdin().lock().take(limit).read_to_string(&mut text);
    reading.context("cannot read the message from standard input (it must be text)")?;
    if text.ends_with('\n') {
        text.pop();
    }
    Ok(text)
}
