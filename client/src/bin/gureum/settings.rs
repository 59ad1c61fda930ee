//! `gureum settings`: what a person has decided, for all their devices.

use gureum_client::vault::Settings;

use crate::args::{Setting, SettingsArgs, Switch};
use crate::home::Home;
use crate::output::{Line, Output};

pub(crate) async fn run(home: &Home, output: Output, args: SettingsArgs) -> anyhow::Result<()> {
    let client = home.open().await?;
    match args.change {
        Some(Setting::Receipts { value }) => client.set_receipts(value == Switch::On).await?,
        Some(Setting::Typing { value }) => client.set_typing(value == Switch::On).await?,
        None => (),
    }
    let Settings { receipts, typing } = client.settings().await?;
    let text = format!("receipts  {}\ntyping    {}", switch(receipts), switch(typing));
    output.print_either(&Line::Settings { receipts, typing }, &text)
}

const fn switch(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}
