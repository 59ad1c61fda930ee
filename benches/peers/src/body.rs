//! What a message says: its number and when it was due, padded. Text, since XMPP carries nothing else.

use anyhow::Context;

/// The smallest body: two numbers of 16 hexadecimal digits.
pub(crate) const BODY_BYTES_MIN: usize = 32;

/// Makes bodies, one after the other in the same place.
pub(crate) struct Body {
    text: Vec<u8>,
}

impl Body {
    pub(crate) fn new(bytes: usize) -> Self {
        // Not one letter again and again, in case that somebody compresses.
        let letters = (0_u64..).map(|at| b'a' + u8::try_from(at.wrapping_mul(0x9e37_79b9) >> 7 & 15).unwrap_or(0));
        Self { text: letters.take(bytes.max(BODY_BYTES_MIN)).collect() }
    }

    /// The body of message `number`, due `due_ns` after the start.
    pub(crate) fn write(&mut self, number: u64, due_ns: u64) -> &[u8] {
        let head = format!("{number:016x}{due_ns:016x}");
        for (place, byte) in self.text.iter_mut().zip(head.bytes()) {
            *place = byte;
        }
        &self.text
    }
}

/// The number of a message, and when it was due.
pub(crate) fn read(body: &[u8]) -> anyhow::Result<(u64, u64)> {
    let digits = |range| -> anyhow::Result<u64> {
        let text = body.get(range).and_then(|digits| std::str::from_utf8(digits).ok()).context("a foreign body")?;
        u64::from_str_radix(text, 16).context("a foreign body")
    };
    Ok((digits(0..16)?, digits(16..32)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_was_written() {
        let mut body = Body::new(256);
        for (number, due_ns) in [(0, 0), (7, 1_234_567), (u64::MAX, u64::MAX)] {
            let text = body.write(number, due_ns);
            assert_eq!(text.len(), 256);
            assert!(text.is_ascii());
            assert_eq!(read(text).unwrap(), (number, due_ns));
        }
        assert!(read(b"short").is_err());
    }
}
