//! A pair that talks as people's clients do: encryption, databases and all.

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::body;
use super::meter::SharedLane;
use super::pace::Pace;
use super::patience;
use super::setup::Pair;
use crate::client::{Client, ClientError, ClientEvent, ClientSession, Inbox, SessionOptions};
use crate::limits::LOAD_TAIL;
use crate::vault::Event;

/// Unreported events read at once.
const EVENTS_AT_ONCE: usize = 256;

/// Runs a pair to its end.
pub(super) async fn run(pair: Pair, pace: Pace, lane: SharedLane, bytes: usize) -> Result<(), ClientError> {
    let mut sender = patience::session(&pair.sender, SessionOptions { inbox: Inbox::Leave, reconnect: false }).await?;
    let mut receiver =
        patience::session(&pair.receiver, SessionOptions { inbox: Inbox::Take, reconnect: false }).await?;
    let (accepted, expected) = watch::channel(None);
    let sending = async {
        let result = Box::pin(send(&mut sender, &pair, pace.clone(), &lane, bytes)).await;
        let _ = accepted.send(Some(*result.as_ref().unwrap_or(&0)));
        result
    };
    let receiving = Box::pin(receive(&mut receiver, &pair.receiver, &pace, &lane, expected));
    let (sent, received) = tokio::join!(sending, receiving);
    sender.close().await;
    receiver.close().await;
    sent?;
    received
}

/// Sends until the end, waits for the answers, and says how many messages the receiver must get.
async fn send(
    session: &mut ClientSession,
    pair: &Pair,
    mut pace: Pace,
    lane: &SharedLane,
    bytes: usize,
) -> Result<u64, ClientError> {
    let commands = session.commands();
    let mut in_flight: JoinSet<(u64, Result<(), ClientError>)> = JoinSet::new();
    let mut accepted = 0;
    let give_up = pace.end() + LOAD_TAIL;
    loop {
        for due_ns in pace.due(Instant::now(), in_flight.len()) {
            let pending = commands.hand_over(pair.receiver_handle.clone(), body::text(due_ns, bytes)).await?;
            lane.lock().sent += 1;
            in_flight.spawn(async move { (due_ns, pending.result().await.map(drop)) });
        }
        let over = pace.is_over(Instant::now());
        if over && in_flight.is_empty() {
            return Ok(accepted);
        }
        let wake = if over { give_up } else { pace.wake(in_flight.len()).unwrap_or(pace.end()) };
        tokio::select! {
            biased;
            Some(answer) = in_flight.join_next() => {
                let (due_ns, result) = answer.map_err(|error| ClientError::Thread(error.to_string()))?;
                result?;
                accepted += 1;
                lane.lock().accepted(due_ns, pace.since_start_ns(Instant::now()));
            }
            event = session.next() => match event {
                Some(ClientEvent::Stopped(error)) => return Err(error),
                Some(_) => (),
                None => return Err(ClientError::Ended),
            },
            () = tokio::time::sleep_until(wake) => if over { return Ok(accepted); },
        }
    }
}

/// Receives until everything that was accepted has come, or some time after the end.
async fn receive(
    session: &mut ClientSession,
    client: &Client,
    pace: &Pace,
    lane: &SharedLane,
    mut expected: watch::Receiver<Option<u64>>,
) -> Result<(), ClientError> {
    let give_up = pace.end() + LOAD_TAIL;
    let mut received = 0_u64;
    loop {
        if expected.borrow().is_some_and(|expected| received >= expected) {
            return Ok(());
        }
        tokio::select! {
            biased;
            event = session.next() => match event {
                Some(ClientEvent::News) => received += take(client, pace, lane).await?,
                Some(ClientEvent::Stopped(error)) => return Err(error),
                Some(_) => (),
                None => return Err(ClientError::Ended),
            },
            Ok(()) = expected.changed() => (),
            () = tokio::time::sleep_until(give_up) => return Ok(()),
        }
    }
}

async fn take(client: &Client, pace: &Pace, lane: &SharedLane) -> Result<u64, ClientError> {
    let mut received = 0;
    loop {
        let events = client.unreported_events(EVENTS_AT_ONCE).await?;
        if events.is_empty() {
            return Ok(received);
        }
        let now_ns = pace.since_start_ns(Instant::now());
        let mut ids = Vec::with_capacity(events.len());
        for stored in events {
            ids.push(stored.id);
            if let Event::Message(message) = stored.event
                && let Some(due_ns) = body::text_due_ns(&message.text)
            {
                received += 1;
                lane.lock().delivered(due_ns, now_ns);
            }
        }
        client.mark_reported(ids).await?;
    }
}
