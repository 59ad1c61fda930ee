//! `gureum register`: an account from an invite, or for a phone number.

pub(crate) mod ask;

use std::time::Duration;

use anyhow::Context;
use gureum_client::{Client, ClientError, Ground, LinkError, NewAccount, NewPhone, Registration};
use gureum_proto::{Code, Otp, Phone};

use crate::args::{ProofArgs, RegisterArgs};
use crate::home::{Home, host_name};
use crate::output::{Line, Output, printable, time_text};

/// As often as the server lets one try a code.
const CODE_TRIES_MAX: u32 = 5;

pub(crate) async fn run(home: &Home, output: Output, args: RegisterArgs) -> anyhow::Result<()> {
    let directory = home.directory()?;
    let invite = args.invite.or(args.server).context("name the server, by an invite or by --server")?;
    let device_name = args.device_name.unwrap_or_else(host_name);
    let has_invite = invite.token.is_some();
    let account = NewAccount { invite, handle: args.handle, device_name };
    let registration = match args.phone {
        Some(phone) => Box::pin(by_phone(home, output, account, phone, args.proof)).await?,
        None => {
            let registered = Box::pin(Client::register(&directory, home.key()?, account)).await;
            registered.map_err(|error| refused(error, has_invite))?
        }
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
    let (may_ask, findable) = (proof.code.is_none() && ask::is_somebody_there(), proof.findable);
    let has_invite = account.invite.token.is_some();
    let code = match proof.code {
        Some(code) => code,
        None => {
            let asked = Box::pin(Client::request_code(&directory, home.key()?, &account, &phone)).await;
            let Some(sent) = asked.map_err(no_code)? else {
                // An earlier run has made it, and ended before its words were seen.
                return Ok(Box::pin(Client::register(&directory, home.key()?, account)).await?);
            };
            ask::tell_sent(output, &sent)?;
            ask::code()?
        }
    };
    let register = async |code| {
        let new = NewPhone { phone: phone.clone(), code, pin: pin.clone(), findable };
        let registered = Box::pin(Client::register_by_phone(&directory, home.key()?, account.clone(), new)).await;
        registered.map_err(|error| refused(error, has_invite))
    };
    prove(code, may_ask, register).await
}

/// Shows a code to the server; a person who is there types it again where it is wrong.
pub(crate) async fn prove<T>(
    code: Otp,
    may_ask: bool,
    mut show: impl AsyncFnMut(Otp) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let mut code = code;
    for _ in 1..CODE_TRIES_MAX {
        match show(code).await {
            Err(error) if may_ask && is_wrong_code(&error) => {
                eprintln!("gureum: {}", printable(&error.to_string()));
                code = ask::code()?;
            }
            shown => return shown,
        }
    }
    show(code).await
}

fn is_wrong_code(error: &anyhow::Error) -> bool {
    error.downcast_ref::<ClientError>().and_then(ClientError::code) == Some(Code::CodeInvalid)
}

/// What a person can do about a refusal, where the server's sentence is not enough.
pub(crate) fn explain(error: ClientError) -> anyhow::Error {
    explain_at((Ground::system().clock)(), error)
}

fn explain_at(now_ms: u64, error: ClientError) -> anyhow::Error {
    let ClientError::Link(LinkError::Refused(refusal)) = &error else { return error.into() };
    let what = match refusal.code {
        Code::PhoneLocked => format!(
            "run it again with --pin-file FILE and the same --code, which is still good; without the PIN the number is \
             free in {}, if whoever has it stays away",
            wait(refusal.retry_after_ms)
        ),
        // No code lives as long as the lock is closed.
        Code::PhoneLockClosed => format!(
            "no PIN opens the lock before {}, and this code will not be good any more; run it again after that without \
             --code, for a new one, and with --pin-file FILE",
            time_text(now_ms.saturating_add(refusal.retry_after_ms))
        ),
        Code::PhoneRequired => "give your number with --phone".to_owned(),
        Code::RateLimited if refusal.retry_after_ms > 0 => format!("try again in {}", wait(refusal.retry_after_ms)),
        _ => return error.into(),
    };
    anyhow::Error::from(error).context(what)
}

/// The same where an account was to be made: an invite may be all that is missing.
fn refused(error: ClientError, has_invite: bool) -> anyhow::Error {
    let is_uninvited = !has_invite && error.code() == Some(Code::InviteInvalid);
    let error = explain(error);
    if !is_uninvited {
        return error;
    }
    error.context(
        "this server takes whom it has invited: ask its operator for an invite, and give that in place of --server",
    )
}

/// The same where a code was asked for: an earlier one may have come, of which a second run does not ask.
pub(crate) fn no_code(error: ClientError) -> anyhow::Error {
    let is_too_early = error.code() == Some(Code::RateLimited);
    let error = explain(error);
    if is_too_early { error.context("no new code yet; one that has come is given with --code CODE") } else { error }
}

/// A time to wait as people say it: never too short, in seconds below an hour and in minutes above.
fn wait(ms: u64) -> String {
    let step_s = if ms < 60 * 60 * 1_000 { 1 } else { 60 };
    humantime::format_duration(Duration::from_secs(ms.div_ceil(step_s * 1_000) * step_s)).to_string()
}

#[cfg(test)]
mod tests {
    use gureum_proto::Refusal;

    use super::*;

    /// 2026-11-27, 12:00 UTC.
    const NOON_MS: u64 = 1_795_780_800_000;

    #[track_caller]
    fn check(code: Code, retry_after_ms: u64, expected: &[&str]) {
        let refused = ClientError::Link(LinkError::Refused(Refusal::new(code).retry_after_ms(retry_after_ms)));
        let said = format!("{:#}", explain_at(NOON_MS, refused));
        assert!(said.ends_with(code.text()), "{said}");
        assert!(expected.iter().all(|what| said.contains(what)), "{said}");
    }

    #[test]
    fn a_refusal_says_what_to_do_and_when() {
        const DAY_MS: u64 = 24 * 60 * 60 * 1_000;
        check(Code::PhoneLocked, 6 * DAY_MS + 1, &["--pin-file", "--code", "free in 6days 1m"]);
        let closed = ["2026-11-28 12:00:00Z", "without --code", "--pin-file"];
        check(Code::PhoneLockClosed, DAY_MS, &closed);
        check(Code::RateLimited, 41_200, &["try again in 42s"]);
        check(Code::RateLimited, DAY_MS / 2 - 1, &["try again in 12h:"]);
        check(Code::PhoneRequired, 0, &["--phone"]);
        check(Code::CodeInvalid, 0, &[]);
    }

    #[test]
    fn nobody_is_sent_back_with_a_code_that_cannot_help_any_more() {
        let refused = |code| ClientError::Link(LinkError::Refused(Refusal::new(code).retry_after_ms(1)));
        let said = |code| format!("{:#}", explain_at(NOON_MS, refused(code)));
        assert!(said(Code::PhoneLocked).contains("still good"), "{}", said(Code::PhoneLocked));
        assert!(!said(Code::PhoneLockClosed).contains("still good"), "{}", said(Code::PhoneLockClosed));
    }

    #[test]
    fn whoever_asks_too_early_is_told_how_to_give_the_code_that_has_come() {
        let refused = |code| ClientError::Link(LinkError::Refused(Refusal::new(code).retry_after_ms(41_200)));
        let said = format!("{:#}", no_code(refused(Code::RateLimited)));
        assert!(said.contains("--code CODE") && said.contains("try again in 42s"), "{said}");
        let said = format!("{:#}", no_code(refused(Code::PhoneInvalid)));
        assert!(!said.contains("--code"), "{said}");
    }
}
