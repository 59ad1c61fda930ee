//! QUIC's variable-length integers (RFC 9000, section 16), in their shortest form only.

use bytes::{BufMut, BytesMut};

#[cfg(test)]
mod tests;

/// The largest value that a varint can hold.
pub(crate) const VALUE_MAX: u64 = (1 << 62) - 1;

/// How many bytes the shortest form of `value` takes.
pub(crate) const fn varint_bytes(value: u64) -> usize {
    match value {
        0..=0x3f => 1,
        0x40..=0x3fff => 2,
        0x4000..=0x3fff_ffff => 4,
        _ => 8,
    }
}

/// Appends `value` in its shortest form.
///
/// # Panics
///
/// If `value` is above [`VALUE_MAX`], which no frame type and no length within the limits is.
pub(crate) fn put_varint(value: u64, out: &mut BytesMut) {
    assert!(value <= VALUE_MAX, "a varint holds 62 bits");
    let count = varint_bytes(value);
    let prefix: u64 = match count {
        1 => 0,
        2 => 1 << 14,
        4 => 2 << 30,
        _ => 3 << 62,
    };
    out.put_uint(value | prefix, count);
}

/// A varint of which some bytes may still be missing. What was read is never read again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct PartialVarint {
    value: u64,
    /// 0 before the first byte.
    bytes_total: u8,
    bytes_left: u8,
}

/// A varint was longer than its value needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NonMinimal;

impl PartialVarint {
    /// Whether not a byte of it has come yet.
    pub(crate) fn is_empty(self) -> bool {
        self.bytes_total == 0
    }

    /// Takes bytes until the varint is whole. Gives how many it took, and the value once it is whole; after
    /// that, `self` is spent.
    pub(crate) fn read(&mut self, input: &[u8]) -> (usize, Result<Option<u64>, NonMinimal>) {
        let mut taken = 0;
        for &byte in input {
            taken += 1;
            if self.is_empty() {
                self.bytes_total = 1 << (byte >> 6);
                self.bytes_left = self.bytes_total;
                self.value = u64::from(byte & 0x3f);
            } else {
                self.value = (self.value << 8) | u64::from(byte);
            }
            self.bytes_left -= 1;
            if self.bytes_left == 0 {
                return (taken, self.whole().map(Some));
            }
        }
        (taken, Ok(None))
    }

    fn whole(self) -> Result<u64, NonMinimal> {
        if varint_bytes(self.value) == usize::from(self.bytes_total) { Ok(self.value) } else { Err(NonMinimal) }
    }
}
