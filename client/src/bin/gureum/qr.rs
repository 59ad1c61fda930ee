//! A code as a picture that another device's camera reads off the terminal.

use qrcode::render::unicode::Dense1x2;
use qrcode::{EcLevel, QrCode};

/// The picture, two rows of modules to a line; `None` for a text that no such picture holds.
///
/// Terminals write light on dark mostly, so that what is drawn is the light part: the quiet zone around it makes the
/// picture readable either way.
pub(crate) fn picture(text: &str) -> Option<String> {
    // A screen shows it whole and clean: the lowest correction makes it smallest.
    let code = QrCode::with_error_correction_level(text, EcLevel::L).ok()?;
    Some(code.render::<Dense1x2>().dark_color(Dense1x2::Light).light_color(Dense1x2::Dark).build())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_fits_a_terminal_of_eighty_columns_and_half_its_lines() {
        // As many characters as a code for linking has.
        let drawn = picture(&"GL".repeat(41)).unwrap();
        let lines: Vec<_> = drawn.lines().collect();
        let columns = lines.iter().map(|line| line.chars().count()).max().unwrap();
        assert!(columns <= 45 && lines.len() <= 23, "{columns} x {}", lines.len());
        assert!(lines.iter().all(|line| line.chars().count() == columns), "a rectangle");
    }

    #[test]
    fn what_is_too_long_has_no_picture() {
        assert_eq!(picture(&"x".repeat(8000)), None);
    }
}
