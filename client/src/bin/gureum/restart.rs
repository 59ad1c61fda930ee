//! `gureum restart`: goes on in a conversation in which the server has gone back, because a person has decided so.

use gureum_client::{Inbox, SessionOptions};

use crate::args::RestartArgs;
use crate::home::Home;
use crate::output::Output;
use crate::receive::print_news;

pub(crate) async fn run(home: &Home, output: Output, args: RestartArgs) -> anyhow::Result<()> {
    let client = home.open().await?;
    // The inbox comes first: nothing older is readable afterwards.
    let mut session = client.session(SessionOptions { inbox: Inbox::Take, reconnect: false })?;
    let commands = session.commands();
    let restarted = Box::pin(session.finish(commands.restart(args.with.clone()))).await;
    drop(commands);
    Box::pin(session.close()).await;
    print_news(&client, output).await?;
    if restarted? {
        eprintln!(
            "gureum: others may have to run `gureum restart` too ({} for {}): a device that has seen more than the server \
             cannot read what you send until then",
            args.with,
            client.identity().handle
        );
    } else {
        eprintln!("gureum: the server has not gone back in the conversation with {}; nothing was changed", args.with);
    }
    Ok(())
}
