//! Who sends much together gets calls for many datagrams, and nobody else does.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::io::ErrorKind;
use std::sync::Mutex;
use std::task::Waker;

use super::*;

/// What the system takes in one call.
const SYSTEM_MAX: usize = 10;

/// Takes everything, or nothing.
#[derive(Debug, Default)]
struct Sink {
    is_blocked: Mutex<bool>,
}

impl AsyncUdpSocket for Sink {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        unreachable!("nobody waits")
    }

    fn try_send(&self, _: &Transmit<'_>) -> io::Result<()> {
        if *self.is_blocked.lock().unwrap() { Err(ErrorKind::WouldBlock.into()) } else { Ok(()) }
    }

    fn poll_recv(&self, _: &mut Context<'_>, _: &mut [IoSliceMut<'_>], _: &mut [RecvMeta]) -> Poll<io::Result<usize>> {
        unreachable!("nobody reads")
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(SocketAddr::from(([127, 0, 0, 1], 1)))
    }

    fn max_transmit_segments(&self) -> usize {
        SYSTEM_MAX
    }

    fn max_receive_segments(&self) -> usize {
        SYSTEM_MAX
    }

    fn may_fragment(&self) -> bool {
        false
    }
}

/// A driver that sends, each time it runs, what it is told, and notes how many datagrams a call may have taken.
struct Bench {
    sink: Arc<Sink>,
    socket: Arc<Bursts>,
    driver: Driver,
    to_send: Arc<Mutex<Vec<usize>>>,
    allowed: Arc<Mutex<usize>>,
}

impl Bench {
    fn new() -> Self {
        let sink = Arc::<Sink>::default();
        let (to_send, allowed) = (Arc::<Mutex<Vec<usize>>>::default(), Arc::<Mutex<usize>>::default());
        let socket = Arc::new(Bursts(Arc::<Sink>::clone(&sink)));
        let future = {
            let (socket, to_send, allowed) = (Arc::clone(&socket), Arc::clone(&to_send), Arc::clone(&allowed));
            std::future::poll_fn(move |_| {
                *allowed.lock().unwrap() = socket.max_transmit_segments();
                to_send.lock().unwrap().drain(..).for_each(|datagrams| {
                    let _ = send(&socket, datagrams);
                });
                Poll::<()>::Pending
            })
        };
        Self { sink, socket, driver: Driver { future: Box::pin(future), together: 0 }, to_send, allowed }
    }

    /// Runs once, with calls for so many datagrams each; the answer is how many a call may take.
    fn run(&mut self, calls: &[usize]) -> usize {
        self.to_send.lock().unwrap().extend(calls);
        assert!(Pin::new(&mut self.driver).poll(&mut Context::from_waker(Waker::noop())).is_pending());
        *self.allowed.lock().unwrap()
    }
}

fn send(socket: &Bursts, datagrams: usize) -> io::Result<()> {
    let contents = vec![0; 1_200 * datagrams];
    let destination = SocketAddr::from(([127, 0, 0, 1], 2));
    let segment_size = (datagrams > 1).then_some(1_200);
    socket.try_send(&Transmit { destination, ecn: None, contents: &contents, segment_size, src_ip: None })
}

#[test]
fn datagrams_that_come_alone_leave_alone_however_many_they_are() {
    let mut bench = Bench::new();
    for _ in 0..10 * ALONE_MAX {
        assert_eq!(bench.run(&[1]), 1);
    }
}

#[test]
fn who_has_sent_enough_together_may_send_together() {
    let mut bench = Bench::new();
    let burst = [1; 4];
    for _ in 0..ALONE_MAX / burst.len() {
        assert_eq!(bench.run(&burst), 1);
    }
    assert_eq!(bench.run(&[3, 10]), SYSTEM_MAX);
    assert_eq!(bench.run(&[]), SYSTEM_MAX, "for good");
}

#[test]
fn what_the_system_did_not_take_is_not_counted() {
    let mut bench = Bench::new();
    *bench.sink.is_blocked.lock().unwrap() = true;
    bench.run(&[1; 2 * ALONE_MAX]);
    assert_eq!(bench.run(&[]), 1);
    *bench.sink.is_blocked.lock().unwrap() = false;
    bench.run(&[1; 2 * ALONE_MAX]);
    assert_eq!(bench.run(&[]), SYSTEM_MAX);
}

#[test]
fn one_connection_says_nothing_of_another_and_nothing_outside_of_them_is_held_back() {
    let (mut one, mut other) = (Bench::new(), Bench::new());
    one.run(&[1; ALONE_MAX]);
    send(&other.socket, ALONE_MAX).unwrap();
    assert_eq!((one.run(&[]), other.run(&[])), (SYSTEM_MAX, 1));
    assert_eq!(other.socket.max_transmit_segments(), SYSTEM_MAX);
}
