//! The proof of power cuts under load, run small; `make prove WHAT=power` runs it large.

use gureum_tests::disk::{FileSystem, LoopDisk};
use gureum_tests::prove::homes;
use gureum_tests::prove::power::{Options, keys_without_sync, run};

fn on(file_system: FileSystem) {
    // Each step of a write and of a start once, and the store without its syncs, which must be found out.
    let options = Options { rounds: 26, short_rounds: 0, first_starts: 1, on: vec![file_system], tells: false };
    let Some(report) = run(&options) else { return };
    assert!(report.on[0].usual.at_steps.iter().all(|(_, ends)| *ends == 1), "{report:?}");
}

#[test]
fn what_was_acknowledged_survives_power_cuts_on_ext4() {
    on(FileSystem::Ext4);
}

#[test]
fn what_was_acknowledged_survives_power_cuts_on_xfs() {
    on(FileSystem::Xfs);
}

#[test]
fn keys_that_are_not_synced_are_found_out() {
    let Some(disk) = LoopDisk::make(FileSystem::Ext4, 2_048) else { return };
    assert!(keys_without_sync(disk), "a cut that harms no unsynced key is no cut");
}

#[test]
fn homes_survive_power_cuts_while_people_send_and_receive() {
    for on in [FileSystem::Ext4, FileSystem::Xfs] {
        let Some(report) = homes::run(&homes::Options { cuts: 4, on, tells: false }) else { return };
        println!("{report:?}");
        assert!(report.messages >= report.told_sent && report.told_sent >= 4, "{report:?}");
    }
}
