//! `gureum account`: the end of this account.

use anyhow::Context;
use gureum_proto::Handle;

use crate::args::{AccountArgs, AccountCommand};
use crate::home::Home;
use crate::output::{Line, Output};
use crate::register::ask;

/// A handle and what people type beside it are shorter than this, in bytes.
const HANDLE_LINE_BYTES_MAX: u64 = 256;

pub(crate) async fn run(home: &Home, output: Output, args: AccountArgs) -> anyhow::Result<()> {
    let AccountCommand::Delete { yes } = args.command;
    let client = home.open().await?;
    let (handle, account) = (client.identity().handle.clone(), client.identity().account.to_string());
    let agreed = match yes {
        Some(agreed) => agreed,
        None => ask_for_handle(output, &handle)?,
    };
    Box::pin(client.delete_account(&agreed)).await?;
    let text = format!("{handle} is deleted. Your history stays in {}", home.directory()?.display());
    output.print_either(&Line::AccountDeleted { handle: handle.to_string(), account }, &text)
}

fn ask_for_handle(output: Output, own: &Handle) -> anyhow::Result<Handle> {
    anyhow::ensure!(!output.json && ask::is_somebody_there(), "to delete this account for good, say --yes {own}");
    let prompt = format!(
        "The server will forget {own}: its messages, devices and keys, for good; others are told when they write to it.\n\
         Type the handle to delete it: "
    );
    let typed = ask::line(&prompt, HANDLE_LINE_BYTES_MAX)?;
    typed.trim().parse().context("nothing was deleted")
}
