//! Whom the server may call: a device that names an endpoint must not make it knock inside the operator's network.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};

use http::Uri;
use hyper_util::client::legacy::connect::dns::Name;
use tokio::sync::Semaphore;
use tower_service::Service;

/// Names that are looked up at a time. The system's resolver blocks a thread for up to half a minute for each.
const LOOK_UPS_MAX: usize = 32;

/// Of those, look-ups of one name: whoever has named one whose server hangs holds up nobody else's.
const LOOK_UPS_OF_A_NAME_MAX: usize = 2;

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

/// Looks up names, and keeps of what they stand for what may be called: asking at connection time, about the very
/// addresses that are connected to, leaves no room for a name that answers differently the second time.
#[derive(Clone)]
pub(super) struct Resolver {
    reach: Reach,
    look_ups: Arc<Semaphore>,
    /// The places of each name that is being looked up or waits for it: no more names than requests are under way.
    of_names: Arc<Mutex<HashMap<String, Weak<Semaphore>>>>,
}

impl Resolver {
    pub(super) fn new(reach: Reach) -> Self {
        Self { reach, look_ups: Arc::new(Semaphore::new(LOOK_UPS_MAX)), of_names: Arc::default() }
    }

    /// The places of a name.
    fn of_name(&self, name: &Name) -> Arc<Semaphore> {
        let mut of_names = self.of_names.lock().unwrap_or_else(PoisonError::into_inner);
        of_names.retain(|_, places| places.strong_count() > 0);
        let places = of_names.entry(name.as_str().to_ascii_lowercase()).or_default();
        places.upgrade().unwrap_or_else(|| {
            let fresh = Arc::new(Semaphore::new(LOOK_UPS_OF_A_NAME_MAX));
            *places = Arc::downgrade(&fresh);
            fresh
        })
    }
}

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<std::vec::IntoIter<SocketAddr>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let (reach, look_ups, of_name) = (self.reach, Arc::clone(&self.look_ups), self.of_name(&name));
        Box::pin(async move {
            // That of the name first: who waits for it takes no place from other names.
            let place_of_name = of_name.acquire_owned().await.map_err(io::Error::other)?;
            let place = look_ups.acquire_owned().await.map_err(io::Error::other)?;
            let look_up = tokio::task::spawn_blocking(move || {
                // Held by the thread: a look-up that nobody waits for any more still takes one.
                let _places = (place, place_of_name);
                let found = (name.as_str(), 0).to_socket_addrs()?;
                let admitted = found.filter(|address| reach.admits(address.ip()));
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

    #[tokio::test]
    async fn a_name_whose_look_ups_hang_holds_up_no_other() {
        let mut resolver = Resolver::new(Reach::Anywhere);
        let name = |text: &str| text.parse::<Name>().unwrap();
        let hangs = resolver.of_name(&name("hangs.example.org"));
        let held = hangs.acquire_many(u32::try_from(LOOK_UPS_OF_A_NAME_MAX).unwrap()).await.unwrap();
        // However it is written.
        let mut waiting = resolver.call(name("HANGS.example.org"));
        let found = tokio::select! {
            biased;
            ended = &mut waiting => panic!("it is to wait: {:?}", ended.map(Iterator::count)),
            found = resolver.call(name("localhost")) => found,
        };
        assert!(found.unwrap().count() > 0);
        assert_eq!(resolver.look_ups.available_permits(), LOOK_UPS_MAX, "who waits for a name takes no place");
        drop((held, waiting));
        drop(hangs);
        drop(resolver.of_name(&name("localhost")));
        assert_eq!(resolver.of_names.lock().unwrap().len(), 1, "names that nobody looks up are forgotten");
    }

    #[tokio::test]
    async fn an_address_in_an_old_spelling_is_seen_for_what_it_is() {
        for spelling in ["127.1", "2130706433", "0x7f.1"] {
            let refused = Resolver::new(Reach::Public).call(spelling.parse().unwrap()).await;
            assert!(refused.is_err(), "{spelling}");
        }
    }
}
