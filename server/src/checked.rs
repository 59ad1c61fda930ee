//! Short values with a checksum, so that a flipped bit in a small file of the data directory is never another value.

/// The bytes of a checksum: damage passes for a value once in 2^64.
pub(crate) const CHECKSUM_BYTES: usize = 8;

/// The checksum of what stands in a file. The name is part of it: no file passes for another.
pub(crate) fn checksum(name: &str, bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(name.as_bytes()).update(&[0]).update(bytes);
    let mut sum = [0; CHECKSUM_BYTES];
    hasher.finalize_xof().fill(&mut sum);
    sum
}

/// A file's one line: a text, and its checksum in hexadecimal.
pub(crate) fn line(name: &str, text: &str) -> String {
    format!("{text} {}\n", data_encoding::HEXLOWER.encode(&checksum(name, text.as_bytes())))
}

/// The text of such a line; `None` for anything else.
pub(crate) fn text<'a>(name: &str, bytes: &'a [u8]) -> Option<&'a str> {
    let found = std::str::from_utf8(bytes).ok()?;
    let (text, _) = found.strip_suffix('\n')?.rsplit_once(' ')?;
    (line(name, text) == found).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_comes_back_from_its_line_under_its_name_alone() {
        let written = line("clock", "42");
        assert_eq!(text("clock", written.as_bytes()), Some("42"));
        assert_eq!(text("sequence", written.as_bytes()), None);
        assert_eq!(written.len(), "42 0123456789abcdef\n".len());
    }

    #[test]
    fn no_bit_of_a_line_can_be_changed_and_no_byte_left_out() {
        let written = line("clock", "1800000000000").into_bytes();
        for bit in 0..written.len() * 8 {
            let mut flipped = written.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(text("clock", &flipped), None, "bit {bit}");
        }
        for len in 0..written.len() {
            assert_eq!(text("clock", &written[..len]), None, "{len} bytes");
        }
    }
}
