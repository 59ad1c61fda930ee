//! A disk that fills up, turns read-only, refuses to sync or breaks under its file system: what the server then says and does.

use std::time::Duration;

use super::books::Tally;
use super::crash::Crashes;
use crate::World;
use crate::disk::{FileSystem, LoopDisk, SmallDisk};
use crate::wait::{SOON, eventually};

/// Room of a disk that is filled, or whose promise its memory does not keep.
const MEGABYTES: u64 = 320;

/// Bodies that fill the room that a log has set aside for itself, and those of other times.
const LARGE_BYTES: usize = 60 * 1024;
const SMALL_BYTES: usize = 200;

/// How long a server that nobody uses may take to notice what its disk has become: a round, and a machine under load.
const IDLE_NOTICED: Duration = Duration::from_secs(15);

/// How long a server may take to be ready again once there is room.
const RECOVERED: Duration = Duration::from_secs(60);

/// What was seen.
#[derive(Debug, serde::Serialize)]
pub struct Report {
    /// What happened to the disk, what the server said when it ended or on `/readyz`, and the books at the end.
    pub seen: Vec<Seen>,
}

/// One fault.
#[derive(Debug, serde::Serialize)]
pub struct Seen {
    /// What happened to the disk.
    pub fault: &'static str,
    /// What the server said of it.
    pub said: String,
    /// Whether the same process went on when the fault had passed; else it ended with exit code 1 and was started anew.
    pub same_process: bool,
    /// The books at the end.
    pub tally: Tally,
}

/// Runs all of it; `None` where no disk can be mounted.
///
/// # Panics
/// When the server acknowledges what it can't store, says nothing, stays when it should end, or does not recover.
#[must_use]
pub fn run() -> Option<Report> {
    let seen = vec![full()?, read_only_by_error()?, failing_sync(FileSystem::Xfs)?, broken_device()?];
    Some(Report { seen })
}

/// A full disk: refusals, not ready, and the same process goes on when there is room.
#[must_use]
pub fn full() -> Option<Seen> {
    let mut crashes = Crashes::start(Some(LoopDisk::make(FileSystem::Ext4, MEGABYTES)?), None);
    crashes.acknowledge(20);
    crashes.disk().fill();
    // The log has some room of its own left.
    crashes.fleet().send_bodies_of(LARGE_BYTES);
    eventually("sends are refused", RECOVERED, || (crashes.fleet().books().refusals() > 0).then_some(()));
    let said = eventually("not ready", SOON, || {
        let (is_ready, said) = crashes.world().admin().ready();
        (!is_ready && said.contains("No space left")).then_some(said)
    });
    let healthy = eventually("the metric says so", SOON, || {
        let healthy = crashes.world().admin().count("gureum_store_healthy");
        (healthy == 0).then_some(healthy)
    });
    assert_eq!(healthy, 0);
    crashes.fleet().send_bodies_of(SMALL_BYTES);
    crashes.disk().make_room();
    eventually("ready again", RECOVERED, || crashes.world().admin().ready().0.then_some(()));
    Some(Seen { fault: "full", said, same_process: true, tally: crashes.settle() })
}

/// Ext4 finds an error and turns read-only: the server stores nothing more and ends, can't be started, and can when the disk
/// is mended.
///
/// No fsync is under way when it does so: to such a one the kernel may answer that all is well, and lose what it was for.
#[must_use]
pub fn read_only_by_error() -> Option<Seen> {
    let mut crashes = Crashes::start(Some(LoopDisk::make(FileSystem::Ext4, MEGABYTES)?), None);
    crashes.acknowledge(20);
    crashes.come_to_rest();
    let stored = |crashes: &Crashes| (crashes.fleet().books().acknowledged(), crashes.fleet().books().position());
    let before = stored(&crashes);
    crashes.disk().find_error();
    crashes.fleet().send();
    let said = ends_by_itself(&mut crashes);
    assert!(crashes.fleet().books().unanswered() > 0, "something was sent");
    assert_eq!(stored(&crashes), before, "nothing was acknowledged or delivered since");
    assert!(said.contains("Read-only file system") || said.contains("Input/output error"), "{said}");
    let (status, said_at_start) = crashes.world_mut().restart_in_vain();
    assert_eq!(status.code(), Some(1), "{said_at_start}");
    assert!(said_at_start.contains("Read-only file system"), "{said_at_start}");
    crashes.disk().come_back();
    crashes.restart();
    Some(Seen { fault: "read-only by an error of ext4", said, same_process: false, tally: crashes.settle() })
}

/// The same under a server that nobody uses: it notices by itself, says so, and ends at the next write.
///
/// What it says on `/readyz`.
#[must_use]
pub fn read_only_when_idle() -> Option<String> {
    let disk = LoopDisk::make(FileSystem::Ext4, MEGABYTES)?;
    let data_dir = disk.path().join("server");
    let mut world = World::start_with(crate::Options { data_dir: Some(data_dir), ..crate::Options::default() });
    let admin = world.admin();
    eventually("ready", SOON, || (admin.ready().0 && admin.count("gureum_store_healthy") == 1).then_some(()));
    disk.find_error();
    eventually("not ready", IDLE_NOTICED, || (!admin.ready().0).then_some(()));
    let is_unhealthy = || (admin.count("gureum_store_healthy") == 0).then_some(());
    eventually("the metric says so", SOON, is_unhealthy);
    assert!(world.has_ended().is_none(), "nothing was lost: it waits for the operator");
    // What was being written when it turned so has failed with another error.
    let says_so = || world.log().contains("Read-only file system").then_some(());
    eventually("the log says so", IDLE_NOTICED, says_so);
    let names_it = || Some(admin.ready().1).filter(|said| said.contains("Read-only file system"));
    let said = eventually("readiness says so", SOON, names_it);
    let person = world.stranger("alice");
    let registered = person.run(&["register", &world.invite(1), "--handle", "alice"]);
    assert_ne!(registered.code, Some(0), "nothing is acknowledged that is not on the disk");
    let status = eventually("it ends at the next write", SOON, || world.has_ended());
    assert_eq!(status.code(), Some(1), "{}", world.log());
    disk.come_back();
    world.restart();
    assert_eq!(person.run(&["register", &world.invite(1), "--handle", "alice"]).code, Some(0), "mended");
    Some(said)
}

/// A disk that is mounted read-only is refused at start, in one sentence.
#[must_use]
pub fn read_only_start() -> Option<String> {
    let disk = LoopDisk::make(FileSystem::Ext4, MEGABYTES)?;
    let data_dir = disk.path().join("server");
    let mut world = World::start_with(crate::Options { data_dir: Some(data_dir), ..crate::Options::default() });
    assert!(world.stop().success());
    disk.set_read_only(true);
    let (status, said) = world.restart_in_vain();
    assert_eq!(status.code(), Some(1), "{said}");
    disk.set_read_only(false);
    world.restart();
    assert!(world.admin().ready().0);
    drop(world);
    Some(said)
}

/// An fsync that fails: nothing is acknowledged after it, and the server ends, for nobody knows what is on the disk. On
/// ext4 the one that is under way during the shutdown may claim success for what is then lost; xfs does not lie.
#[must_use]
pub fn failing_sync(file_system: FileSystem) -> Option<Seen> {
    let mut crashes = Crashes::start(Some(LoopDisk::make(file_system, 2_048)?), None);
    crashes.acknowledge(20);
    crashes.disk().cut();
    let said = ends_by_itself(&mut crashes);
    assert!(said.contains("Input/output error"), "{said}");
    crashes.disk().come_back();
    crashes.restart();
    Some(Seen { fault: "an fsync that fails", said, same_process: false, tally: crashes.settle() })
}

/// A device that fails under its file system, since what it lies on has less room than it promises.
#[must_use]
pub fn broken_device() -> Option<Seen> {
    let below = SmallDisk::mount(160)?;
    let mut crashes = Crashes::start(Some(LoopDisk::make_in(below.path(), FileSystem::Ext4, MEGABYTES)?), None);
    crashes.acknowledge(20);
    below.fill();
    let said = ends_by_itself(&mut crashes);
    below.make_room();
    crashes.disk().come_back();
    crashes.restart();
    let seen = Seen { fault: "a device that fails", said, same_process: false, tally: crashes.settle() };
    // The file system before the one that it lies on.
    drop(crashes);
    drop(below);
    Some(seen)
}

/// The server ends with exit code 1 and says why.
fn ends_by_itself(crashes: &mut Crashes) -> String {
    let status = crashes.wait_for_end();
    let log = crashes.world().log();
    assert_eq!(status.code(), Some(1), "{log}");
    let said = log.lines().rev().find(|line| line.contains("its store failed")).unwrap_or_default().to_owned();
    assert!(!said.is_empty(), "{log}");
    said
}
