//! The frame codec: encoding, and decoding from one large chunk and from packets.

use std::hint::black_box;

use bytes::{Bytes, BytesMut};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use gureum_benches::{PACKET_BYTES, PAYLOAD_BYTES, payload, stream, stream_frames};
use gureum_wire::{Decoder, FrameKind, encode};

criterion_group!(benches, encoding, decoding);
criterion_main!(benches);

fn encoding(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("wire/encode");
    for payload_bytes in PAYLOAD_BYTES {
        let (payload, frames) = (payload(payload_bytes), stream_frames(payload_bytes));
        let mut out = BytesMut::with_capacity(stream(payload_bytes).len());
        group.throughput(throughput(payload_bytes));
        group.bench_function(BenchmarkId::from_parameter(payload_bytes), |bencher| {
            bencher.iter(|| {
                out.clear();
                for _ in 0..frames {
                    encode(FrameKind::Send, black_box(&payload), &mut out);
                }
                black_box(out.len())
            });
        });
    }
}

fn decoding(criterion: &mut Criterion) {
    for (name, chunk_bytes) in [("wire/decode", usize::MAX), ("wire/decode_packets", PACKET_BYTES)] {
        let mut group = criterion.benchmark_group(name);
        for payload_bytes in PAYLOAD_BYTES {
            let stream = stream(payload_bytes);
            let chunks: Vec<Bytes> = stream.chunks(chunk_bytes).map(|chunk| stream.slice_ref(chunk)).collect();
            group.throughput(throughput(payload_bytes));
            group.bench_function(BenchmarkId::from_parameter(payload_bytes), |bencher| {
                bencher.iter(|| decode(black_box(&chunks)));
            });
        }
    }
}

fn throughput(payload_bytes: usize) -> Throughput {
    let count = |n: usize| u64::try_from(n).expect("a length in memory fits into 64 bits");
    Throughput::ElementsAndBytes {
        elements: count(stream_frames(payload_bytes)),
        bytes: count(stream(payload_bytes).len()),
    }
}

fn decode(chunks: &[Bytes]) -> usize {
    let mut decoder = Decoder::new();
    let mut frames = 0;
    for chunk in chunks {
        decoder.push(chunk.clone());
        while let Some(frame) = decoder.next().expect("the stream is well formed") {
            black_box(frame);
            frames += 1;
        }
    }
    frames
}
