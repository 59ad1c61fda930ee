//! The same stream whole and in arbitrary chunks: the same frames and the same end.

#![no_main]

use arbitrary::Arbitrary;
use bytes::Bytes;
use gureum_fuzz::decode;
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    /// Used in turn, from the start again when they are spent.
    chunk_bytes: [u8; 4],
    /// A slice, for `Vec` would spend a byte on each byte and so garble the seeds.
    stream: &'a [u8],
}

fuzz_target!(|input: Input<'_>| {
    let stream = Bytes::copy_from_slice(input.stream);
    let mut sizes = input.chunk_bytes.into_iter().cycle();
    let mut rest = stream.clone();
    let chunks = std::iter::from_fn(|| {
        let size = usize::from(sizes.next().unwrap_or(1)).max(1);
        (!rest.is_empty()).then(|| rest.split_to(size.min(rest.len())))
    });
    assert_eq!(decode(chunks), decode([stream]));
});
