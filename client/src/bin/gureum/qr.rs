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
    use qrcode::Color;

    use super::*;

    /// The width of the zone around a code that stays light (ISO/IEC 18004).
    const QUIET: usize = 4;

    /// Which of the modules are drawn, that is light, that one line of the picture holds: two rows.
    fn rows(line: &str) -> [Vec<bool>; 2] {
        ["█▀", "█▄"].map(|drawn| line.chars().map(|half| drawn.contains(half)).collect())
    }

    #[test]
    fn the_picture_has_the_modules_of_the_code() {
        let text = "GL".repeat(41);
        let code = QrCode::with_error_correction_level(&text, EcLevel::L).unwrap();
        let drawn = picture(&text).unwrap();
        assert!(drawn.chars().all(|c| "█▀▄ \n".contains(c)), "{drawn}");
        let light: Vec<_> = drawn.lines().flat_map(rows).collect();
        assert!(light[..QUIET].iter().flatten().all(|light| *light));
        for (y, x) in (0..code.width()).flat_map(|y| (0..code.width()).map(move |x| (y, x))) {
            assert_eq!(light[y + QUIET][x + QUIET], code[(x, y)] == Color::Light, "column {x} of row {y}");
        }
    }

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
