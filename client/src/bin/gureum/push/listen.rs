//! `gureum push listen`: sets this machine as the device's target, and prints the wake-ups that come.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use gureum_client::{Client, Ground, WakeUp};
use gureum_proto::{PushService, PushTarget};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::receiver::{Receiver, Serving};
use crate::args::ListenArgs;
use crate::home::Home;
use crate::output::{Line, Output};
use crate::signal::Interrupt;

/// Held by the process that listens, whose id it holds.
const LOCK: &str = "listener.lock";
/// The digits of a process id.
const PROCESS_ID_BYTES_MAX: u64 = 10;
/// Wake-ups that wait to be printed; the server sends one at a time.
const WAKE_UPS_MAX: usize = 16;
/// How long answers that are on their way may take at the end: a wake-up without one is sent again.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

pub(super) async fn run(home: &Home, output: Output, args: ListenArgs) -> anyhow::Result<()> {
    let mut interrupt = Interrupt::listen()?;
    let client = home.open().await?;
    let _alone = alone(&home.directory()?)?;
    let tls = match (&args.cert, &args.key) {
        (Some(cert), Some(key)) => Some(acceptor(cert, key)?),
        _ => None,
    };
    let offer = Box::pin(client.push_offer()).await?;
    let server_key = offer.vapid_key.filter(|_| offer.services.contains(&PushService::WebPush));
    let server_key = server_key.context("this server does not use Web Push; ask its operator to turn it on")?;
    let listener = TcpListener::bind(args.listen).await.with_context(|| format!("cannot listen on {}", args.listen))?;
    let base = base(args.url.as_deref(), tls.is_some(), listener.local_addr()?)?;
    let keys = client.push_receiver().await?;
    let (endpoint, target) = (keys.endpoint(&base), keys.target(&base, !args.silent));
    let (wakes, woken) = mpsc::channel(WAKE_UPS_MAX);
    let receiver = Receiver::new(keys, server_key, endpoint.clone(), Ground::system().clock, wakes);
    let (tasks, quit) = (TaskTracker::new(), CancellationToken::new());
    let serving = Serving { receiver: Arc::new(receiver), tls, tasks: tasks.clone(), quit: quit.clone() };
    tasks.spawn(serving.serve(listener));
    let result = match Box::pin(client.set_push_target(target.clone())).await {
        Ok(()) => tokio::select! {
            biased;
            () = interrupt.wait() => Ok(()),
            printed = print(output, &endpoint, woken, args.once) => printed,
        },
        Err(error) => Err(error.into()),
    };
    quit.cancel();
    tasks.close();
    // Whoever is slower than that is not waited for.
    let _ = tokio::time::timeout(LAST_ANSWERS, tasks.wait()).await;
    result.and(forget(&client, &target).await)
}

/// The right to listen for a home, which dies with the process: two that listen would take each other's target away.
fn alone(home: &Path) -> anyhow::Result<File> {
    let path = home.join(LOCK);
    let cannot = || format!("cannot use {}", path.display());
    let opened = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path);
    let mut file = opened.with_context(cannot)?;
    match file.try_lock() {
        Ok(()) => {
            // For whoever comes second.
            file.set_len(0).and_then(|()| write!(file, "{}", std::process::id())).with_context(cannot)?;
            Ok(file)
        }
        Err(TryLockError::WouldBlock) => {
            let mut id = String::new();
            let read = file.take(PROCESS_ID_BYTES_MAX).read_to_string(&mut id);
            let id = read.ok().and_then(|_| id.parse::<u32>().ok());
            let who = id.map_or_else(|| "another process".to_owned(), |id| format!("process {id}"));
            bail!("{who} listens for this home already, and a device has one target; end that one first")
        }
        Err(TryLockError::Error(error)) => Err(error).with_context(cannot),
    }
}

/// Nothing listens any more: unless another target was set meanwhile, nothing is to be sent here.
async fn forget(client: &Client, target: &PushTarget) -> anyhow::Result<()> {
    if client.push_target().await?.as_ref() == Some(target) {
        Box::pin(client.clear_push_target()).await?;
    }
    Ok(())
}

async fn print(output: Output, endpoint: &str, mut woken: mpsc::Receiver<WakeUp>, once: bool) -> anyhow::Result<()> {
    output.print_either(&Line::PushListening { endpoint }, &format!("waiting for wake-ups at {endpoint}"))?;
    while let Some(wake_up) = woken.recv().await {
        let text = match wake_up {
            WakeUp::Messages => "wake-up: there is something for you (`gureum receive`)",
            WakeUp::Expiring => "wake-up: something for you is about to expire (`gureum receive`)",
        };
        output.print_either(&Line::Wake { kind: wake_up.word() }, text)?;
        if once {
            break;
        }
    }
    Ok(())
}

/// The endpoint without its path: where the server finds this receiver.
fn base(url: Option<&str>, is_tls: bool, address: SocketAddr) -> anyhow::Result<String> {
    if let Some(url) = url {
        return Ok(url.to_owned());
    }
    let ip = address.ip();
    ensure!(!ip.is_unspecified(), "no server finds {address}: say with --url where it reaches this receiver");
    ensure!(
        is_tls || ip.is_loopback(),
        "at {address} this needs a certificate (--cert and --key), or a proxy that has one, and --url"
    );
    Ok(format!("{}://{address}", if is_tls { "https" } else { "http" }))
}

fn acceptor(cert: &Path, key: &Path) -> anyhow::Result<TlsAcceptor> {
    let chain = CertificateDer::pem_file_iter(cert).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let chain = chain.with_context(|| format!("cannot read the certificate {}", cert.display()))?;
    ensure!(!chain.is_empty(), "{} holds no certificate", cert.display());
    let private =
        PrivateKeyDer::from_pem_file(key).with_context(|| format!("cannot read the key {}", key.display()))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context("cannot set TLS up")?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .with_context(|| format!("the key {} does not fit the certificate {}", key.display(), cert.display()))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail by a panic")]

    use super::*;

    #[track_caller]
    fn is_found_at(url: Option<&str>, is_tls: bool, address: &str, expected: Option<&str>) {
        let found = base(url, is_tls, address.parse().unwrap());
        assert_eq!(found.ok().as_deref(), expected, "{address}");
    }

    #[test]
    fn is_found_where_it_listens_unless_nobody_could() {
        is_found_at(None, false, "127.0.0.1:8080", Some("http://127.0.0.1:8080"));
        is_found_at(None, false, "[::1]:8080", Some("http://[::1]:8080"));
        is_found_at(None, true, "192.0.2.1:8443", Some("https://192.0.2.1:8443"));
        is_found_at(None, false, "192.0.2.1:8080", None);
        is_found_at(None, true, "0.0.0.0:8443", None);
        is_found_at(Some("https://me.example.org"), false, "0.0.0.0:8080", Some("https://me.example.org"));
    }

    #[test]
    fn one_process_listens_for_a_home_and_the_next_after_it() {
        let home = tempfile::tempdir().unwrap();
        let first = alone(home.path()).unwrap();
        let refused = alone(home.path()).unwrap_err().to_string();
        assert!(refused.contains(&format!("process {} ", std::process::id())), "{refused}");
        drop(first);
        drop(alone(home.path()).unwrap());
    }

    #[test]
    fn says_which_file_is_none_of_a_certificate_or_a_key() {
        let home = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = home.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
        let (cert, pem) = (write("cert.pem", &certificate.pem()), write("key.pem", &key.serialize_pem()));
        let (empty, other) = (write("empty.pem", ""), write("other.pem", "no PEM"));
        assert!(acceptor(&cert, &pem).is_ok());
        let why = |cert: &Path, key: &Path| format!("{:#}", acceptor(cert, key).err().unwrap());
        assert!(why(&empty, &pem).contains("empty.pem holds no certificate"));
        assert!(why(&cert, &other).contains("other.pem"));
        assert!(why(&home.path().join("nowhere.pem"), &pem).contains("nowhere.pem"));
        let stranger = write("stranger.pem", &rcgen::KeyPair::generate().unwrap().serialize_pem());
        assert!(why(&cert, &stranger).contains("does not fit"));
    }
}
