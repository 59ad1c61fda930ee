//! The proof of SIGKILL under load, run small; `make prove WHAT=kill` runs it large.

use gureum_tests::prove::kill::{Options, run};

#[test]
fn what_was_acknowledged_survives_sigkill_at_random_and_at_every_step() {
    let report = run(&Options { rounds: 26, short_rounds: 0, tells: false });
    assert!(report.usual.at_steps.iter().all(|(_, ends)| *ends == 1), "{report:?}");
}

#[test]
fn keys_tables_and_clock_survive_sigkill_at_every_step_while_messages_expire() {
    let report = run(&Options { rounds: 1, short_rounds: 26, tells: false });
    assert!(report.short.unwrap().at_steps.iter().all(|(_, ends)| *ends == 1));
}
