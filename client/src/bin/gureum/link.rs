//! `gureum link`: this home becomes another device of an account.

use anyhow::bail;
use gureum_client::{Client, ClientEvent, Inbox, LinkSession, LinkStep, NewDevice, SessionOptions};
use gureum_proto::Handle;

use crate::args::LinkArgs;
use crate::handover;
use crate::home::{Home, host_name};
use crate::output::{Line, Output, printable};
use crate::qr;
use crate::signal::Interrupt;

/// What a person should know where nothing was handed over to this device.
const NOT_HANDED_OVER: &str = "The other device has not handed over what it knows of others. Until your devices have told this \
                               one, it believes the server's first word: compare safety numbers before you write to somebody.";

pub(crate) async fn run(home: &Home, output: Output, args: LinkArgs) -> anyhow::Result<()> {
    let mut interrupt = Interrupt::listen()?;
    let device_name = args.device_name.unwrap_or_else(host_name);
    let new = NewDevice { server: args.server, device_name, history: args.history };
    let mut session = Box::pin(Client::link_device(&home.directory()?, home.key()?, new)).await?;
    show_code(output, &session)?;
    let (client, handed_over) = loop {
        let step = tokio::select! {
            biased;
            () = interrupt.wait() => bail!("this device is not linked yet; run the same command again to go on"),
            step = Box::pin(session.next()) => step?,
        };
        match step {
            LinkStep::Answered { digits, handle } => show_digits(output, &digits, &handle)?,
            LinkStep::Linked { client, handed_over } => break (client, handed_over),
        }
    };
    come_in(&client, &mut interrupt).await?;
    let identity = client.identity();
    let line = Line::Linked {
        account: identity.account.to_string(),
        device: identity.device.to_string(),
        handle: identity.handle.to_string(),
        device_name: &identity.device_name,
    };
    let text = format!("You are {}. This device is {:?}.", identity.handle, printable(&identity.device_name));
    output.print_either(&line, &text)?;
    if !handed_over {
        output.print_either(&Line::NotHandedOver { device: identity.device.to_string() }, NOT_HANDED_OVER)?;
    }
    if args.history { Box::pin(handover::take(&client, output)).await } else { Ok(()) }
}

/// Comes into the account's conversations, and is up to date when it returns. What fails, the next command makes up for.
pub(crate) async fn come_in(client: &Client, interrupt: &mut Interrupt) -> anyhow::Result<()> {
    let mut session = client.session(SessionOptions { inbox: Inbox::Take, reconnect: false })?;
    loop {
        let event = tokio::select! {
            biased;
            () = interrupt.wait() => break,
            event = session.next() => event,
        };
        match event {
            Some(ClientEvent::Stopped(error)) => {
                eprintln!("gureum: not in all conversations yet: {}", printable(&error.to_string()));
                break;
            }
            Some(ClientEvent::CaughtUp) | None => break,
            Some(_) => (),
        }
    }
    Box::pin(session.close()).await;
    Ok(())
}

fn show_code(output: Output, session: &LinkSession) -> anyhow::Result<()> {
    let code = session.code().to_text();
    let picture = qr::picture(&code).expect("a picture holds 81 characters");
    let text = format!(
        "{picture}\n\nOn a device that your account has, run: gureum devices approve\n{}\n\nThis waits until you have. If no \
         device is found there, compare the server's address with the one that `gureum whoami` prints there.",
        code.as_str()
    );
    output.print_either(&Line::LinkCode { code: &code }, &text)
}

fn show_digits(output: Output, digits: &str, handle: &Handle) -> anyhow::Result<()> {
    let line = Line::LinkCheck { digits, handle: Some(handle.to_string()), device_name: None, history: false };
    let text =
        format!("Compare: {digits}\n{handle} adds this device, if the other one shows the same and you agree there.");
    output.print_either(&line, &text)
}
