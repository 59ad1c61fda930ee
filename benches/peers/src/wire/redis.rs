//! Redis Streams: `XADD` to a stream of the pair's own, `XREAD BLOCK` from where the receiver is. The frames that come
//! are read by redis-protocol.

use anyhow::{Context, bail};
use bytes::{BufMut, Bytes, BytesMut};
use redis_protocol::resp2::decode::decode_bytes_mut;
use redis_protocol::resp2::types::BytesFrame;

use super::{Role, Seen, Wire};
use crate::limits::{REDIS_ENTRIES_MAX, REDIS_READ_COUNT};
use crate::line::Line;

pub(crate) struct Redis {
    role: Role,
    stream: String,
    entries_max: u64,
    /// The entry seen last. Redis keeps no cursor for `XREAD`: it is the receiver's to remember.
    last: Bytes,
}

pub(crate) async fn login(line: &mut Line, role: Role, pair: usize) -> anyhow::Result<Redis> {
    command(&mut line.output, &[b"PING"]);
    line.flush().await?;
    loop {
        match take(&mut line.input)? {
            Some(BytesFrame::SimpleString(_)) => break,
            Some(other) => bail!("unexpected {other:?}"),
            None => line.fill().await?,
        }
    }
    let stream = format!("pair:{pair}");
    let redis = Redis { role, stream, entries_max: REDIS_ENTRIES_MAX, last: Bytes::from_static(b"0") };
    if role == Role::Receiver {
        redis.read_on(&mut line.output);
        line.flush().await?;
    }
    Ok(redis)
}

fn command(output: &mut BytesMut, words: &[&[u8]]) {
    output.put_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        output.put_slice(format!("${}\r\n", word.len()).as_bytes());
        output.put_slice(word);
        output.put_slice(b"\r\n");
    }
}

fn take(input: &mut BytesMut) -> anyhow::Result<Option<BytesFrame>> {
    let found = decode_bytes_mut(input).context("RESP")?;
    match found {
        Some((BytesFrame::Error(text), ..)) => bail!("Redis says {text}"),
        found => Ok(found.map(|(frame, ..)| frame)),
    }
}

impl Redis {
    fn read_on(&self, output: &mut BytesMut) {
        let count = REDIS_READ_COUNT.to_string();
        let words: [&[u8]; 8] = [
            b"XREAD",
            b"COUNT",
            count.as_bytes(),
            b"BLOCK",
            b"0",
            b"STREAMS",
            self.stream.as_bytes(),
            self.last.as_ref(),
        ];
        command(output, &words);
    }

    /// `[[stream, [[id, [field, body]], …]]]`
    fn entries(&mut self, frame: BytesFrame, seen: &mut Seen) -> anyhow::Result<()> {
        let [stream] = array::<1>(frame)?;
        let [_, entries] = array::<2>(stream)?;
        let BytesFrame::Array(entries) = entries else { bail!("no entries") };
        for entry in entries {
            let [id, fields] = array::<2>(entry)?;
            let [_, body] = array::<2>(fields)?;
            let (BytesFrame::BulkString(id), BytesFrame::BulkString(body)) = (id, body) else { bail!("no text") };
            seen.bodies.push(body);
            self.last = id;
        }
        Ok(())
    }
}

fn array<const N: usize>(frame: BytesFrame) -> anyhow::Result<[BytesFrame; N]> {
    let BytesFrame::Array(items) = frame else { bail!("unexpected {frame:?}") };
    <[BytesFrame; N]>::try_from(items).ok().context("an array of another length")
}

impl Wire for Redis {
    fn send(&mut self, body: &[u8], output: &mut BytesMut) -> anyhow::Result<()> {
        let entries_max = self.entries_max.to_string();
        let stream = self.stream.as_bytes();
        command(output, &[b"XADD", stream, b"MAXLEN", b"~", entries_max.as_bytes(), b"*", b"b", body]);
        Ok(())
    }

    fn keep(&mut self, messages: u64) {
        self.entries_max = self.entries_max.max(messages);
    }

    fn take(&mut self, input: &mut BytesMut, output: &mut BytesMut, seen: &mut Seen) -> anyhow::Result<()> {
        while let Some(frame) = take(input)? {
            match self.role {
                Role::Sender => seen.accepted += 1,
                Role::Receiver => {
                    self.entries(frame, seen)?;
                    self.read_on(output);
                }
            }
        }
        Ok(())
    }
}
