//! `gureum recover`: an account whose devices are all lost, brought back by its recovery words.

use anyhow::Context;
use gureum_client::{Client, NewDevice};

use crate::args::RecoverArgs;
use crate::home::{Home, host_name};
use crate::link::come_in;
use crate::output::{Line, Output, printable};
use crate::register::ask;
use crate::signal::Interrupt;

/// Twelve words are shorter than this, in bytes.
const WORDS_BYTES_MAX: u64 = 1024;

pub(crate) async fn run(home: &Home, output: Output, args: RecoverArgs) -> anyhow::Result<()> {
    let words = ask::line("Recovery words: ", WORDS_BYTES_MAX).context("cannot read the recovery words")?;
    let mut interrupt = Interrupt::listen()?;
    let device_name = args.device_name.unwrap_or_else(host_name);
    let new = NewDevice { server: args.server, device_name, history: false };
    let client = Box::pin(Client::recover(&home.directory()?, home.key()?, new, &words)).await?;
    come_in(&client, &mut interrupt).await?;
    let identity = client.identity();
    let line = Line::Recovered {
        account: identity.account.to_string(),
        device: identity.device.to_string(),
        handle: identity.handle.to_string(),
        device_name: &identity.device_name,
    };
    let text = format!(
        "You are {} again. This device is {:?}; the account's other devices are revoked.\nThe recovery words stay the same.",
        identity.handle,
        printable(&identity.device_name),
    );
    output.print_either(&line, &text)
}
