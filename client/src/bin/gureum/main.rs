//! `gureum`: reads the command line, runs one command, and turns its end into an exit code.

mod account;
mod args;
mod chat;
mod devices;
mod group;
mod handover;
mod history;
mod home;
mod link;
mod load;
mod mute;
mod output;
mod phone;
mod push;
mod qr;
mod read;
mod receive;
mod recover;
mod register;
mod requests;
mod restart;
mod safety_number;
mod send;
mod settings;
mod signal;
mod whoami;

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use args::{Args, Command};
use clap::Parser;
use gureum_client::{ClientError, LinkError};
use gureum_proto::Code;
use home::Home;
use output::Output;
use tokio::runtime::{Builder, Runtime};

/// How long the end of the process waits for its tasks.
const SHUTDOWN_MAX: Duration = Duration::from_secs(3);

/// The exit code where a person must decide, because the server has gone back.
const GONE_BACK: u8 = 3;

fn main() -> ExitCode {
    let args = Args::parse();
    tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_env_filter(tracing_subscriber::EnvFilter::from_env("GUREUM_LOG"))
        .init();
    let result = runtime(&args).and_then(|runtime| {
        let result = runtime.block_on(run(args));
        // Tasks may hold a database, whose encryption library must outlive it; a thread that still reads the terminal
        // must not hold up the end for ever.
        runtime.shutdown_timeout(SHUTDOWN_MAX);
        result
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gureum: {}", output::printable(&format!("{error:#}")));
            if is_revoked(&error) {
                eprintln!(
                    "gureum: its history stays here; to use it again, link it from a new home (gureum link --help)"
                );
            }
            if has_ended(&error) {
                eprintln!(
                    "gureum: its history stays here (gureum history); it was deleted, or its phone number and handle were \
                     registered anew. If that was not you, ask your telephone company and the server's operator; to talk \
                     again, register in another home"
                );
            }
            if is_gone_back(&error) { ExitCode::from(GONE_BACK) } else { ExitCode::FAILURE }
        }
    }
}

fn runtime(args: &Args) -> anyhow::Result<Runtime> {
    let mut builder = match &args.command {
        Command::Load(load) if load.threads() > 1 => {
            let mut builder = Builder::new_multi_thread();
            builder.worker_threads(load.threads());
            builder
        }
        // One connection needs one thread, and one thread is cheaper than two.
        _ => Builder::new_current_thread(),
    };
    Ok(builder.enable_all().build()?)
}

async fn run(args: Args) -> anyhow::Result<()> {
    let Args { home, passphrase_file, passphrase, json, command } = args;
    let output = Output::new(json);
    let home = Home { directory: home, passphrase_file, passphrase };
    match command {
        Command::Register(args) => Box::pin(register::run(&home, output, args)).await,
        Command::Link(args) => Box::pin(link::run(&home, output, args)).await,
        Command::Devices(args) => devices::run(&home, output, args).await,
        Command::Recover(args) => Box::pin(recover::run(&home, output, args)).await,
        Command::Send(args) => send::run(&home, output, args).await,
        Command::Receive(args) => Box::pin(receive::run(&home, output, args)).await,
        Command::History(args) => history::run(&home, output, args).await,
        Command::Chat(args) => Box::pin(chat::run(&home, output, args)).await,
        Command::Read(args) => Box::pin(read::run(&home, output, args)).await,
        Command::Settings(args) => settings::run(&home, output, args).await,
        Command::Group(args) => Box::pin(group::run(&home, output, args)).await,
        Command::Push(args) => Box::pin(push::run(&home, output, args)).await,
        Command::Phone(args) => Box::pin(phone::run(&home, output, args)).await,
        Command::Requests(args) => Box::pin(requests::run(&home, output, args)).await,
        Command::Mute(args) => Box::pin(mute::mute(&home, output, args)).await,
        Command::Unmute(args) => Box::pin(mute::unmute(&home, output, args)).await,
        Command::Block(args) => Box::pin(mute::block(&home, output, args)).await,
        Command::Unblock(args) => Box::pin(mute::unblock(&home, output, args)).await,
        Command::Account(args) => Box::pin(account::run(&home, output, args)).await,
        Command::Whoami => whoami::run(&home, output).await,
        Command::SafetyNumber(args) => safety_number::run(&home, output, args).await,
        Command::Restart(args) => Box::pin(restart::run(&home, output, args)).await,
        Command::Load(args) => Box::pin(load::run(output, args)).await,
    }
}

fn is_gone_back(error: &anyhow::Error) -> bool {
    error.downcast_ref::<ClientError>().is_some_and(ClientError::is_gone_back)
}

fn is_revoked(error: &anyhow::Error) -> bool {
    error.downcast_ref::<ClientError>().and_then(ClientError::code) == Some(Code::DeviceRevoked)
}

/// Whether the server has closed the connection because this account is there no more.
fn has_ended(error: &anyhow::Error) -> bool {
    matches!(
        error.downcast_ref::<ClientError>(),
        Some(ClientError::Link(LinkError::Closed { code: Code::AccountGone, .. }))
    )
}

/// Whoever read the output has seen enough.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let is = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    };
    error.chain().any(is)
}
