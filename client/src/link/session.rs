//! The tasks of a proven connection: streams to events, queue to stream.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gureum_proto::{DeliveryFrame, Sent, ServerFrame, Typing};
use gureum_wire::{Decoder, Frame};
use quinn::{Connection, Endpoint, RecvStream, SendStream};
use tokio::sync::mpsc::{self, Sender};
use tokio_util::task::TaskTracker;

use super::error::LinkError;
use super::writer::Outgoing;
use super::{Link, LinkEvent, LinkEvents, bounds};
use crate::limits::{COME_BACK_MAX, LINK_EVENTS_MAX, READ_CHUNKS};

/// Starts the tasks. They end with the connection.
pub(super) fn start(
    connection: Connection,
    endpoint: Endpoint,
    send: SendStream,
    session: (RecvStream, Decoder),
    subscribed: bool,
) -> (Link, LinkEvents) {
    let (sender, events) = mpsc::channel(LINK_EVENTS_MAX);
    let outgoing = Arc::new(Outgoing::default());
    let tasks = TaskTracker::new();
    let writer = Arc::clone(&outgoing);
    tasks.spawn(async move { writer.write(send).await });
    let (stream, decoder) = session;
    tasks.spawn(run(connection.clone(), sender.clone(), read_session(stream, decoder, sender.clone())));
    if subscribed {
        let reader = read_delivery(connection.clone(), sender.clone());
        tasks.spawn(read_datagrams(connection.clone(), sender.clone()));
        tasks.spawn(run(connection.clone(), sender, reader));
    }
    (Link { connection, endpoint, outgoing, tasks }, LinkEvents { events })
}

async fn run(connection: Connection, events: Sender<LinkEvent>, reader: impl Future<Output = Result<(), LinkError>>) {
    let error = match reader.await {
        // A server that ends a stream is about to close the connection, and its code says more.
        Ok(()) => match tokio::time::timeout(Duration::from_secs(1), connection.closed()).await {
            Ok(reason) => reason.into(),
            Err(_) => LinkError::Lost("the server ended its stream".to_owned()),
        },
        Err(error) => error,
    };
    // Nobody listens any more when this fails.
    let _ = events.send(LinkEvent::Closed(error)).await;
}

async fn read_session(
    mut stream: RecvStream,
    mut decoder: Decoder,
    events: Sender<LinkEvent>,
) -> Result<(), LinkError> {
    loop {
        let mut results = Vec::new();
        while let Some(frame) = decoder.next()? {
            match ServerFrame::decode(frame)? {
                ServerFrame::Sent(sent) => results.push(bounds::sent(sent)?),
                ServerFrame::Drain { come_back_ms } => {
                    flush(&mut results, &events).await;
                    let come_back = Duration::from_millis(come_back_ms).min(COME_BACK_MAX);
                    let _ = events.send(LinkEvent::Drain { come_back }).await;
                }
                ServerFrame::Notice(notice) => {
                    flush(&mut results, &events).await;
                    let _ = events.send(LinkEvent::Notice(notice)).await;
                }
                ServerFrame::PhoneNotice(notice) => {
                    flush(&mut results, &events).await;
                    let _ = events.send(LinkEvent::Phone(bounds::phone(notice)?)).await;
                }
                ServerFrame::Refused(refusal) => return Err(LinkError::Refused(refusal)),
                ServerFrame::Ready(_)
                | ServerFrame::Registered(_)
                | ServerFrame::LinkAnswer(_)
                | ServerFrame::Linked(_)
                | ServerFrame::Recovering(_)
                | ServerFrame::CodeSent(_) => {
                    return Err(LinkError::Malformed("a frame out of turn".to_owned()));
                }
            }
        }
        flush(&mut results, &events).await;
        if !read_into(&mut stream, &mut decoder).await? {
            return Ok(());
        }
    }
}

async fn flush(results: &mut Vec<Sent>, events: &Sender<LinkEvent>) {
    if !results.is_empty() {
        let _ = events.send(LinkEvent::Sent(std::mem::take(results))).await;
    }
}

async fn read_delivery(connection: Connection, events: Sender<LinkEvent>) -> Result<(), LinkError> {
    let mut stream = connection.accept_uni().await?;
    let mut decoder = Decoder::new();
    while read_into(&mut stream, &mut decoder).await? {
        let next = || decoder.next().transpose();
        let decode = |frame: Result<Frame, _>| bounds::delivery(DeliveryFrame::decode(frame?)?);
        let frames = std::iter::from_fn(next).map(decode).collect::<Result<Vec<_>, LinkError>>()?;
        if !frames.is_empty() && events.send(LinkEvent::Delivery(frames)).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// Tells of datagrams as they come. What nobody takes in time is lost, as it may be on the way.
async fn read_datagrams(connection: Connection, events: Sender<LinkEvent>) {
    while let Ok(datagram) = connection.read_datagram().await {
        // Of a kind that is not known here, or nothing.
        let Ok(typing) = Typing::decode(datagram) else { continue };
        let _ = events.try_send(LinkEvent::Typing(typing));
    }
}

/// Hands the decoder everything that has come; `false` at the end of the stream. A process that ends lets go of its streams,
/// and they end wherever they stand: what was cut off comes again on the next connection.
async fn read_into(stream: &mut RecvStream, decoder: &mut Decoder) -> Result<bool, LinkError> {
    let mut chunks = [const { Bytes::new() }; READ_CHUNKS];
    let Some(count) = stream.read_chunks(&mut chunks).await? else { return Ok(false) };
    for chunk in chunks.into_iter().take(count) {
        decoder.push(chunk);
    }
    Ok(true)
}
