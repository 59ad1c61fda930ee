//! NATS JetStream: a stream for all pairs, and a durable push consumer for each receiver, which acks all that it read
//! at once. The protocol is lines of text with bodies of a given length.

use anyhow::{Context, bail, ensure};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde_json::json;

use super::{Role, Seen, Wire};
use crate::limits::{NATS_ACK_PENDING_MAX, NATS_STREAM_BYTES_MAX};
use crate::line::{Dial, Line};

/// The subscription for answers, and the one for messages.
const ANSWERS: &str = "1";
const MESSAGES: &str = "2";

pub(crate) struct Nats {
    publish: String,
    number: u64,
    /// Where the last message read is acked, and with it all before it.
    ack: Option<Bytes>,
}

enum Operation {
    Info,
    Ping,
    Pong,
    Message { subscription: String, reply: Option<Bytes>, body: Bytes },
}

/// Makes the stream.
pub(crate) async fn prepare(dial: &Dial) -> anyhow::Result<()> {
    let mut line = dial.connect().await?;
    connect(&mut line, "_INBOX.setup").await?;
    let stream = json!({
        "name": "PAIRS", "subjects": ["pair.*"], "storage": "file", "retention": "limits", "discard": "old",
        "max_bytes": NATS_STREAM_BYTES_MAX, "num_replicas": 1,
    });
    request(&mut line, "$JS.API.STREAM.CREATE.PAIRS", "_INBOX.setup.1", &stream).await
}

pub(crate) async fn login(line: &mut Line, role: Role, pair: usize) -> anyhow::Result<Nats> {
    let inbox = format!("_INBOX.{role:?}{pair}");
    connect(line, &inbox).await?;
    if role == Role::Receiver {
        let name = format!("receiver-{pair}");
        let consumer = json!({
            "stream_name": "PAIRS",
            "config": {
                "durable_name": name, "deliver_subject": format!("deliver.{pair}"), "deliver_policy": "all",
                "filter_subject": format!("pair.{pair}"), "ack_policy": "all", "replay_policy": "instant",
                "max_ack_pending": NATS_ACK_PENDING_MAX,
            },
        });
        // Made before it is listened to: nothing comes before the answer.
        let subject = format!("$JS.API.CONSUMER.DURABLE.CREATE.PAIRS.{name}");
        request(line, &subject, &format!("{inbox}.1"), &consumer).await?;
        line.output.put_slice(format!("SUB deliver.{pair} {MESSAGES}\r\nPING\r\n").as_bytes());
        line.flush().await?;
    }
    Ok(Nats { publish: format!("PUB pair.{pair} {inbox}."), number: 0, ack: None })
}

async fn connect(line: &mut Line, inbox: &str) -> anyhow::Result<()> {
    let options = json!({
        "verbose": false, "pedantic": false, "tls_required": true, "lang": "rust", "version": "0", "protocol": 1,
        "headers": true, "no_responders": true, "echo": true,
    });
    let text = format!("CONNECT {options}\r\nSUB {inbox}.* {ANSWERS}\r\nPING\r\n");
    line.output.put_slice(text.as_bytes());
    line.flush().await?;
    loop {
        if let Operation::Pong = next(line).await? {
            return Ok(());
        }
    }
}

async fn request(line: &mut Line, subject: &str, reply: &str, body: &serde_json::Value) -> anyhow::Result<()> {
    let body = body.to_string();
    line.output.put_slice(format!("PUB {subject} {reply} {}\r\n{body}\r\n", body.len()).as_bytes());
    line.flush().await?;
    loop {
        if let Operation::Message { body, .. } = next(line).await? {
            return accepted(&body);
        }
    }
}

async fn next(line: &mut Line) -> anyhow::Result<Operation> {
    loop {
        if let Some(operation) = take(&mut line.input)? {
            return Ok(operation);
        }
        line.fill().await?;
    }
}

fn accepted(answer: &[u8]) -> anyhow::Result<()> {
    let text = std::str::from_utf8(answer).context("NATS")?;
    ensure!(text.starts_with('{') && !text.contains("\"error\""), "JetStream says {text}");
    Ok(())
}

fn take(input: &mut BytesMut) -> anyhow::Result<Option<Operation>> {
    let Some(end) = input.windows(2).position(|pair| pair == b"\r\n") else { return Ok(None) };
    let text = std::str::from_utf8(input.get(..end).unwrap_or_default()).context("NATS")?;
    let mut words = text.split_ascii_whitespace();
    let operation = match words.next() {
        Some("MSG" | "HMSG") => return message(input, end),
        Some("INFO") => Operation::Info,
        Some("PING") => Operation::Ping,
        Some("PONG") => Operation::Pong,
        _ => bail!("NATS says {text}"),
    };
    input.advance(end + 2);
    Ok(Some(operation))
}

/// `MSG subject subscription [reply] bytes`; with `HMSG` the bytes of the headers before those of all.
fn message(input: &mut BytesMut, end: usize) -> anyhow::Result<Option<Operation>> {
    let text = std::str::from_utf8(input.get(..end).unwrap_or_default()).context("NATS")?;
    let is_with_headers = text.starts_with('H');
    let mut words = text.split_ascii_whitespace();
    let subscription = words.nth(2).context("NATS: no subscription")?.to_owned();
    let bytes: usize = words.next_back().context("NATS: no length")?.parse().context("NATS: length")?;
    let headers: usize = match is_with_headers {
        true => words.next_back().context("NATS: no length")?.parse().context("NATS: length")?,
        false => 0,
    };
    let reply = words.next().map(|reply| Bytes::copy_from_slice(reply.as_bytes()));
    if input.len() < end + 2 + bytes + 2 {
        return Ok(None);
    }
    input.advance(end + 2);
    let mut body = input.split_to(bytes).freeze();
    input.advance(2);
    if headers <= body.len() {
        body.advance(headers);
    }
    Ok(Some(Operation::Message { subscription, reply, body }))
}

impl Wire for Nats {
    fn send(&mut self, body: &[u8], output: &mut BytesMut) -> anyhow::Result<()> {
        self.number += 1;
        output.put_slice(self.publish.as_bytes());
        output.put_slice(format!("{} {}\r\n", self.number, body.len()).as_bytes());
        output.put_slice(body);
        output.put_slice(b"\r\n");
        Ok(())
    }

    fn take(&mut self, input: &mut BytesMut, output: &mut BytesMut, seen: &mut Seen) -> anyhow::Result<()> {
        while let Some(operation) = take(input)? {
            match operation {
                Operation::Ping => output.put_slice(b"PONG\r\n"),
                Operation::Info | Operation::Pong => {}
                Operation::Message { subscription, reply, body } if subscription == MESSAGES => {
                    self.ack = reply;
                    seen.bodies.push(body);
                }
                Operation::Message { body, .. } => {
                    accepted(&body)?;
                    seen.accepted += 1;
                }
            }
        }
        if let Some(ack) = self.ack.take() {
            output.put_slice(b"PUB ");
            output.put_slice(&ack);
            output.put_slice(b" 0\r\n\r\n");
        }
        Ok(())
    }
}
