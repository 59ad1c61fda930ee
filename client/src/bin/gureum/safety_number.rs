//! `gureum safety-number`: digits that are the same on both sides, or somebody is in between.

use crate::args::WithArgs;
use crate::home::Home;
use crate::mute::person;
use crate::output::{Line, Output, printable};

pub(crate) async fn run(home: &Home, output: Output, args: WithArgs) -> anyhow::Result<()> {
    let client = home.open().await?;
    let (account, _) = person(&client, &args.with).await?;
    let number = client.safety_number(account).await?;
    let line = Line::SafetyNumber { with: args.with.to_string(), account: account.to_string(), number: &number };
    let text = format!(
        "{number}\n\nCompare these digits with {}, on the phone or in person. They change only if an account is \
         replaced.",
        printable(args.with.as_str())
    );
    output.print_either(&line, &text)
}
