//! The decoder under every split of its input, and under broken input.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may stop at what it did not expect")]

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use proptest::sample::Index;

use super::{Decoder, FrameError};
use crate::frame::{Frame, FrameKind};
use crate::varint::put_varint;
use crate::{encode, limits};

type Outcome = (Vec<Frame>, Result<(), FrameError>);

/// Everything that comes out of a stream given in those chunks.
fn decode(chunks: impl IntoIterator<Item = Bytes>) -> Outcome {
    let mut decoder = Decoder::new();
    let mut frames = Vec::new();
    for chunk in chunks {
        decoder.push(chunk);
        loop {
            match decoder.next() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Err(error)),
            }
        }
    }
    (frames, decoder.finish())
}

#[track_caller]
fn check(stream: &[u8], kinds: &[FrameKind], end: Result<(), FrameError>) {
    let stream = Bytes::copy_from_slice(stream);
    let (frames, ended) = decode([stream.clone()]);
    assert_eq!(frames.iter().map(|frame| frame.kind).collect::<Vec<_>>(), kinds);
    assert_eq!(ended, end);
    assert_eq!(decode(stream.chunks(1).map(Bytes::copy_from_slice)), (frames, ended));
}

/// A header, whatever its length says.
fn header(number: u64, length: u64) -> BytesMut {
    let mut out = BytesMut::new();
    put_varint(number, &mut out);
    put_varint(length, &mut out);
    out
}

/// A stream of `parts`, each a frame or an ignorable number with its payload.
fn stream_of(parts: &[(u64, Vec<u8>)]) -> Bytes {
    let mut out = BytesMut::new();
    for (number, payload) in parts {
        out.extend_from_slice(&header(*number, u64::try_from(payload.len()).unwrap()));
        out.extend_from_slice(payload);
    }
    out.freeze()
}

/// The frames that must come out of a stream of those parts.
fn frames_of(parts: &[(u64, Vec<u8>)]) -> Vec<Frame> {
    let frame = |(number, payload): &(u64, Vec<u8>)| {
        FrameKind::from_number(*number).map(|kind| Frame { kind, payload: payload.clone().into() })
    };
    parts.iter().filter_map(frame).collect()
}

fn short_parts() -> Vec<(u64, Vec<u8>)> {
    vec![
        (0x05, vec![1]),
        (0x09, vec![]),
        (0x1002, vec![2; 3]),
        (0x04, vec![3; 70]),
        (0x1fff, vec![]),
        (0x10, vec![4; 5]),
    ]
}

fn part() -> impl Strategy<Value = (u64, Vec<u8>)> {
    let number = prop_oneof![
        4 => proptest::sample::select(FrameKind::ALL).prop_map(FrameKind::number),
        1 => limits::IGNORABLE_TYPES,
    ];
    let payload_bytes = prop_oneof![0_usize..70, 60_usize..300, 16_000_usize..70_000];
    (number, payload_bytes, any::<u8>()).prop_map(|(number, payload_bytes, first)| {
        let limit = FrameKind::from_number(number).map_or(limits::IGNORABLE_BYTES_MAX, FrameKind::payload_bytes_max);
        let payload = (0..payload_bytes.min(limit)).map(|at| first.wrapping_add(at.to_le_bytes()[0]));
        (number, payload.collect())
    })
}

fn parts() -> impl Strategy<Value = Vec<(u64, Vec<u8>)>> {
    proptest::collection::vec(part(), 0..8)
}

fn split(mut stream: Bytes, cuts: &[Index]) -> Vec<Bytes> {
    let mut at: Vec<_> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
    at.sort_unstable_by(|one, other| other.cmp(one));
    let mut chunks: Vec<_> = at.into_iter().map(|at| stream.split_off(at)).collect();
    chunks.push(stream);
    chunks.reverse();
    chunks
}

#[test]
fn every_split_in_two_and_three_parts_decodes_alike() {
    let parts = short_parts();
    let stream = stream_of(&parts);
    let expected = (frames_of(&parts), Ok(()));
    for one in 0..=stream.len() {
        for two in one..=stream.len() {
            let chunks = [stream.slice(..one), stream.slice(one..two), stream.slice(two..)];
            assert_eq!(decode(chunks), expected, "split at {one} and {two}");
        }
    }
}

#[test]
fn every_stream_cut_short_is_truncated_unless_between_frames() {
    let parts = short_parts();
    let stream = stream_of(&parts);
    let ends: Vec<_> = (0..=parts.len()).map(|count| stream_of(&parts[..count]).len()).collect();
    for end in 0..=stream.len() {
        let expected = if ends.contains(&end) { Ok(()) } else { Err(FrameError::Truncated) };
        assert_eq!(decode([stream.slice(..end)]).1, expected, "cut at {end}");
    }
}

#[test]
fn chunks_pushed_together_decode_alike() {
    let parts = short_parts();
    let mut decoder = Decoder::new();
    for chunk in stream_of(&parts).chunks(2) {
        decoder.push(Bytes::copy_from_slice(chunk));
    }
    assert_eq!(decoder.finish(), Err(FrameError::Truncated), "nothing is taken out yet");
    let frames: Vec<_> = std::iter::from_fn(|| decoder.next().unwrap()).collect();
    assert_eq!(frames, frames_of(&parts));
    assert_eq!(decoder.finish(), Ok(()));
}

#[test]
fn payload_within_one_chunk_is_a_slice_of_it() {
    let stream = stream_of(&[(0x05, vec![1; 40]), (0x03, vec![2; 9000])]);
    let (frames, _) = decode([stream.clone()]);
    assert_eq!(frames[0].payload.as_ptr(), stream[2..].as_ptr());
    assert_eq!(frames[1].payload.as_ptr(), stream[45..].as_ptr());
}

#[test]
fn payload_that_fills_the_next_chunk_is_that_chunk() {
    let stream = stream_of(&[(0x03, vec![2; 9000])]);
    let (frames, _) = decode([stream.slice(..3), stream.slice(3..)]);
    assert_eq!(frames[0].payload.as_ptr(), stream[3..].as_ptr());
}

#[test]
fn frame_at_the_limit_is_accepted_and_one_byte_more_refused() {
    for kind in FrameKind::ALL {
        let limit = kind.payload_bytes_max();
        let length = u64::try_from(limit).unwrap();
        let whole = decode([header(kind.number(), length).freeze(), vec![0; limit].into()]);
        assert_eq!(whole.0[0].payload.len(), limit);
        let length = length + 1;
        let error = FrameError::TooLong { kind: *kind, length, limit };
        check(&header(kind.number(), length), &[], Err(error));
    }
}

#[test]
fn ignorable_frame_at_the_limit_is_skipped_and_one_byte_more_refused() {
    let limit = limits::IGNORABLE_BYTES_MAX;
    let length = u64::try_from(limit).unwrap();
    let stream = stream_of(&[(0x1234, vec![0; limit]), (0x09, vec![])]);
    check(&stream, &[FrameKind::Drain], Ok(()));
    let (number, length) = (0x1234, length + 1);
    let error = FrameError::IgnorableTooLong { number, length, limit };
    check(&header(number, length), &[], Err(error));
}

#[test]
fn unknown_type_is_refused_before_its_length() {
    for number in [0x00, 0x15, 0x1f, 0x22, 0x3f, 0xfff, 0x2000, (1 << 62) - 1] {
        let mut out = BytesMut::new();
        put_varint(number, &mut out);
        check(&out, &[], Err(FrameError::UnknownType(number)));
    }
}

#[test]
fn frames_before_an_error_are_given_and_none_after_it() {
    check(b"\x05\x01a\x15\x05\x01b", &[FrameKind::Ack], Err(FrameError::UnknownType(0x15)));
}

#[test]
fn decoder_that_failed_repeats_its_error() {
    let mut decoder = Decoder::new();
    decoder.push(Bytes::from_static(b"\x40\x05\x05\x01a"));
    for _ in 0..3 {
        assert_eq!(decoder.next(), Err(FrameError::NonMinimalVarint));
        assert_eq!(decoder.finish(), Err(FrameError::NonMinimalVarint));
        assert!(decoder.unread.is_empty(), "a failed stream keeps nothing");
        decoder.push(Bytes::from_static(b"\x05\x01a"));
    }
}

#[test]
#[cfg(debug_assertions)]
#[should_panic(expected = "take the frames out")]
fn caller_that_never_takes_frames_out_is_found() {
    let mut decoder = Decoder::new();
    for _ in 0..=limits::UNREAD_CHUNKS_MAX {
        decoder.push(Bytes::from_static(b"\x09\x00"));
    }
}

#[test]
fn over_long_frame_is_refused_before_anything_is_kept() {
    let mut decoder = Decoder::new();
    decoder.push(header(0x10, (1 << 62) - 1).freeze());
    assert!(decoder.next().is_err());
    assert_eq!(decoder.partial_bytes(), 0);
}

#[test]
fn header_alone_pins_no_memory() {
    let mut decoder = Decoder::new();
    decoder.push(header(0x10, 1_000_000).freeze());
    assert_eq!(decoder.next(), Ok(None));
    assert_eq!(decoder.partial_bytes(), 0);
}

#[test]
fn partial_payload_takes_memory_as_its_bytes_come() {
    let length = 1_000_000;
    let mut decoder = Decoder::new();
    decoder.push(header(0x10, u64::try_from(length).unwrap()).freeze());
    let mut came = 0;
    while came < length {
        assert_eq!(decoder.next(), Ok(None));
        let bound = limits::STRADDLE_FIRST_BYTES.max(2 * came).min(length);
        assert!(decoder.partial_bytes() <= bound, "{} after {came}", decoder.partial_bytes());
        let count = 1200.min(length - came);
        decoder.push(vec![0; count].into());
        came += count;
    }
    assert_eq!(decoder.next().unwrap().unwrap().payload.len(), length);
    assert_eq!(decoder.partial_bytes(), 0);
}

#[test]
fn straddling_payload_is_exactly_sized() {
    let stream = stream_of(&[(0x10, vec![1; 100_001])]);
    let (mut frames, _) = decode(stream.chunks(1000).map(Bytes::copy_from_slice));
    let payload = frames.remove(0).payload.try_into_mut().unwrap();
    assert_eq!(payload.capacity(), 100_001);
}

#[test]
fn skipped_frame_is_not_kept() {
    let mut decoder = Decoder::new();
    decoder.push(header(0x1002, 60_000).freeze());
    for _ in 0..50 {
        decoder.push(vec![0; 1000].into());
        assert_eq!(decoder.next(), Ok(None));
        assert_eq!(decoder.partial_bytes(), 0);
    }
}

#[test]
fn frame_does_not_show_its_payload() {
    let frame = Frame { kind: FrameKind::Send, payload: Bytes::from_static(b"secret") };
    assert_eq!(format!("{frame:?}"), "Frame { kind: Send, payload_bytes: 6 }");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn encode_then_decode_is_the_identity(parts in parts()) {
        let frames = frames_of(&parts);
        let mut out = BytesMut::new();
        for frame in &frames {
            encode(frame.kind, &frame.payload, &mut out);
        }
        prop_assert_eq!(decode([out.freeze()]), (frames, Ok(())));
    }

    #[test]
    fn every_split_decodes_alike(parts in parts(), cuts in proptest::collection::vec(any::<Index>(), 0..20)) {
        let chunks = split(stream_of(&parts), &cuts);
        prop_assert_eq!(decode(chunks), (frames_of(&parts), Ok(())));
    }

    #[test]
    fn every_chunk_size_decodes_alike(parts in parts(), size in prop_oneof![1_usize..10, 100_usize..3000]) {
        let stream = stream_of(&parts);
        let chunks = stream.chunks(size).map(Bytes::copy_from_slice);
        prop_assert_eq!(decode(chunks), (frames_of(&parts), Ok(())));
    }

    #[test]
    fn every_cut_is_truncated_or_between_frames(parts in parts(), cut in any::<Index>()) {
        let stream = stream_of(&parts);
        let cut = cut.index(stream.len() + 1);
        let whole = (0..=parts.len()).find(|count| stream_of(&parts[..*count]).len() == cut);
        let expected = if whole.is_some() { Ok(()) } else { Err(FrameError::Truncated) };
        prop_assert_eq!(decode([stream.slice(..cut)]).1, expected);
    }

    #[test]
    fn arbitrary_bytes_decode_alike_in_any_split(
        bytes in proptest::collection::vec(prop_oneof![0_u8..0x22, any::<u8>()], 0..300),
        cuts in proptest::collection::vec(any::<Index>(), 0..20),
    ) {
        let stream = Bytes::from(bytes);
        prop_assert_eq!(decode(split(stream.clone(), &cuts)), decode([stream]));
    }

    #[test]
    fn header_in_longer_form_is_refused(
        parts in parts(),
        length in 0_u64..64,
        long_type in any::<bool>(),
    ) {
        let mut stream = BytesMut::from(stream_of(&parts));
        let length = u8::try_from(length).unwrap();
        stream.extend_from_slice(if long_type { &[0x40, 0x05] } else { &[0x05] });
        stream.extend_from_slice(if long_type { &[0] } else { &[0x80, 0, 0] });
        stream.extend_from_slice(&[length]);
        let expected = (frames_of(&parts), Err(FrameError::NonMinimalVarint));
        prop_assert_eq!(decode([stream.freeze()]), expected);
    }
}
