//! `gureum group`: makes groups, changes them, and shows who is in them.

use anyhow::Context;
use gureum_client::vault::{ConversationStatus, GroupChange, GroupView, Target, With};
use gureum_client::{Client, GroupAnswer, GroupCommand, Inbox, SessionOptions};

use crate::args::{GroupAction, GroupArgs};
use crate::home::Home;
use crate::output::{GroupLine, Line, Output, PersonLine, group_text, printable};

pub(crate) async fn run(home: &Home, output: Output, args: GroupArgs) -> anyhow::Result<()> {
    let client = home.open().await?;
    let (command, change) = match args.action {
        GroupAction::List => return list(&client, output).await,
        GroupAction::Show { group } => return show(&client, output, &group).await,
        GroupAction::Create { name, who } => (GroupCommand::Create { name, who }, GroupChange::Created),
        GroupAction::Add { group, who } => (GroupCommand::Add { group, who }, GroupChange::Added),
        GroupAction::Remove { group, who } => (GroupCommand::Remove { group, who }, GroupChange::Removed),
        GroupAction::Leave { group } => (GroupCommand::Leave { group }, GroupChange::Left),
        GroupAction::Rename { group, name } => (GroupCommand::Rename { group, name }, GroupChange::Renamed),
        GroupAction::Admin { group, who, revoke: false } => (GroupCommand::Promote { group, who }, GroupChange::Admins),
        GroupAction::Admin { group, who, revoke: true } => (GroupCommand::Demote { group, who }, GroupChange::Admins),
    };
    // As with a message: what waits in the inbox may be a change of this very group.
    let mut session = client.session(SessionOptions { inbox: Inbox::TakeIfFree, reconnect: false })?;
    let commands = session.commands();
    let answer = Box::pin(session.finish(commands.group(command))).await;
    drop(commands);
    Box::pin(session.close()).await;
    answered(&client, output, change, answer?).await
}

/// Says what was done, and fails over what was not.
async fn answered(client: &Client, output: Output, change: GroupChange, answer: GroupAnswer) -> anyhow::Result<()> {
    let GroupAnswer { conversation, name, done, failed, refused } = answer;
    let me = client.identity().handle.to_string();
    let who: Vec<_> = match change {
        GroupChange::Left => vec![me.clone()],
        GroupChange::Admins => admins(client, With::Group(conversation)).await?,
        _ => done.iter().map(ToString::to_string).collect(),
    };
    let concerns_all = matches!(change, GroupChange::Created | GroupChange::Left | GroupChange::Renamed);
    if refused.is_none() && (concerns_all || !done.is_empty()) {
        let text = group_text(change, &name, Some(&me), &who);
        let group =
            GroupLine { change: change.word(), conversation: conversation.to_string(), name, by: Some(me), who };
        output.print_either(&Line::Group(group), &text)?;
    }
    let failed = failed.into_iter().map(|(handle, why)| format!("{handle}: {why}"));
    let failed: Vec<_> = refused.into_iter().chain(failed).collect();
    anyhow::ensure!(failed.is_empty(), "not everything was done: {}", failed.join("; "));
    Ok(())
}

async fn admins(client: &Client, with: With) -> anyhow::Result<Vec<String>> {
    let group = view(client, with).await?.context("the group is not known here any more")?;
    Ok(group.people.into_iter().filter(|person| person.is_admin).map(|person| person.handle).collect())
}

async fn view(client: &Client, with: With) -> anyhow::Result<Option<GroupView>> {
    Ok(client.groups().await?.into_iter().find(|group| With::Group(group.conversation) == with))
}

async fn list(client: &Client, output: Output) -> anyhow::Result<()> {
    let me = client.identity().account;
    for group in client.groups().await?.iter().filter(|group| group.state != ConversationStatus::Left) {
        let admin = group.people.iter().any(|person| person.account == me && person.is_admin);
        let role = if admin { "  admin" } else { "" };
        let why = standing(group).1.map(|why| format!("  ({why})")).unwrap_or_default();
        let (name, members) = (printable(&group.name), group.people.len());
        let text = format!("{}  {name}  {members} members{role}{why}", group.conversation);
        output.print_either(&line(group, admin, None), &text)?;
    }
    Ok(())
}

async fn show(client: &Client, output: Output, target: &Target) -> anyhow::Result<()> {
    let group = match client.resolve_group(target).await? {
        Some(known) => view(client, known.with()).await?,
        None => None,
    };
    let group = group.with_context(|| format!("there is no group {target} here"))?;
    let me = client.identity().account;
    let admin = group.people.iter().any(|person| person.account == me && person.is_admin);
    let role = |is_admin: bool| if is_admin { "admin" } else { "member" };
    let people = group.people.iter().map(|person| PersonLine {
        handle: person.handle.clone(),
        account: person.account.to_string(),
        role: role(person.is_admin),
        devices: person.devices,
    });
    let mut lines = vec![format!("{}  {}", group.conversation, printable(&group.name))];
    for person in &group.people {
        let devices = if person.devices == 1 { "device" } else { "devices" };
        lines.push(format!("  {}  {}  {} {devices}", person.handle, role(person.is_admin), person.devices));
    }
    lines.extend(standing(&group).1.map(|why| format!("  {why}")));
    output.print_either(&line(&group, admin, Some(people.collect())), &lines.join("\n"))
}

/// How a group stands, in a word for programs, and for people where nobody is shown in it or nothing goes on in it.
fn standing(group: &GroupView) -> (&'static str, Option<String>) {
    match group.state {
        ConversationStatus::Active => ("active", None),
        ConversationStatus::Left => ("left", Some("you are not in it any more".to_owned())),
        ConversationStatus::Creating | ConversationStatus::Absent => {
            ("joining", Some("this device is not in it yet; `gureum receive` brings it in".to_owned()))
        }
        ConversationStatus::Forked | ConversationStatus::Replaced => {
            let why = "it is stopped: its members' device lists were violated, and nothing is sent in it";
            ("stopped", Some(why.to_owned()))
        }
        ConversationStatus::Ahead => {
            let id = group.conversation;
            let why = format!("the server has gone back in it; ask its operator, then run `gureum restart {id}`");
            ("gone_back", Some(why))
        }
    }
}

fn line(group: &GroupView, admin: bool, people: Option<Vec<PersonLine>>) -> Line<'static> {
    Line::GroupShown {
        conversation: group.conversation.to_string(),
        name: group.name.clone(),
        state: standing(group).0,
        members: group.people.len(),
        admin,
        people,
    }
}
