//! `gureum register`: an account from an invite.

use gureum_client::{Client, NewAccount};

use crate::args::RegisterArgs;
use crate::home::{Home, host_name};
use crate::output::{Line, Output, printable};

pub(crate) async fn run(home: &Home, output: Output, args: RegisterArgs) -> anyhow::Result<()> {
    let directory = home.directory()?;
    let device_name = args.device_name.unwrap_or_else(host_name);
    let account = NewAccount { invite: args.invite, handle: args.handle, device_name };
    let registration = Box::pin(Client::register(&directory, home.key()?, account)).await?;
    let identity = registration.client.identity();
    let words = registration.recovery_words.as_str();
    let line = Line::Registered {
        handle: identity.handle.to_string(),
        account: identity.account.to_string(),
        device: identity.device.to_string(),
        recovery_words: words,
    };
    let text = format!(
        "You are {handle}. This device is {name:?}, its keys are in {directory}.\n\n\
         Recovery words, shown this once and kept nowhere. Whoever has them has the account, and without a device\n\
         they alone bring it back. Write them down:\n\n    {words}\n\n\
         Next: gureum send HANDLE TEXT, gureum receive, gureum chat HANDLE",
        handle = identity.handle,
        name = printable(&identity.device_name),
        directory = directory.display(),
    );
    output.print_either(&line, &text)?;
    Ok(registration.client.recovery_words_shown().await?)
}
