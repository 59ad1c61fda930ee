//! What a person types or a file holds: a line, a code, a PIN.

use std::fs::File;
use std::io::{IsTerminal, Read};
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use gureum_client::Pin;
use gureum_proto::{CodeSent, Otp};
use zeroize::Zeroizing;

use crate::output::{Line, Output};

/// A code with whatever people put between its digits is shorter than this, in bytes.
const CODE_BYTES_MAX: u64 = 64;
/// A PIN is a line, not a document.
const PIN_LINE_BYTES_MAX: u64 = 256;
/// In the place of a file: standard input.
const STANDARD_INPUT: &str = "-";

/// Whether somebody can be asked again.
pub(crate) fn is_somebody_there() -> bool {
    std::io::stdin().is_terminal()
}

/// One line of standard input, without its end; after a prompt, if somebody is there to read that.
pub(crate) fn line(prompt: &str, bytes_max: u64) -> anyhow::Result<Zeroizing<String>> {
    if is_somebody_there() {
        eprint!("{prompt}");
    }
    let mut line = Zeroizing::new(Vec::new());
    for byte in std::io::stdin().lock().take(bytes_max).bytes() {
        match byte.context("cannot read from standard input")? {
            b'\n' => break,
            byte => line.push(byte),
        }
    }
    let text = std::str::from_utf8(&line).context("what was typed is not text")?;
    Ok(Zeroizing::new(text.to_owned()))
}

/// Says that a code is on its way.
pub(crate) fn tell_sent(output: Output, sent: &CodeSent) -> anyhow::Result<()> {
    let line = Line::CodeSent { phone: sent.phone.as_str(), expires_in_s: sent.expires_ms / 1000 };
    let good_for = humantime::format_duration(Duration::from_secs(sent.expires_ms / 1000));
    let text = format!("A code is on its way to {}. It is good for {good_for}.", sent.phone);
    output.print_either(&line, &text)
}

/// The code that has come. Who has none yet runs the same command again.
pub(crate) fn code() -> anyhow::Result<Otp> {
    loop {
        let line = line("Code: ", CODE_BYTES_MAX)?;
        let digits = line.trim().replace([' ', '-'], "");
        anyhow::ensure!(
            !digits.is_empty(),
            "nothing was done without the code; when it is there, run the same command again with --code CODE"
        );
        match digits.parse::<Otp>() {
            Ok(code) => return Ok(code),
            Err(error) if is_somebody_there() => eprintln!("gureum: {error}"),
            Err(error) => return Err(error.into()),
        }
    }
}

/// The PIN in a file, or on a line of standard input.
pub(crate) fn pin(file: &Path) -> anyhow::Result<Pin> {
    let text = if file == Path::new(STANDARD_INPUT) {
        line("PIN: ", PIN_LINE_BYTES_MAX)?
    } else {
        let mut text = Zeroizing::new(String::new());
        File::open(file)
            .and_then(|opened| opened.take(PIN_LINE_BYTES_MAX).read_to_string(&mut text))
            .with_context(|| format!("cannot read {}", file.display()))?;
        text
    };
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    line.parse::<Pin>().with_context(|| format!("the PIN in {} cannot be used", file.display()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail by a panic")]

    use super::*;

    #[test]
    fn a_pin_is_the_one_line_of_its_file() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("pin");
        let read = |text: &str| {
            std::fs::write(&file, text).unwrap();
            pin(&file).map(drop).map_err(|error| format!("{error:#}"))
        };
        for text in ["2468", "2468\n", "2468\r\n", "correct horse\n"] {
            assert_eq!(read(text), Ok(()), "{text:?}");
        }
        let document = "2468 ".repeat(1_000_000);
        for text in ["", "246\n", "2468\n1357\n", document.as_str()] {
            let why = read(text).unwrap_err();
            assert!(why.contains("4 to 64 bytes on one line") && why.contains("pin"), "{why}");
        }
        let nowhere = format!("{:#}", pin(&home.path().join("nowhere")).err().unwrap());
        assert!(nowhere.contains("cannot read") && nowhere.contains("nowhere"), "{nowhere}");
    }
}
