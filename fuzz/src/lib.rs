//! What the fuzz targets share: a stream decoded to its end, with its bounds checked.
//!
//! `cargo fuzz run -s none TARGET fuzz/corpus/TARGET fuzz/seeds/TARGET` runs one, from the folder above, with
//! `RUSTC_BOOTSTRAP=1` set on a stable toolchain. No code of ours is `unsafe`, so a sanitizer finds little.

use bytes::Bytes;
use gureum_wire::{Decoder, Frame, FrameError, limits};

/// Everything that comes out of a stream given in those chunks, and how it ends.
///
/// # Panics
///
/// If the decoder holds more than it promises, or an error does not stay.
pub fn decode(chunks: impl IntoIterator<Item = Bytes>) -> (Vec<Frame>, Result<(), FrameError>) {
    let mut decoder = Decoder::new();
    let mut frames = Vec::new();
    let mut came = 0;
    for chunk in chunks {
        came += chunk.len();
        decoder.push(chunk);
        loop {
            match decoder.next() {
                Ok(Some(frame)) => {
                    assert!(frame.payload.len() <= frame.kind.payload_bytes_max());
                    frames.push(frame);
                }
                Ok(None) => break,
                Err(error) => {
                    assert_eq!(decoder.next(), Err(error));
                    assert_eq!(decoder.finish(), Err(error));
                    assert_eq!(decoder.partial_bytes(), 0);
                    return (frames, Err(error));
                }
            }
        }
        let held = decoder.partial_bytes();
        assert!(held <= limits::PAYLOAD_BYTES_MAX);
        assert!(held <= limits::STRADDLE_FIRST_BYTES.max(2 * came));
    }
    (frames, decoder.finish())
}
