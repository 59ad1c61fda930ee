//! `gureum send`: one message, on the server's disk or not sent.

use std::io::Read;

use anyhow::Context;
use gureum_client::vault::{Resolved, SentMessage, Target};
use gureum_client::{Client, ClientError, Inbox, SessionOptions, TEXT_BYTES_MAX};
use gureum_proto::Handle;

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
    let handle = if args.to.phone().is_some() { of_number(&client, &args.to).await? } else { None };
    let more = if sent.gone_more > 0 { format!(" and {} more", sent.gone_more) } else { String::new() };
    let gone = match printable(&sent.gone.join(", ")) {
        nobody if nobody.is_empty() => nobody,
        who => format!(" (not to {who}{more}: deleted, says the server)"),
    };
    // A number may be somebody else's than it was thought to be.
    let to = match &handle {
        Some(handle) => format!("{handle} ({})", args.to),
        None => args.to.to_string(),
    };
    let text = format!("{}  sent to {to}{gone}", time_text(sent.server_time_ms));
    output.print_either(&sent_line(&args.to, handle.as_ref(), &sent), &text)
}

/// Whom the server has just found by a number.
async fn of_number(client: &Client, number: &Target) -> Result<Option<Handle>, ClientError> {
    match client.resolve(number).await? {
        Resolved::Contact(contact) => Ok(Some(contact.handle)),
        _ => Ok(None),
    }
}

/// A message that the server has on disk; `handle` says whom a number stands for.
pub(crate) fn sent_line(to: &Target, handle: Option<&Handle>, sent: &SentMessage) -> Line<'static> {
    Line::Sent {
        to: to.to_string(),
        handle: handle.map(Handle::to_string),
        conversation: sent.conversation.to_string(),
        message_id: sent.message_id.map(|id| id.to_string()),
        server_time_ms: sent.server_time_ms,
        durability: "fsync",
        gone: sent.gone.clone(),
        gone_more: (sent.gone_more > 0).then_some(sent.gone_more),
    }
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
