//! `gureum push`: where this device is woken while it is away.

mod listen;
mod receiver;

use data_encoding::BASE64URL_NOPAD;
use gureum_client::ClientError;
use gureum_proto::{Code, PushOffer, PushService, PushTarget};

use crate::args::{PushArgs, PushCommand, PushSet};
use crate::home::Home;
use crate::output::{Line, Output};

pub(crate) async fn run(home: &Home, output: Output, args: PushArgs) -> anyhow::Result<()> {
    match args.command {
        PushCommand::Set(args) => set(home, output, args.service).await,
        PushCommand::Clear => clear(home, output).await,
        PushCommand::Show => show(home, output).await,
        PushCommand::Listen(args) => Box::pin(listen::run(home, output, args)).await,
    }
}

async fn set(home: &Home, output: Output, service: PushSet) -> anyhow::Result<()> {
    let client = home.open().await?;
    let target = service.target();
    let (service, visible) = (target.service().name(), target.visible);
    Box::pin(client.set_push_target(target)).await.map_err(explain)?;
    output.print_either(&Line::PushSet { service, visible }, &format!("woken by {service}, {}", how(visible)))
}

/// What a person can do about a refusal, where the server's sentence is not enough.
fn explain(error: ClientError) -> anyhow::Error {
    match error.code() {
        Some(Code::PushUnavailable) => anyhow::anyhow!("{error}; `gureum push show` lists what it offers"),
        _ => error.into(),
    }
}

async fn clear(home: &Home, output: Output) -> anyhow::Result<()> {
    let client = home.open().await?;
    Box::pin(client.clear_push_target()).await?;
    output.print_either(&Line::PushCleared, "nothing wakes this device any more")
}

async fn show(home: &Home, output: Output) -> anyhow::Result<()> {
    let client = home.open().await?;
    let target = client.push_target().await?;
    let PushOffer { services, vapid_key, target: held } = Box::pin(client.push_offer()).await?;
    let line = Line::Push {
        service: target.as_ref().map(|target| target.service().name()),
        visible: target.as_ref().map(|target| target.visible),
        known: target.is_some() && target.as_ref().map(PushTarget::digest) == held,
        offered: services.iter().map(|service| service.name()).collect(),
        vapid_key: vapid_key.map(|key| BASE64URL_NOPAD.encode(&key)),
    };
    let text = shown(target.as_ref(), &services, target.as_ref().map(PushTarget::digest) == held);
    output.print_either(&line, &text)
}

/// What people read of it. The address itself is a secret of the device and its server.
fn shown(target: Option<&PushTarget>, services: &[PushService], is_same: bool) -> String {
    let woken = match target {
        Some(target) => format!("{}, {}", target.service().name(), how(target.visible)),
        None => "nowhere".to_owned(),
    };
    let server = match (target, is_same) {
        (_, false) => "has something else, until the next connection (`gureum receive` makes one)",
        (Some(_), true) => "has it",
        (None, true) => "has nothing",
    };
    let offered: Vec<_> = services.iter().map(|service| service.name()).collect();
    let offered = if offered.is_empty() { "no push service".to_owned() } else { offered.join(", ") };
    format!("woken    {woken}\nserver   {server}\noffered  {offered}")
}

const fn how(visible: bool) -> &'static str {
    if visible { "with a notification" } else { "silently" }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail by a panic")]

    use gureum_proto::PushAddress;

    use super::*;

    #[test]
    fn says_where_the_device_is_woken_and_whether_the_server_knows() {
        let address = PushAddress::Fcm { token: "secret-token".to_owned() };
        let target = PushTarget { address, visible: false };
        let said = shown(Some(&target), &[PushService::Apns, PushService::Fcm], true);
        assert_eq!(said, "woken    fcm, silently\nserver   has it\noffered  apns, fcm");
        let said = shown(Some(&target), &[], false);
        assert!(said.contains("until the next connection") && said.contains("no push service"), "{said}");
        assert!(!said.contains("secret"), "{said}");
        assert!(shown(None, &[], true).contains("nowhere\nserver   has nothing"));
        assert!(shown(None, &[], false).contains("something else"), "one that is yet to be removed");
    }
}
