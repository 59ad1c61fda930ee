//! `gureum history`: the local database, oldest first.

use crate::args::HistoryArgs;
use crate::home::{Home, find};
use crate::output::Output;

pub(crate) async fn run(home: &Home, output: Output, args: HistoryArgs) -> anyhow::Result<()> {
    let client = home.open().await?;
    let with = match &args.with {
        None => None,
        Some(target) => {
            let found = match find(&client, target).await? {
                Some(found) => Some(found),
                None => client.resolve_past(target).await?,
            };
            Some(found.ok_or_else(|| anyhow::anyhow!("there is no conversation with {target} here"))?)
        }
    };
    for item in client.history(with, args.limit).await? {
        output.print(&output.history(&item)?)?;
    }
    Ok(())
}
