//! `gureum phone`: the account's number, shown and changed.

use gureum_client::vault::OwnPhone;
use gureum_client::{Client, NewPhone};
use gureum_proto::Phone;

use crate::args::{PhoneArgs, PhoneCommand, ProofArgs, Switch};
use crate::home::Home;
use crate::output::{Line, Output};
use crate::register::{ask, explain, no_code, prove};

pub(crate) async fn run(home: &Home, output: Output, args: PhoneArgs) -> anyhow::Result<()> {
    let client = home.open().await?;
    match args.command {
        None | Some(PhoneCommand::Show) => (),
        Some(PhoneCommand::Set { phone, proof }) => Box::pin(set(&client, output, phone, proof)).await?,
        Some(PhoneCommand::Remove) => Box::pin(client.remove_phone()).await?,
        Some(PhoneCommand::Findable { value }) => Box::pin(client.set_findable(value == Switch::On)).await?,
        Some(PhoneCommand::Lock { pin_file }) => Box::pin(client.lock_phone(ask::pin(&pin_file)?)).await?,
        Some(PhoneCommand::Unlock) => Box::pin(client.unlock_phone()).await?,
    }
    show(&client, output).await
}

async fn set(client: &Client, output: Output, phone: Phone, proof: ProofArgs) -> anyhow::Result<()> {
    let pin = proof.pin_file.as_deref().map(ask::pin).transpose()?;
    let may_ask = proof.code.is_none() && ask::is_somebody_there();
    // Another number is no reason to hide from others, nor to be found by them.
    let findable = proof.findable || client.phone().await?.is_some_and(|own| own.findable);
    let code = match proof.code {
        Some(code) => code,
        None => {
            let sent = Box::pin(client.request_phone_code(&phone)).await.map_err(no_code)?;
            ask::tell_sent(output, &sent)?;
            ask::code()?
        }
    };
    let set = async |code| {
        let new = NewPhone { phone: phone.clone(), code, pin: pin.clone(), findable };
        Box::pin(client.set_phone(new)).await.map_err(explain)
    };
    prove(code, may_ask, set).await
}

async fn show(client: &Client, output: Output) -> anyhow::Result<()> {
    let Some(OwnPhone { phone, findable, locked }) = client.phone().await? else {
        let line = Line::PhoneShown { phone: None, findable: None, lock: None };
        return output.print_either(&line, "this account has no phone number, as far as this device knows");
    };
    let line = Line::PhoneShown { phone: Some(phone.as_str()), findable: Some(findable), lock: Some(locked) };
    let switch = |on: bool| if on { "on" } else { "off" };
    let text = format!("number    {phone}\nfindable  {}\nlock      {}", switch(findable), switch(locked));
    output.print_either(&line, &text)
}
