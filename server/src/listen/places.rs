//! The places of connections that have not proven themselves: so many in all, so many for each address, and so many
//! handshakes whose address may be a lie.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard};

use super::pressure::{Pressure, Turn};
use crate::limits::{UNPROVEN_MAX, UNPROVEN_PER_ADDRESS_MAX};

/// Who is inside without a proof.
#[derive(Debug, Default)]
pub(super) struct Places {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    addresses: HashMap<IpAddr, usize>,
    taken: usize,
    pressure: Pressure,
}

/// What to do with somebody who connects.
#[derive(Debug)]
pub(super) enum Admission {
    /// Begin the handshake.
    Enter(Place),
    /// Ask for the address to be proven: answer with a Retry.
    Validate,
    /// Too many are here without a proof.
    Full,
}

/// A place among those who have not proven themselves; given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    address: IpAddr,
    /// A handshake whose address is not proven.
    is_unvalidated: bool,
}

impl Places {
    /// Lets somebody in, or says why not, and whether addresses are to be proven from now on.
    pub(super) fn enter(self: &Arc<Self>, address: IpAddr, is_validated: bool) -> (Admission, Option<Turn>) {
        let address = network(address);
        let mut state = self.lock();
        let count = state.addresses.get(&address).copied().unwrap_or_default();
        if state.taken >= UNPROVEN_MAX || count >= UNPROVEN_PER_ADDRESS_MAX {
            // Others may have written this address on their packets: its owner still gets an answer, and from it a
            // connection as soon as a place is free.
            return (if is_validated { Admission::Full } else { Admission::Validate }, None);
        }
        let (is_admitted, turn) = if is_validated { (true, None) } else { state.pressure.admit() };
        if !is_admitted {
            return (Admission::Validate, turn);
        }
        state.taken += 1;
        *state.addresses.entry(address).or_default() += 1;
        let place = Place { places: Arc::clone(self), address, is_unvalidated: !is_validated };
        (Admission::Enter(place), turn)
    }

    /// A second has passed.
    pub(super) fn tick(&self) -> Option<Turn> {
        self.lock().pressure.tick()
    }

    /// Handshakes in flight with addresses that are not proven.
    pub(super) fn unvalidated(&self) -> usize {
        self.lock().pressure.unvalidated()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code panics while it holds the places")
    }
}

impl Place {
    /// The handshake is done, which proves the address.
    pub(super) fn validated(&mut self) {
        if std::mem::take(&mut self.is_unvalidated) {
            self.places.lock().pressure.end();
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.validated();
        let mut state = self.places.lock();
        state.taken = state.taken.saturating_sub(1);
        if let Some(count) = state.addresses.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                state.addresses.remove(&self.address);
            }
        }
    }
}

/// What one customer of a provider has: a single address of IPv4, but 2^64 of IPv6.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    const CUSTOMER: u128 = u128::MAX << 64;
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & CUSTOMER)),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::UNVALIDATED_HANDSHAKES_MAX;

    fn proven(places: &Arc<Places>, address: IpAddr) -> Option<Place> {
        match places.enter(address, true).0 {
            Admission::Enter(place) => Some(place),
            Admission::Validate | Admission::Full => None,
        }
    }

    #[test]
    fn an_address_that_proves_nothing_takes_no_more_places_than_its_share() {
        let places = Arc::new(Places::default());
        let (greedy, other) = (IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 2]));
        let mut taken: Vec<_> = (0..UNPROVEN_PER_ADDRESS_MAX).filter_map(|_| proven(&places, greedy)).collect();
        assert_eq!(taken.len(), UNPROVEN_PER_ADDRESS_MAX);
        assert!(proven(&places, greedy).is_none());
        assert!(proven(&places, other).is_some());
        taken.pop();
        assert!(proven(&places, greedy).is_some());
        taken.clear();
        assert!(places.lock().addresses.is_empty(), "nothing is kept of an address that is gone");
        assert_eq!(places.lock().taken, 0);
        assert_eq!(places.unvalidated(), 0);
    }

    #[test]
    fn many_addresses_together_take_no_more_than_all_places() {
        let places = Arc::new(Places::default());
        let address = |index: usize| IpAddr::from(u32::try_from(index).unwrap().to_be_bytes());
        let taken: Vec<_> = (0..UNPROVEN_MAX + 10).filter_map(|index| proven(&places, address(index))).collect();
        assert_eq!(taken.len(), UNPROVEN_MAX);
        assert!(matches!(places.enter(address(0), false).0, Admission::Validate));
    }

    #[test]
    fn addresses_of_one_ipv6_customer_count_as_one_and_mapped_ones_as_what_they_are() {
        for (address, expected) in [
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
            ("2001:db8:1:2:ffff::1", "2001:db8:1:2::"),
            ("2001:db8:1:3::1", "2001:db8:1:3::"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("192.0.2.7", "192.0.2.7"),
        ] {
            assert_eq!(network(address.parse().unwrap()), expected.parse::<IpAddr>().unwrap(), "{address}");
        }
    }

    #[test]
    fn who_lies_about_addresses_cannot_take_the_places_of_who_has_them() {
        let places = Arc::new(Places::default());
        let victim = IpAddr::from([192, 0, 2, 7]);
        let spoofed: Vec<_> = (0..2 * UNPROVEN_PER_ADDRESS_MAX).map(|_| places.enter(victim, false).0).collect();
        let entered = spoofed.iter().filter(|admission| matches!(admission, Admission::Enter(_))).count();
        assert_eq!(entered, UNVALIDATED_HANDSHAKES_MAX);
        let mut place = proven(&places, victim).expect("its owner has shown that it can answer");
        place.validated();
        drop(spoofed);
        assert_eq!(places.unvalidated(), 0);
    }

    #[test]
    fn a_handshake_that_is_done_no_longer_presses() {
        let places = Arc::new(Places::default());
        let address = IpAddr::from([192, 0, 2, 7]);
        let (Admission::Enter(mut place), None) = places.enter(address, false) else { panic!("there is room") };
        assert_eq!(places.unvalidated(), 1);
        place.validated();
        assert_eq!(places.unvalidated(), 0);
        drop(place);
        assert_eq!(places.unvalidated(), 0);
    }
}
