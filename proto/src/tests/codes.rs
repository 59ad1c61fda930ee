//! The table of codes in docs/protocol.md is that of the code.

use crate::Code;

const PROTOCOL: &str = include_str!("../../../docs/protocol.md");

#[test]
fn the_table_of_codes_is_that_of_the_code() {
    let section = PROTOCOL.split_once("\n## Codes\n").expect("a section on codes").1;
    let rows: Vec<_> = section
        .lines()
        .skip_while(|line| !line.starts_with('|'))
        .take_while(|line| line.starts_with('|'))
        .skip(2)
        .map(str::to_owned)
        .collect();
    let row = |code: &Code| format!("| {} | {} | {:?} | {} |", code.number(), code.name(), code.fault(), code.text());
    assert_eq!(rows, Code::ALL.iter().map(row).collect::<Vec<_>>());
}

#[test]
fn codes_ascend_and_say_something() {
    assert!(Code::ALL.is_sorted_by(|a, b| a.number() < b.number()));
    for code in Code::ALL {
        assert!(!code.text().is_empty() && !code.text().contains('|') && !code.text().ends_with('.'), "{code:?}");
        assert_eq!(code.name(), format!("{code:?}"));
    }
}
