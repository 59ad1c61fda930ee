//! Several groups and a larger one, small: what the proof does with a hundred of a hundred, and with a thousand.

use gureum_tests::prove::groups::{Options, run};

#[test]
fn every_member_of_every_group_has_what_was_said_while_it_was_one_and_nothing_else() {
    let report = run(&Options {
        groups: 3,
        members: 6,
        large: 30,
        accounts: 30,
        connected: 6,
        late: 3,
        messages: 4,
        batch: 3,
        seed: 1,
        tells: false,
    });
    println!("{report:#?}");
    let large = report.large.as_ref().expect("there is a large one");
    assert!(report.histories >= 18 && report.messages > 100, "{report:#?}");
    for speeds in [&report.groups, large] {
        assert_eq!(speeds.create.count, speeds.groups, "{speeds:#?}");
        assert!(speeds.accept.count > 4 * speeds.groups && speeds.delivered_per_s.is_some(), "{speeds:#?}");
        assert!(speeds.bytes.welcome[0] > speeds.bytes.commit[0], "a Welcome brings the tree: {speeds:#?}");
    }
    assert!(large.bytes.tree[1] > report.groups.bytes.tree[1], "{report:#?}");
    assert_eq!(report.groups.add_batch.count, 3);
}
