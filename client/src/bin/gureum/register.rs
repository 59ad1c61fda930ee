//! `gureum register`: an account from an invite, or for a phone number.

pub(crate) mod ask;

use std::time::Duration;

use anyhow::Context;
use gureum_client::{Client, ClientError, LinkError, NewAccount, NewPhone, Registration};
use gureum_proto::{Code, Phone};

use crate::args::{ProofArgs, RegisterArgs};
use crate::home::{Home, host_name};
use crate::output::{Line, Output, printable};

/// As often as the server lets one try a code.
const CODE_TRIES_MAX: u32 = 5;

pub(crate) async fn run(home: &Home, output: Output, args: RegisterArgs) -> anyhow::Result<()> {
    let directory = home.directory()?;
    let invite = args.invite.or(args.server).context("name the server, by an invite or by --server")?;
    let device_name = args.device_name.unwrap_or_else(host_name);
    let account = NewAccount { invite, handle: args.handle, device_name };
    let registration = match args.phone {
        Some(phone) => Box::pin(by_phone(home, output, account, phone, args.proof)).await?,
        None => Box::pin(Client::register(&directory, home.key()?, account)).await.map_err(explain)?,
    };
    let identity = registration.client.identity();
    let words = registration.recovery_words.as_str();
    let line = Line::Registered {
        handle: identity.handle.to_string(),
        account: identity.account.to_string(),
        device: identity.device.to_string(),
        recovery_words: words,
    };
    let text = format!(
        "You are {handle}. This device is {name:?}, its keys are in {directory}.\n\n\
         Recovery words, shown this once and kept nowhere. Whoever has them has the account, and without a device\n\
         they alone bring it back. Write them down:\n\n    {words}\n\n\
         Next: gureum send HANDLE TEXT, gureum receive, gureum chat HANDLE",
        handle = identity.handle,
        name = printable(&identity.device_name),
        directory = directory.display(),
    );
    output.print_either(&line, &text)?;
    registration.client.recovery_words_shown().await?;
    if let Some(own) = registration.client.phone().await?.filter(|own| !own.locked) {
        eprintln!(
            "gureum: whoever gets the messages to {} can take the number from you; `gureum phone lock --pin-file FILE` \
             keeps it",
            own.phone
        );
    }
    Ok(())
}

/// Asks for a code and for what has come, unless it is given.
async fn by_phone(
    home: &Home,
    output: Output,
    account: NewAccount,
    phone: Phone,
    proof: ProofArgs,
) -> anyhow::Result<Registration> {
    let directory = home.directory()?;
    let pin = proof.pin_file.as_deref().map(ask::pin).transpose()?;
    let may_ask = proof.code.is_none() && ask::is_somebody_there();
    let mut code = match proof.code {
        Some(code) => code,
        None => {
            let asked = Box::pin(Client::request_code(&directory, home.key()?, &account, &phone)).await;
            let Some(sent) = asked.map_err(explain)? else {
                // An earlier run has made it, and ended before its words were seen.
                return Ok(Box::pin(Client::register(&directory, home.key()?, account)).await?);
            };
            ask::tell_sent(output, &sent)?;
            ask::code()?
        }
    };
    let mut tries = 1;
    loop {
        let new = NewPhone { phone: phone.clone(), code, pin: pin.clone(), findable: proof.findable };
        match Box::pin(Client::register_by_phone(&directory, home.key()?, account.clone(), new)).await {
            Err(error) if may_ask && error.code() == Some(Code::CodeInvalid) && tries < CODE_TRIES_MAX => {
                eprintln!("gureum: {}", printable(&error.to_string()));
                code = ask::code()?;
                tries += 1;
            }
            registered => return registered.map_err(explain),
        }
    }
}

/// What a person can do about a refusal, where the server's sentence is not enough.
pub(crate) fn explain(error: ClientError) -> anyhow::Error {
    let ClientError::Link(LinkError::Refused(refusal)) = &error else { return error.into() };
    let what = match refusal.code {
        Code::PhoneLocked => {
            // To the minute: what is left of seven days.
            let wait = Duration::from_secs(refusal.retry_after_ms / 60_000 * 60 + 60);
            format!(
                "give the PIN with --pin-file FILE; if whoever has the number stays away, it is free in {}",
                humantime::format_duration(wait)
            )
        }
        Code::PhoneRequired => "give your number with --phone".to_owned(),
        _ => return error.into(),
    };
    anyhow::Error::from(error).context(what)
}
