//! Settings come from the right place, and everything wrong is said at once.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

use super::*;

fn flags(pairs: &[(&str, &str)]) -> Flags {
    let mut flags = Flags::default();
    for (name, value) in pairs {
        let value = Some((*value).to_owned());
        match *name {
            "config" => flags.config = value,
            "data_dir" => flags.data_dir = value,
            "listen" => flags.listen = value,
            "retention" => flags.retention = value,
            "commit_retention" => flags.commit_retention = value,
            "public_address" => flags.public_address = value,
            "tls_cert" => flags.tls_cert = value,
            other => panic!("no flag {other} in this test"),
        }
    }
    flags
}

fn load(given: &[(&str, &str)], env: &[(&str, &str)], file: &str) -> Result<Config, ConfigError> {
    let env = |name: &str| env.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
    Config::load(&flags(given), env, |_| Ok(file.to_owned()))
}

#[track_caller]
fn refuses(given: &[(&str, &str)], env: &[(&str, &str)], file: &str, expected: &[&str]) {
    let found = load(given, env, file).unwrap_err().to_string();
    for part in expected {
        assert!(found.contains(part), "{part:?} is not in:\n{found}");
    }
    assert_eq!(found.lines().count(), 1 + expected.len(), "{found}");
}

#[test]
fn a_data_directory_alone_is_enough() {
    let config = load(&[("data_dir", "d")], &[], "").unwrap();
    assert_eq!(config.listen, "127.0.0.1:4433".parse().unwrap());
    assert_eq!(config.admin, "127.0.0.1:4434".parse().unwrap());
    assert_eq!(config.retention, Duration::from_secs(3 * 86_400));
    assert_eq!(config.commit_retention, Duration::from_secs(30 * 86_400));
    assert_eq!(config.registration, Registration::Invite);
    assert_eq!((config.tls, config.public_address), (None, None));
}

#[test]
fn a_flag_wins_over_the_environment_over_the_file() {
    let file = "listen = '127.0.0.1:3'\nretention = '3h'\ninbox_entries_max = 300\ndata_dir = 'file'";
    let env = [("GUREUM_CONFIG", "f"), ("GUREUM_LISTEN", "127.0.0.1:2"), ("GUREUM_RETENTION", "2h")];
    let config = load(&[("listen", "127.0.0.1:1")], &env, file).unwrap();
    assert_eq!(config.listen.port(), 1);
    assert_eq!(config.retention, Duration::from_secs(2 * 3600));
    assert_eq!(config.inbox_entries_max, 300);
    assert_eq!(config.data_dir, PathBuf::from("file"));
}

#[test]
fn commits_outlive_messages_tenfold_at_any_retention() {
    let config = load(&[("data_dir", "d"), ("retention", "6s")], &[], "").unwrap();
    assert_eq!(config.commit_retention, Duration::from_secs(60));
    refuses(
        &[("data_dir", "d"), ("retention", "2h"), ("commit_retention", "1h")],
        &[],
        "",
        &["--commit-retention: `1h`"],
    );
}

#[test]
fn everything_wrong_is_said_at_once_with_its_source() {
    let file = "colour = 'blue'\nregistration = 'closed'\nadmin = true\nlog_filter = 'a=b=c'";
    refuses(
        &[("config", "g.toml"), ("listen", "here")],
        &[("GUREUM_RETENTION", "soon"), ("GUREUM_INBOX_ENTRIES_MAX", "3")],
        file,
        &[
            "colour in g.toml: there is no such setting",
            "admin in g.toml: must be text",
            "--data-dir: must say",
            "--listen: `here`",
            "GUREUM_RETENTION: `soon`",
            "registration in g.toml: `closed`",
            "GUREUM_INBOX_ENTRIES_MAX: `3` must be at least 16",
            "log_filter in g.toml",
        ],
    );
}

#[test]
fn a_certificate_needs_its_key() {
    refuses(&[("data_dir", "d"), ("tls_cert", "c")], &[], "", &["--tls-cert: needs --tls-key"]);
    refuses(&[("data_dir", "d")], &[("GUREUM_TLS_KEY", "k")], "", &["GUREUM_TLS_KEY: needs --tls-cert"]);
}

#[test]
fn a_file_that_is_not_there_or_no_toml_is_an_error() {
    refuses(&[("data_dir", "d"), ("config", "f")], &[], &"#".repeat(1 << 20), &["the file f: has more than"]);
    let flags = flags(&[("data_dir", "d"), ("config", "f")]);
    let missing = Config::load(&flags, |_| None, |_| Err(std::io::ErrorKind::NotFound.into())).unwrap_err();
    assert!(missing.to_string().contains("\n  the file f: "), "{missing}");
}

#[track_caller]
fn check_public(given: &str, bound: &str, host: &str, port: u16) {
    let mut settings = vec![("data_dir", "d")];
    if !given.is_empty() {
        settings.push(("public_address", given));
    }
    let config = load(&settings, &[], "").unwrap();
    assert_eq!(config.public_address(bound.parse().unwrap()), (host.to_owned(), port));
}

#[test]
fn clients_are_told_an_address_that_they_can_use() {
    check_public("", "127.0.0.1:9", "127.0.0.1", 9);
    check_public("", "0.0.0.0:9", "127.0.0.1", 9);
    check_public("", "[::]:9", "::1", 9);
    check_public("chat.example.org", "0.0.0.0:9", "chat.example.org", 9);
    check_public("chat.example.org:1", "0.0.0.0:9", "chat.example.org", 1);
    check_public("[2001:db8::1]", "0.0.0.0:9", "2001:db8::1", 9);
    check_public("[2001:db8::1]:1", "0.0.0.0:9", "2001:db8::1", 1);
}

#[test]
fn what_is_printed_can_be_read_back() {
    let config =
        load(&[("data_dir", "a \"b\\"), ("retention", "90s"), ("public_address", "[::1]:5")], &[], "").unwrap();
    let printed = config.to_string();
    assert_eq!(load(&[("config", "f")], &[], &printed), Ok(config), "{printed}");
}
