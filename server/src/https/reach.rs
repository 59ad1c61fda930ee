//! Whom the server may call: a device that names an endpoint must not make it knock inside the operator's network.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use http::Uri;
use hyper_util::client::legacy::connect::dns::Name;
use tower_service::Service;

use super::names::Names;

/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 8;

/// Which addresses may be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Those of the public internet, and never without TLS.
    Public,
    /// All, and those of this machine without TLS as well.
    Anywhere,
}

impl Reach {
    /// Whether this may be called, as far as its text says; a name is looked up when it is called.
    pub(super) fn allows(self, uri: &Uri) -> bool {
        let Some(host) = uri.host() else { return false };
        let literal = host.trim_matches(['[', ']']).parse::<IpAddr>().ok();
        match (self, uri.scheme_str()) {
            (_, Some("https")) => literal.is_none_or(|address| self.admits(address)),
            (Self::Anywhere, Some("http")) => literal.is_some_and(|address| address.is_loopback()),
            _ => false,
        }
    }

    fn admits(self, address: IpAddr) -> bool {
        match (self, address) {
            (Self::Anywhere, _) => true,
            (Self::Public, IpAddr::V4(address)) => is_public_v4(address),
            (Self::Public, IpAddr::V6(address)) => is_public_v6(address),
        }
    }
}

/// Whether it is none of the special-purpose addresses (RFC 6890, and IANA's registry).
fn is_public_v4(address: Ipv4Addr) -> bool {
    let is_special = address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_documentation();
    let is_reserved = match address.octets() {
        [0 | 240..=255, ..] | [192, 0, 0, _] | [192, 88, 99, _] | [198, 18 | 19, ..] => true,
        // Behind a provider's NAT (RFC 6598).
        [100, second, ..] => second & 0xc0 == 0x40,
        _ => false,
    };
    !is_special && !is_reserved
}

/// Whether it is global unicast (2000::/3) and none of the special-purpose addresses there. An address that stands for
/// one of IPv4 is what that one is.
fn is_public_v6(address: Ipv6Addr) -> bool {
    match address.segments() {
        // Mapped, translated (RFC 6052), 6to4 (RFC 3056).
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => {
            let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
            is_public_v4(Ipv4Addr::new(a, b, c, d))
        }
        // Of the IETF's protocols, Teredo among them; documentation.
        [0x2001, 0..=0x1ff | 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => false,
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

/// Finds the addresses of a name, and blocks for it.
type Find = dyn Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync;

/// Looks up names, and keeps of what they stand for what may be called: asking at connection time, about the very
/// addresses that are connected to, leaves no room for a name that answers differently the second time.
#[derive(Clone)]
pub(super) struct Resolver {
    reach: Reach,
    names: Arc<Names>,
    find: Arc<Find>,
}

impl Resolver {
    pub(super) fn new(reach: Reach) -> Self {
        Self::finding(reach, Arc::new(system))
    }

    fn finding(reach: Reach, find: Arc<Find>) -> Self {
        Self { reach, names: Arc::new(Names::new()), find }
    }
}

/// Asks the system's resolver.
fn system(name: &str) -> io::Result<Vec<SocketAddr>> {
    Ok((name, 0).to_socket_addrs()?.collect())
}

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<std::vec::IntoIter<SocketAddr>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let (reach, names, find) = (self.reach, Arc::clone(&self.names), Arc::clone(&self.find));
        Box::pin(async move {
            let key = name.as_str().trim_end_matches('.').to_ascii_lowercase();
            let places = names.places(&key, Instant::now()).await.map_err(io::Error::other)?;
            let look_up = tokio::task::spawn_blocking(move || {
                // Held by the thread: a look-up that nobody waits for any more still takes them.
                let _places = places;
                let started = Instant::now();
                let found = find(name.as_str());
                names.ended(&key, started.elapsed(), found.is_ok(), Instant::now());
                let admitted = found?.into_iter().filter(|address| reach.admits(address.ip()));
                Ok::<_, io::Error>(admitted.take(ADDRESSES_MAX).collect::<Vec<_>>())
            });
            let found = look_up.await.map_err(io::Error::other)??;
            if found.is_empty() {
                return Err(io::Error::new(io::ErrorKind::AddrNotAvailable, "no address of it may be called"));
            }
            Ok(found.into_iter())
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Condvar, Mutex};
    use std::time::Duration;

    use super::super::names::{LOOK_UPS_MAX, OF_A_SITE_MAX, OF_STRANGERS_MAX};
    use super::*;

    #[track_caller]
    fn public(address: &str, expected: bool) {
        assert_eq!(Reach::Public.admits(address.parse().unwrap()), expected, "{address}");
        assert!(Reach::Anywhere.admits(address.parse().unwrap()), "{address}");
    }

    #[test]
    fn addresses_of_the_public_internet_may_be_called() {
        for address in ["1.1.1.1", "17.188.143.34", "100.63.255.255", "100.128.0.1", "172.15.0.1", "192.0.1.1"] {
            public(address, true);
        }
        for address in ["2606:4700::1111", "2a00:1450:4001::200e", "::ffff:1.1.1.1", "64:ff9b::101:101"] {
            public(address, true);
        }
    }

    #[test]
    fn no_range_of_an_inner_network_may_be_called() {
        for address in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.255",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.1",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
        ] {
            public(address, false);
        }
    }

    #[test]
    fn no_inner_range_of_ipv6_may_be_called_in_any_dress() {
        for address in [
            "::",
            "::1",
            "::7f00:1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::a00:1",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "2002:a00:1::1",
            "2002:7f00:1::1",
            "3fff::1",
            "fc00::1",
            "fdff::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            public(address, false);
        }
    }

    #[track_caller]
    fn allows(uri: &str, public: bool, anywhere: bool) {
        let uri: Uri = uri.parse().unwrap();
        assert_eq!(Reach::Public.allows(&uri), public, "{uri}, public");
        assert_eq!(Reach::Anywhere.allows(&uri), anywhere, "{uri}, anywhere");
    }

    #[test]
    fn a_url_says_whether_it_may_be_called() {
        allows("https://push.example.org/x", true, true);
        allows("https://1.1.1.1/x", true, true);
        allows("https://[2606:4700::1111]:8443/x", true, true);
        allows("https://10.0.0.1/x", false, true);
        allows("https://[::1]/x", false, true);
        allows("http://127.0.0.1:8080/x", false, true);
        allows("http://[::1]:8080/x", false, true);
        allows("http://push.example.org/x", false, false);
        allows("http://localhost/x", false, false);
        allows("http://10.0.0.1/x", false, false);
        allows("ftp://push.example.org/x", false, false);
        allows("/x", false, false);
    }

    #[tokio::test]
    async fn a_name_of_this_machine_is_found_and_yet_not_called() {
        let name = || "localhost".parse::<Name>().unwrap();
        let found: Vec<_> = Resolver::new(Reach::Anywhere).call(name()).await.unwrap().collect();
        assert!(!found.is_empty() && found.iter().all(|address| address.ip().is_loopback()), "{found:?}");
        let refused = Resolver::new(Reach::Public).call(name()).await.map(Iterator::count);
        assert_eq!(refused.map_err(|error| error.kind()), Err(io::ErrorKind::AddrNotAvailable));
    }

    /// A system on which look-ups of names that begin with `hangs` end only with this.
    #[derive(Default)]
    struct Hanging(Arc<Gate>);

    #[derive(Default)]
    struct Gate {
        begun: AtomicUsize,
        is_open: Mutex<bool>,
        opened: Condvar,
    }

    impl Hanging {
        fn resolver(&self) -> Resolver {
            let gate = Arc::clone(&self.0);
            let find = move |name: &str| {
                if name.starts_with("hangs") {
                    gate.begun.fetch_add(1, Ordering::SeqCst);
                    let is_open = gate.is_open.lock().unwrap();
                    drop(gate.opened.wait_while(is_open, |is_open| !*is_open).unwrap());
                }
                Ok::<_, io::Error>(vec![SocketAddr::from(([192, 0, 2, 1], 0))])
            };
            Resolver::finding(Reach::Anywhere, Arc::new(find))
        }

        fn begun(&self) -> usize {
            self.0.begun.load(Ordering::SeqCst)
        }

        /// Waits until so many hang.
        async fn hang(&self, count: usize) {
            let begun = async {
                while self.begun() < count {
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(Duration::from_secs(20), begun).await.expect("they are begun");
        }
    }

    impl Drop for Hanging {
        fn drop(&mut self) {
            *self.0.is_open.lock().unwrap() = true;
            self.0.opened.notify_all();
        }
    }

    /// Looks up a name, which is found.
    async fn find(resolver: &Resolver, name: &str) {
        let found = resolver.clone().call(name.parse().unwrap());
        let found = tokio::time::timeout(Duration::from_secs(20), found).await.expect("it does not wait");
        assert_eq!(found.unwrap().count(), 1);
    }

    /// Begins to look up so many names.
    fn begin(resolver: &Resolver, count: usize, name: impl Fn(usize) -> String) {
        for number in 0..count {
            tokio::spawn(resolver.clone().call(name(number).parse().unwrap()));
        }
    }

    #[tokio::test]
    async fn names_that_hang_keep_out_nobody_who_is_known_to_answer() {
        let hanging = Hanging::default();
        let resolver = hanging.resolver();
        find(&resolver, "push.example.org").await;
        begin(&resolver, 2 * LOOK_UPS_MAX, |number| format!("hangs.site{number}.example"));
        hanging.hang(OF_STRANGERS_MAX).await;
        // However it is written.
        find(&resolver, "PUSH.example.org.").await;
        assert_eq!(hanging.begun(), OF_STRANGERS_MAX);
    }

    #[tokio::test]
    async fn names_of_one_site_that_hang_keep_out_nobody_else() {
        let hanging = Hanging::default();
        let resolver = hanging.resolver();
        begin(&resolver, LOOK_UPS_MAX, |number| format!("hangs{number}.example.org"));
        hanging.hang(OF_A_SITE_MAX).await;
        find(&resolver, "push.example.net").await;
        assert_eq!(hanging.begun(), OF_A_SITE_MAX);
    }

    #[tokio::test]
    async fn an_address_in_an_old_spelling_is_seen_for_what_it_is() {
        for spelling in ["127.1", "2130706433", "0x7f.1"] {
            let refused = Resolver::new(Reach::Public).call(spelling.parse().unwrap()).await;
            assert!(refused.is_err(), "{spelling}");
        }
    }
}
