//! Backups of a server that takes its copy back meanwhile, as one does that stops.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::io::Write as _;
use std::os::unix::net::UnixListener;
use std::sync::mpsc;

use super::*;

/// Copies the database of a server in whose copy these files are when it is read. The server keeps the connection until
/// the end, or closes it before the files are looked at.
fn copied(files: &[&str], is_kept: bool) -> Result<usize, String> {
    let directory = tempfile::tempdir().unwrap();
    let (data_dir, to) = (directory.path().join("d"), directory.path().join("to"));
    let copy = data_dir.join("checkpoint");
    fs::create_dir_all(&copy).unwrap();
    let _lock = format::lock(&data_dir).unwrap();
    files.iter().for_each(|name| fs::write(copy.join(name), name).unwrap());
    let listener = UnixListener::bind(data_dir.join(SOCKET)).unwrap();
    let (end, ended) = mpsc::channel::<()>();
    let serving = std::thread::spawn(move || {
        let (mut connection, _) = listener.accept().unwrap();
        let mut request = vec![0; CHECKPOINT.len()];
        connection.read_exact(&mut request).unwrap();
        let answer = serde_json::to_string(&Answer::Path(copy)).unwrap();
        connection.write_all(format!("{answer}\n").as_bytes()).unwrap();
        let _ = ended.recv();
    });
    let source = Source::open(&data_dir).unwrap();
    let copy = || source.copy(&data_dir, &to).map(|()| fs::read_dir(&to).unwrap().count());
    let leave = || {
        drop(end);
        serving.join().unwrap();
    };
    let copied = if is_kept {
        let copied = copy();
        leave();
        copied
    } else {
        leave();
        copy()
    };
    copied.map_err(|error| error.to_string())
}

#[test]
fn a_copy_that_the_server_takes_back_is_no_backup_however_much_of_it_was_read() {
    let all = ["000004.log", "000009.sst", "CURRENT", "MANIFEST-000001"];
    assert_eq!(copied(&all, true), Ok(all.len()));
    for left in [&all[..], &all[..2], &[]] {
        let said = copied(left, false).unwrap_err();
        assert!(said.contains("took its copy of the database back"), "{said}");
    }
}
