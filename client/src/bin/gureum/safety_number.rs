//! `gureum safety-number`: digits that are the same on both sides, or somebody is in between.

use crate::args::WhoArgs;
use crate::home::Home;
use crate::mute::person;
use crate::output::{Line, Output, printable};

pub(crate) async fn run(home: &Home, output: Output, args: WhoArgs) -> anyhow::Result<()> {
    let client = home.open().await?;
    let (account, _) = person(&client, &args.who).await?;
    let number = client.safety_number(account).await?;
    let line = Line::SafetyNumber { with: args.who.to_string(), account: account.to_string(), number: &number };
    let text = format!(
        "{number}\n\nCompare these digits with {}, on the phone or in person. They change only if an account is \
         replaced.",
        printable(args.who.as_str())
    );
    output.print_either(&line, &text)
}
