//! `gureum devices`: lists this account's devices, adds one that shows a code, and revokes one.

use std::io::{BufRead, IsTerminal, Write};

use anyhow::{Context, bail};
use gureum_client::vault::{Event, StoredEvent};
use gureum_client::{AddedDevice, Approval, Client, Device, Inbox, SessionOptions};
use gureum_proto::DeviceId;

use crate::args::{ApproveArgs, DevicesArgs, DevicesCommand, RevokeArgs};
use crate::handover;
use crate::home::Home;
use crate::output::{Line, Output, device_json, device_text, printable, time_text};

/// Names shorter than this are padded, so that times stand in one column.
const NAME_COLUMN: usize = 16;
/// Events among which the one is looked for that was printed here.
const EVENTS_SEARCHED: usize = 256;
/// What a person should know of a device that was not there when it was to be handed what it needs.
const NOT_HANDED_OVER: &str = "It could not be handed what this device knows of others. Until your devices have told it, it \
                               believes the server's first word: compare safety numbers there.";

pub(crate) async fn run(home: &Home, output: Output, args: DevicesArgs) -> anyhow::Result<()> {
    match args.command {
        None => list(home, output).await,
        Some(DevicesCommand::Approve(args)) => Box::pin(approve(home, output, args)).await,
        Some(DevicesCommand::Revoke(args)) => Box::pin(revoke(home, output, args)).await,
    }
}

async fn list(home: &Home, output: Output) -> anyhow::Result<()> {
    let client = home.open().await?;
    for device in Box::pin(client.devices()).await? {
        let Device { device, name, added_ms, last_seen_ms, current } = device;
        let line = Line::Device { device: device.to_string(), name: name.as_deref(), added_ms, last_seen_ms, current };
        let seen = last_seen_ms.map_or_else(|| "never".to_owned(), time_text);
        let text = format!(
            "{:<NAME_COLUMN$}  {device}  added {}  last seen {seen}{}",
            printable(name.as_deref().unwrap_or("-")),
            time_text(added_ms),
            if current { "  this device" } else { "" },
        );
        output.print_either(&line, &text)?;
    }
    Ok(())
}

async fn approve(home: &Home, output: Output, args: ApproveArgs) -> anyhow::Result<()> {
    let client = home.open().await?;
    let mut approval = Box::pin(client.approve(&args.code)).await?;
    if let Some(name) = args.name {
        approval.rename(name)?;
    }
    if args.history {
        approval.hand_over_history();
    }
    show_digits(output, &approval)?;
    if !output.json && std::io::stdin().is_terminal() && !tokio::task::spawn_blocking(ask).await?? {
        bail!("nothing was added; if the digits differed, show a new code, from a new home");
    }
    let (name, hands_over) = (approval.device_name().to_owned(), approval.hands_over_history());
    let AddedDevice { device, handed_over } = Box::pin(approval.finish()).await?;
    forget_news(&client, device).await?;
    show_change(&client, output, ("added", device, &name), "it joins your conversations by itself")?;
    if !handed_over {
        output.print_either(&Line::NotHandedOver { device: device.to_string() }, NOT_HANDED_OVER)?;
    }
    if hands_over { Box::pin(handover::hand_over(&client, output, (device, &name))).await } else { Ok(()) }
}

async fn revoke(home: &Home, output: Output, args: RevokeArgs) -> anyhow::Result<()> {
    let client = home.open().await?;
    let Device { device, name, .. } = Box::pin(client.device_named(&args.device)).await?;
    // What waits in the inbox comes first: commits from elsewhere would make it harder to read.
    let mut session = client.session(SessionOptions { inbox: Inbox::TakeIfFree, reconnect: false })?;
    let commands = session.commands();
    let revoked = Box::pin(session.finish(commands.revoke(device))).await;
    drop(commands);
    Box::pin(session.close()).await;
    let revoked = revoked?;
    forget_news(&client, device).await?;
    let name = name.unwrap_or_else(|| device.to_string());
    let left = match revoked.left_to_others {
        0 => String::new(),
        left => format!("; {left} wait for whoever comes first"),
    };
    let what = match revoked.removed_from {
        1 => format!("removed from 1 conversation{left}"),
        several => format!("removed from {several} conversations{left}"),
    };
    show_change(&client, output, ("revoked", device, &name), &what)
}

/// What is printed here is no news for the next `gureum receive`.
async fn forget_news(client: &Client, device: DeviceId) -> anyhow::Result<()> {
    let is_told = |stored: &StoredEvent| match stored.event {
        Event::DeviceAdded { device: of, .. } | Event::DeviceRevoked { device: of, .. } => of == device,
        _ => false,
    };
    let news = client.unreported_events(EVENTS_SEARCHED).await?;
    let told = news.iter().filter(|stored| is_told(stored)).map(|stored| stored.id).collect();
    Ok(client.mark_reported(told).await?)
}

fn show_digits(output: Output, approval: &Approval) -> anyhow::Result<()> {
    let (digits, name, history) = (approval.digits(), approval.device_name(), approval.hands_over_history());
    let line = Line::LinkCheck { digits, handle: None, device_name: Some(name), history };
    let more = if history { " It will be handed all that was said before." } else { "" };
    output.print_either(&line, &format!("Compare: {digits}\n{:?} wants to be your device.{more}", printable(name)))
}

fn show_change(
    client: &Client,
    output: Output,
    (change, device, name): (&'static str, DeviceId, &str),
    what: &str,
) -> anyhow::Result<()> {
    let identity = client.identity();
    let handle = identity.handle.to_string();
    let line = device_json(change, identity.account, &handle, device, Some(name));
    output.print_either(&line, &format!("{change}: {}; {what}", device_text(device, Some(name))))
}

/// Whether the person at the terminal agrees.
fn ask() -> anyhow::Result<bool> {
    let mut out = std::io::stdout().lock();
    write!(out, "Does it show the same? [y/N] ")?;
    out.flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).context("cannot read the answer")?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
