//! `gureum history`: the local database, oldest first.

use crate::args::HistoryArgs;
use crate::home::Home;
use crate::output::Output;

pub(crate) async fn run(home: &Home, output: Output, args: HistoryArgs) -> anyhow::Result<()> {
    let client = home.open().await?;
    let with = match &args.with {
        None => None,
        Some(handle) => {
            let contact = client.contact(handle).await?;
            let contact = contact.ok_or_else(|| anyhow::anyhow!("there is no conversation with {handle} here"))?;
            Some(contact.account)
        }
    };
    for item in client.history(with, args.limit).await? {
        output.print(&output.history(&item)?)?;
    }
    Ok(())
}
