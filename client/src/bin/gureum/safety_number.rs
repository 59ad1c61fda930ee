//! `gureum safety-number`: digits that are the same on both sides, or somebody is in between.

use gureum_client::{Inbox, SessionOptions};

use crate::args::WithArgs;
use crate::home::Home;
use crate::output::{Line, Output};

pub(crate) async fn run(home: &Home, output: Output, args: WithArgs) -> anyhow::Result<()> {
    let client = home.open().await?;
    let contact = match client.contact(&args.with).await? {
        Some(contact) => contact,
        None => {
            let mut session = client.session(SessionOptions { inbox: Inbox::Leave, reconnect: false })?;
            let commands = session.commands();
            let found = Box::pin(session.finish(commands.find(args.with.clone()))).await;
            drop(commands);
            Box::pin(session.close()).await;
            found?
        }
    };
    let number = client.safety_number(contact.account).await?;
    let line =
        Line::SafetyNumber { with: args.with.to_string(), account: contact.account.to_string(), number: &number };
    let text = format!(
        "{number}\n\nCompare these digits with {}, on the phone or in person. They change only if an account is \
         replaced.",
        args.with
    );
    output.print_either(&line, &text)
}
