//! `gureum settings`: what a person has decided for this device.

use crate::args::{Setting, SettingsArgs, Switch};
use crate::home::Home;
use crate::output::{Line, Output};

pub(crate) async fn run(home: &Home, output: Output, args: SettingsArgs) -> anyhow::Result<()> {
    let client = home.open().await?;
    if let Some(Setting::Receipts { value }) = args.change {
        client.set_receipts(value == Switch::On).await?;
    }
    let receipts = client.settings().await?.receipts;
    output.print_either(&Line::Settings { receipts }, &format!("receipts  {}", if receipts { "on" } else { "off" }))
}
