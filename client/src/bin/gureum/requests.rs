//! `gureum requests`: who has written and is not known, accepted or blocked.

use gureum_client::Client;
use gureum_client::vault::{MessageRequest, Target};
use gureum_proto::Relation;

use crate::args::{RequestsArgs, RequestsCommand};
use crate::home::Home;
use crate::mute::{decide, show_relation, tell};
use crate::output::{Line, Output, printable, time_text};

pub(crate) async fn run(home: &Home, output: Output, args: RequestsArgs) -> anyhow::Result<()> {
    let client = home.open().await?;
    match args.command {
        None => list(&client, output).await,
        Some(RequestsCommand::Accept { who }) => accept(&client, output, &who).await,
        Some(RequestsCommand::Block { who }) => decide(&client, output, &who, Relation::Blocked).await,
        Some(RequestsCommand::Blocked) => {
            let blocked = client.blocked().await?;
            if blocked.is_empty() {
                return output.print_nothing("nobody is blocked");
            }
            blocked.into_iter().try_for_each(|(account, who)| show_relation(output, account, who, Relation::Blocked))
        }
    }
}

async fn list(client: &Client, output: Output) -> anyhow::Result<()> {
    let requests = client.message_requests().await?;
    if requests.is_empty() {
        // Of what waits on the server nothing is known here.
        return output.print_nothing("no requests, as far as this device has taken its inbox (`gureum receive`)");
    }
    for request in requests {
        let MessageRequest { conversation, with, messages, last_ms, .. } = request;
        let what = if messages == 1 { "1 message".to_owned() } else { format!("{messages} messages") };
        let last = last_ms.map(|last_ms| format!(", the last of {}", time_text(last_ms))).unwrap_or_default();
        let text = format!("{}  {what}{last}", printable(&with));
        output.print_either(
            &Line::Request { with: &with, conversation: conversation.to_string(), messages, last_ms },
            &text,
        )?;
    }
    Ok(())
}

/// Somebody, or a group.
async fn accept(client: &Client, output: Output, who: &Target) -> anyhow::Result<()> {
    let Some(conversation) = client.conversation(who).await? else {
        return decide(client, output, who, Relation::Accepted).await;
    };
    client.accept(conversation.id).await?;
    tell(client).await;
    if let Some(account) = conversation.peer {
        return show_relation(output, account, who.to_string(), Relation::Accepted);
    }
    let (with, conversation) = (who.to_string(), conversation.id.to_string());
    let text = format!("{} is accepted", printable(&with));
    output.print_either(&Line::Accepted { with, conversation, accepted: true }, &text)
}
