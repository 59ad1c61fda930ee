//! Two network namespaces of the kernel with a cable between them: for what a program on loopback cannot do to another.

use std::fs::File;
use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sched::{CloneFlags, setns};

use crate::skip::skipped;

/// Where the server is.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// Where clients are at first.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
/// Where clients may move to.
pub const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 3);

static MADE: AtomicU32 = AtomicU32::new(0);

/// Two namespaces and the cable.
#[derive(Debug)]
pub struct Cable {
    server: String,
    clients: String,
}

impl Cable {
    /// Makes them; `None`, with a line that says so, where this process may not.
    #[must_use]
    pub fn lay() -> Option<Self> {
        let id = format!("{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let cable = Self { server: format!("gureum-s-{id}"), clients: format!("gureum-c-{id}") };
        if let Err(why) = ip(&["netns", "add", &cable.server]) {
            skipped("a network of its own needs the right to make one, and iproute2", &why);
            return None;
        }
        let (server, clients) = (cable.server.as_str(), cable.clients.as_str());
        run(&["netns", "add", clients]);
        run(&["-n", server, "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", clients]);
        for (namespace, address) in [(server, SERVER), (clients, CLIENT)] {
            run(&["-n", namespace, "address", "add", &format!("{address}/24"), "dev", "cable"]);
            run(&["-n", namespace, "link", "set", "lo", "up"]);
            run(&["-n", namespace, "link", "set", "cable", "up"]);
        }
        Some(cable)
    }

    /// Moves this thread, and whatever it starts from now on, to the server's end.
    pub fn enter(&self) {
        let namespace = File::open(format!("/run/netns/{}", self.server)).unwrap();
        setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
    }

    /// What a command line begins with to run at the clients' end.
    #[must_use]
    pub fn at_clients(&self) -> Vec<String> {
        ["ip", "netns", "exec", &self.clients].map(str::to_owned).to_vec()
    }

    /// Takes the clients' address away and gives them another.
    pub fn move_clients(&self) {
        run(&["-n", &self.clients, "address", "delete", &format!("{CLIENT}/24"), "dev", "cable"]);
        run(&["-n", &self.clients, "address", "add", &format!("{ELSEWHERE}/24"), "dev", "cable"]);
    }

    /// From now on packets longer than this are lost on their way to the clients, without a word to the server.
    pub fn narrow(&self, mtu_bytes: usize) {
        run(&["-n", &self.clients, "link", "set", "cable", "mtu", &mtu_bytes.to_string()]);
    }

    /// Pulls the cable out of the server.
    pub fn pull(&self) {
        run(&["-n", &self.server, "link", "set", "cable", "down"]);
    }

    /// Puts it in again.
    pub fn plug(&self) {
        run(&["-n", &self.server, "link", "set", "cable", "up"]);
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        for namespace in [&self.server, &self.clients] {
            let _ = ip(&["netns", "delete", namespace]);
        }
    }
}

fn ip(args: &[&str]) -> Result<(), String> {
    match Command::new("ip").args(args).output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!("ip {args:?}: {}", String::from_utf8_lossy(&output.stderr))),
        Err(error) => Err(format!("ip: {error}")),
    }
}

#[track_caller]
fn run(args: &[&str]) {
    ip(args).unwrap();
}
