//! `gureum whoami`: whose home this is.

use crate::home::Home;
use crate::output::{Line, Output, printable};

pub(crate) async fn run(home: &Home, output: Output) -> anyhow::Result<()> {
    let client = home.open().await?;
    let identity = client.identity();
    let line = Line::Whoami {
        handle: identity.handle.to_string(),
        account: identity.account.to_string(),
        device: identity.device.to_string(),
        device_name: &identity.device_name,
        server: identity.server.to_string(),
    };
    let text = format!(
        "handle   {}\naccount  {}\ndevice   {} ({})\nserver   {}\nhome     {}",
        identity.handle,
        identity.account,
        identity.device,
        printable(&identity.device_name),
        identity.server,
        home.directory()?.display(),
    );
    output.print_either(&line, &text)
}
