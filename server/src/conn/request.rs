//! Request streams: one frame in, one frame out, each on a task of its own.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use gureum_proto::{Code, Request, Response};
use gureum_wire::Decoder;
use quinn::{RecvStream, SendStream, VarInt};

use super::Shared;
use crate::limits::{READ_BYTES_MAX, REQUEST_TIMEOUT_MS};
use crate::session::{Authenticated, broken};
use crate::wake::Listener;

/// Whose request it is, and on which connection.
pub(super) struct Asker {
    pub(super) from: Authenticated,
    pub(super) listener: Arc<dyn Listener>,
}

/// Answers the request of one stream.
pub(super) async fn answer(mut output: SendStream, mut input: RecvStream, asker: Asker, shared: Arc<Shared>) {
    let from = asker.from;
    let limit = Duration::from_millis(REQUEST_TIMEOUT_MS);
    let request = match tokio::time::timeout(limit, read(&mut input)).await {
        Ok(Ok(request)) => request,
        Ok(Err(code)) => return refuse(&mut output, &mut input, code),
        Err(_) => return refuse(&mut output, &mut input, Code::TooSlow),
    };
    let response = Box::pin(shared.requests.answer(from, request)).await;
    if let Response::Refused(refusal) = &response {
        tracing::debug!(%refusal, "a request was refused");
        shared.metrics.requests_refused.increment(refusal.code);
    }
    if matches!(response, Response::CommitAccepted { .. }) {
        shared.metrics.commits_accepted.increment(1);
    }
    if matches!(response, Response::TakenOver { .. }) {
        // Before the answer: what the other copy sends from here on must not meet what this one will.
        shared.hub.end_copies(from.account(), from.device(), &asker.listener);
    }
    let mut frame = BytesMut::new();
    response.put(&mut frame);
    let write = async {
        output.write_chunk(frame.freeze()).await?;
        let _ = output.finish();
        // Dropping the stream before the client has the answer is fine; waiting for it bounds the memory.
        let _ = output.stopped().await;
        Ok::<_, quinn::WriteError>(())
    };
    let _ = tokio::time::timeout(limit, write).await;
}

async fn read(input: &mut RecvStream) -> Result<Request, Code> {
    let mut decoder = Decoder::new();
    loop {
        if let Some(frame) = decoder.next().map_err(|error| broken(&error))? {
            return Request::decode(frame).map_err(|error| error.code());
        }
        match input.read_chunk(READ_BYTES_MAX, true).await {
            Ok(Some(chunk)) => decoder.push(chunk.bytes),
            Ok(None) => return Err(Code::FrameTruncated),
            Err(_) => return Err(Code::Done),
        }
    }
}

fn refuse(output: &mut SendStream, input: &mut RecvStream, code: Code) {
    let code = VarInt::from_u32(code.number());
    let _ = output.reset(code);
    let _ = input.stop(code);
}
