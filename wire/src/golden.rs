//! Holds the code to the tables and test vectors of docs/protocol.md.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may stop at what it did not expect")]

use bytes::{Bytes, BytesMut};

use crate::decode::{Decoder, FrameError};
use crate::frame::{Frame, FrameKind};
use crate::varint::{PartialVarint, put_varint};
use crate::{encode, limits};

const PROTOCOL: &str = include_str!("../../docs/protocol.md");

/// The cells of the first table below a heading, without the marks of code.
#[track_caller]
fn table(heading: &str) -> Vec<Vec<String>> {
    let mut lines = PROTOCOL.lines().skip_while(|line| *line != heading).skip(1);
    let section: Vec<&str> = lines.by_ref().take_while(|line| !line.starts_with('#')).collect();
    let rows: Vec<_> = section
        .into_iter()
        .skip_while(|line| !line.starts_with('|'))
        .take_while(|line| line.starts_with('|'))
        .skip(2)
        .map(|line| {
            let line = line.trim_start_matches('|').trim_end_matches('|');
            line.split('|').map(|cell| cell.replace('`', "").trim().to_owned()).collect()
        })
        .collect();
    assert!(!rows.is_empty(), "no table below {heading}");
    rows
}

fn bytes_of(hex: &str) -> Bytes {
    assert_eq!(hex.len() % 2, 0, "odd number of digits in {hex}");
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn number_of(text: &str) -> u64 {
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).unwrap(),
        None => text.parse().unwrap(),
    }
}

fn kind_of(name: &str) -> FrameKind {
    let named = |kind: &&FrameKind| format!("{kind:?}") == name;
    *FrameKind::ALL.iter().find(named).unwrap_or_else(|| panic!("no type {name}"))
}

#[track_caller]
fn frame_of(kind: FrameKind, payload: &[u8]) -> Bytes {
    let mut out = BytesMut::new();
    encode(kind, payload, &mut out);
    out.freeze()
}

fn decode(stream: Bytes) -> (Vec<Frame>, Result<(), FrameError>) {
    let mut decoder = Decoder::new();
    decoder.push(stream);
    let mut frames = Vec::new();
    loop {
        match decoder.next() {
            Ok(Some(frame)) => frames.push(frame),
            Ok(None) => return (frames, decoder.finish()),
            Err(error) => return (frames, Err(error)),
        }
    }
}

#[test]
fn type_table_is_that_of_the_code() {
    let rows = table("## Frames");
    assert_eq!(rows.len(), FrameKind::ALL.len());
    for (row, kind) in rows.iter().zip(FrameKind::ALL) {
        assert_eq!(number_of(&row[0]), kind.number());
        assert_eq!(row[1], format!("{kind:?}"));
        assert_eq!(number_of(&row[2]), u64::try_from(kind.payload_bytes_max()).unwrap());
        assert_eq!(FrameKind::from_number(kind.number()), Some(*kind));
    }
}

#[test]
fn ignorable_range_is_that_of_the_code() {
    let range = limits::IGNORABLE_TYPES;
    let text = format!("{:#x} to {:#x}", range.start(), range.end());
    assert!(PROTOCOL.contains(&text), "{text}");
    let text = format!("At most {} bytes of payload.", limits::IGNORABLE_BYTES_MAX);
    assert!(PROTOCOL.contains(&text), "{text}");
}

#[test]
fn varint_vectors_encode_and_decode() {
    for row in table("### Varint vectors") {
        let (value, bytes) = (number_of(&row[0]), bytes_of(&row[1]));
        let mut out = BytesMut::new();
        put_varint(value, &mut out);
        assert_eq!(out.freeze(), bytes, "{value}");
        let read = PartialVarint::default().read(&bytes);
        assert_eq!(read, (bytes.len(), Ok(Some(value))));
    }
}

#[test]
fn longer_varints_of_the_table_are_refused() {
    for row in table("### Varints refused") {
        let bytes = bytes_of(&row[0]);
        let (taken, value) = PartialVarint::default().read(&bytes);
        assert_eq!(taken, bytes.len(), "{}", row[0]);
        assert!(value.is_err(), "{}", row[0]);
    }
}

#[test]
fn frame_vectors_encode_and_decode() {
    let rows = table("### Frame vectors");
    let kinds: Vec<_> = rows.iter().map(|row| kind_of(&row[0])).collect();
    assert_eq!(kinds, FrameKind::ALL);
    for row in rows {
        let (kind, payload, frame) = (kind_of(&row[0]), bytes_of(&row[1]), bytes_of(&row[2]));
        assert_eq!(frame_of(kind, &payload), frame, "{kind:?}");
        assert_eq!(decode(frame), (vec![Frame { kind, payload }], Ok(())));
    }
}

#[test]
fn header_vectors_encode_and_decode() {
    for row in table("### Header vectors") {
        let (kind, header) = (kind_of(&row[0]), bytes_of(&row[2]));
        let payload = vec![0x5a; row[1].parse().unwrap()];
        let frame = frame_of(kind, &payload);
        assert_eq!(frame, [&header[..], &payload[..]].concat());
        assert_eq!(decode(frame), (vec![Frame { kind, payload: payload.into() }], Ok(())));
    }
}

#[test]
fn stream_vectors_give_their_frames_and_their_end() {
    for row in table("### Stream vectors") {
        let (frames, end) = decode(bytes_of(&row[0]));
        let kinds: Vec<_> = frames.iter().map(|frame| frame.kind).collect();
        let expected: Vec<_> = row[1].split_whitespace().map(kind_of).collect();
        assert_eq!(kinds, expected, "{}", row[0]);
        let end = match end {
            Ok(()) => "ok",
            Err(FrameError::NonMinimalVarint) => "NonMinimalVarint",
            Err(FrameError::UnknownType(_)) => "UnknownType",
            Err(FrameError::TooLong { .. }) => "TooLong",
            Err(FrameError::IgnorableTooLong { .. }) => "IgnorableTooLong",
            Err(FrameError::Truncated) => "Truncated",
        };
        assert_eq!(end, row[2], "{}", row[0]);
    }
}
