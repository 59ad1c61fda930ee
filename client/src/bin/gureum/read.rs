//! `gureum read`: what came from somebody was read, and they are told, and so are the other devices of this account.

use gureum_client::{Inbox, SessionOptions};

use crate::args::ReadArgs;
use crate::home::Home;
use crate::output::{Line, Output, printable};

pub(crate) async fn run(home: &Home, output: Output, args: ReadArgs) -> anyhow::Result<()> {
    let client = home.open().await?;
    // What waits in the inbox comes first: it is the newest of what is read, and may be a commit after which others can
    // no longer read what is encrypted without it.
    let mut session = client.session(SessionOptions { inbox: Inbox::TakeIfFree, reconnect: false })?;
    let commands = session.commands();
    let marked = Box::pin(session.finish(commands.read(args.with.clone()))).await;
    drop(commands);
    Box::pin(session.close()).await;
    let mark = marked?;
    let (with, conversation) = (Some(args.with.to_string()), mark.conversation.to_string());
    let line = Line::Read { with, conversation, number: mark.number, unread: None, by_device: None };
    output.print_either(&line, &format!("all that came from {} is read", printable(args.with.as_str())))
}
