//! `gureum mute`, `unmute`, `block` and `unblock`: by whom one is woken, and of whom one hears.

use anyhow::{Context, bail};
use gureum_client::vault::{Contact, Conversation, Muted, Resolved, Target};
use gureum_client::{Client, ClientError, Inbox, SessionOptions};
use gureum_proto::{AccountId, Relation};

use crate::args::{MuteArgs, WhoArgs, WithArgs};
use crate::home::Home;
use crate::output::{Line, Output, printable, time_text};

pub(crate) async fn mute(home: &Home, output: Output, args: MuteArgs) -> anyhow::Result<()> {
    let client = home.open().await?;
    let Some(with) = args.with else { return list(&client, output).await };
    let conversation = talk(&client, &with).await?.id;
    let until_ms = client.mute(conversation, args.how_long).await?;
    tell(&client).await;
    show(output, Muted { conversation, with: with.to_string(), until_ms })
}

pub(crate) async fn unmute(home: &Home, output: Output, args: WithArgs) -> anyhow::Result<()> {
    let client = home.open().await?;
    let conversation = talk(&client, &args.with).await?.id;
    client.unmute(conversation).await?;
    tell(&client).await;
    let with = args.with.to_string();
    let line = Line::Unmuted { with: &with, conversation: conversation.to_string() };
    output.print_either(&line, &format!("{} is not muted any more", printable(args.with.as_str())))
}

pub(crate) async fn block(home: &Home, output: Output, args: WhoArgs) -> anyhow::Result<()> {
    let client = home.open().await?;
    decide(&client, output, &args.who, Relation::Blocked).await
}

pub(crate) async fn unblock(home: &Home, output: Output, args: WhoArgs) -> anyhow::Result<()> {
    let client = home.open().await?;
    decide(&client, output, &args.who, Relation::None).await
}

/// Decides how this account stands to somebody.
pub(crate) async fn decide(client: &Client, output: Output, who: &Target, relation: Relation) -> anyhow::Result<()> {
    let (account, handle) = person(client, who).await?;
    let before = client.relation(account).await?;
    // Whoever is not blocked is not to be forgotten by that.
    if relation != Relation::None || before == Relation::Blocked {
        client.set_relation(account, relation).await?;
    }
    tell(client).await;
    show_relation(output, account, handle, relation)
}

/// Prints how this account stands to somebody.
pub(crate) fn show_relation(
    output: Output,
    account: AccountId,
    handle: String,
    relation: Relation,
) -> anyhow::Result<()> {
    let (word, text) = match relation {
        Relation::None => ("none", "is not blocked"),
        Relation::Accepted => ("accepted", "is accepted"),
        Relation::Blocked => ("blocked", "is blocked"),
    };
    let text = format!("{} {text}", printable(&handle));
    output.print_either(&Line::Relation { handle, account: account.to_string(), relation: word }, &text)
}

/// Tells the server what was decided. If that fails, the next connection does.
pub(crate) async fn tell(client: &Client) {
    if let Err(error) = Box::pin(client.tell_decisions()).await {
        let error = printable(&error.to_string());
        eprintln!("gureum: {error}; it holds here, and the server is told on the next connection");
    }
}

/// Whom somebody means, with what they are known by.
pub(crate) async fn person(client: &Client, target: &Target) -> anyhow::Result<(AccountId, String)> {
    let known = match target.handle() {
        // A group of that name is not meant.
        Some(handle) => client.contact(&handle).await?.map_or(Resolved::Unknown, of_contact),
        None => client.resolve(target).await?,
    };
    let found = match known {
        Resolved::Unknown if target.may_be_somebody() => look_up(client, target).await?,
        known => known,
    };
    match found {
        Resolved::Contact(contact) => Ok((contact.account, contact.handle.to_string())),
        Resolved::Id(Conversation { peer: Some(account), .. }) => Ok((account, target.to_string())),
        Resolved::Id(_) | Resolved::Group(_) => bail!("{target} is a group; name somebody, by their handle"),
        Resolved::Unknown => bail!("{target} is nobody who is known here"),
    }
}

/// Whom the server knows by a handle or a number.
async fn look_up(client: &Client, target: &Target) -> Result<Resolved, ClientError> {
    let mut session = client.session(SessionOptions { inbox: Inbox::Leave, reconnect: false })?;
    let commands = session.commands();
    let found = match target.handle() {
        Some(handle) => Box::pin(session.finish(commands.find(handle))).await.map(of_contact),
        None => Box::pin(session.finish(commands.resolve(target.clone()))).await,
    };
    drop(commands);
    Box::pin(session.close()).await;
    found
}

fn of_contact(contact: Contact) -> Resolved {
    Resolved::Contact(Box::new(contact))
}

async fn talk(client: &Client, with: &Target) -> anyhow::Result<Conversation> {
    let conversation = client.conversation(with).await?;
    conversation.with_context(|| format!("there is no conversation with {with} here"))
}

async fn list(client: &Client, output: Output) -> anyhow::Result<()> {
    let muted = client.muted().await?;
    if muted.is_empty() {
        return output.print_nothing("nothing is muted");
    }
    muted.into_iter().try_for_each(|muted| show(output, muted))
}

fn show(output: Output, muted: Muted) -> anyhow::Result<()> {
    let until = muted.until_ms.map_or_else(|| "you unmute it".to_owned(), time_text);
    let text = format!("{} is muted until {until}", printable(&muted.with));
    let Muted { conversation, with, until_ms } = muted;
    output.print_either(&Line::Muted { with: &with, conversation: conversation.to_string(), until_ms }, &text)
}
