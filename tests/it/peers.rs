//! Bad peers, few of them and for seconds: what the proof does at scale.

use std::time::Duration;

use gureum_tests::World;
use gureum_tests::prove::peers::{Force, KINDS, Options, run, spoof};
use gureum_tests::wait::eventually;

use crate::alarms::firing;

#[test]
fn good_users_talk_on_and_the_server_keeps_its_bounds_among_bad_peers_of_every_kind() {
    let force = Force { connections: 600, connections_per_s: 300, devices: 2, datagrams_per_s: 1_000 };
    let report = run(&Options {
        kinds: KINDS.to_vec(),
        rounds: 1,
        phase: Duration::from_secs(1),
        force,
        pairs: 4,
        every: Duration::from_millis(20),
        tells: false,
    });
    println!("{report:#?}");
    for seen in &report.kinds {
        assert!(seen.done_per_s > 0.0, "they did nothing: {seen:#?}");
        // Other tests run beside this one; how much slower it gets is for the proof to say, on a quiet machine.
        assert!(seen.attack_p99_us < 5_000_000 && seen.newcomer_max_us < 10_000_000, "{seen:#?}");
    }
}

/// The largest datagram of a handshake.
const DATAGRAM_BYTES: usize = 1_200;

#[test]
fn handshakes_from_addresses_that_nobody_has_cost_no_memory_and_honest_clients_get_in() {
    let world = World::start();
    assert!(firing(world.admin()).is_empty());
    let seen = std::thread::scope(|scope| {
        let flood = scope.spawn(|| spoof(&world, 2_000, Duration::from_secs(4)));
        // The minutes that the alarm's window has are one look here.
        let is_told = || (firing(world.admin()) == ["GureumFlooded"]).then_some(());
        eventually("the alarm", Duration::from_secs(20), is_told);
        flood.join().unwrap()
    });
    println!("{seen:#?}");
    let (retries, grown_kib) = (seen.retries, seen.grown_kib);
    assert!(retries > 500, "{retries} asked for their address");
    // 256 handshakes in flight, and the allocator's own.
    assert!(grown_kib < 48 * 1024, "{grown_kib} KiB");
    // RFC 9000 §8.1: three times what came, all that is sent again included, until the address is proven; the datagram
    // that crosses the bound still goes. It is this bound that holds: the server has more to say than it was told.
    for victim in &seen.victims {
        assert!(victim.received_bytes() <= 3 * victim.sent_bytes + DATAGRAM_BYTES, "{victim:?}");
        assert!(victim.received_bytes() > victim.sent_bytes, "{victim:?}");
    }
    // A Retry, and the list of versions: one datagram, smaller than the one that it answers. Between two waves of the
    // flood somebody may be believed.
    let (asked, believed): (Vec<_>, Vec<_>) =
        seen.victims_of_flood.iter().partition(|victim| victim.received.len() == 1);
    assert!(!asked.is_empty(), "{believed:?}");
    assert!(
        believed.iter().all(|victim| victim.received_bytes() <= 3 * victim.sent_bytes + DATAGRAM_BYTES),
        "{believed:?}"
    );
    for victim in asked.into_iter().chain(&seen.victims_of_versions) {
        assert_eq!(victim.received.len(), 1, "{victim:?}");
        assert!(victim.received_bytes() < victim.sent_bytes, "{victim:?}");
    }
    assert!(world.log().contains("must prove its address"), "the operator is told");
    let admin = world.admin();
    eventually("it is over when the flood is", Duration::from_secs(20), || {
        (admin.count("gureum_address_validation") == 0).then_some(())
    });
}
