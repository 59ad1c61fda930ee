//! Settings come from the right place, and everything wrong is said at once.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

use std::num::NonZeroUsize;

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
fn without_settings_of_push_web_push_alone_is_offered_and_codes_go_nowhere() {
    let config = load(&[("data_dir", "d")], &[], "").unwrap();
    let push = config.push;
    let times = [push.push_delay, push.push_close_delay, push.push_interval].map(|time| time.as_secs());
    assert_eq!(times, [5, 60, 30]);
    assert_eq!((push.web_push, push.push_private_endpoints), (true, false));
    assert_eq!((push.apns_key, push.fcm_account, push.push_roots), (None, None, None));
    assert_eq!(push.apns_endpoint, "https://api.push.apple.com");
    assert_eq!(push.vapid_subject, "https://127.0.0.1");
    let phone = config.phone;
    assert_eq!((phone.sms, phone.sms_key, phone.sms_countries), (Sms::Off, None, vec![]));
    assert_eq!((phone.sms_per_hour.get(), phone.sms_per_day.get()), (200, 1_000));
}

#[test]
fn web_push_services_are_told_the_address_that_clients_are_told() {
    let subject =
        |public: &str| load(&[("data_dir", "d"), ("public_address", public)], &[], "").unwrap().push.vapid_subject;
    assert_eq!(subject("chat.example.org:4433"), "https://chat.example.org");
    assert_eq!(subject("[2001:db8::1]"), "https://[2001:db8::1]");
    let env = [("GUREUM_VAPID_SUBJECT", "mailto:me@example.org")];
    assert_eq!(load(&[("data_dir", "d")], &env, "").unwrap().push.vapid_subject, "mailto:me@example.org");
    refuses(&[("data_dir", "d")], &[("GUREUM_VAPID_SUBJECT", "me")], "", &["GUREUM_VAPID_SUBJECT: `me` is no contact"]);
}

#[test]
fn apns_needs_all_of_its_four_settings() {
    let file = "data_dir = 'd'\napns_key = 'k.p8'\napns_topic = 'org.example.chat'";
    refuses(
        &[("config", "f")],
        &[],
        file,
        &["apns_key in f: needs --apns-key-id", "apns_key in f: needs --apns-team-id"],
    );
    let file = format!("{file}\napns_key_id = 'ABC123DEFG'\napns_team_id = 'DEF123GHIJ'");
    let push = load(&[("config", "f")], &[], &file).unwrap().push;
    assert_eq!(push.apns_key, Some(PathBuf::from("k.p8")));
    assert_eq!(push.apns_team_id.as_deref(), Some("DEF123GHIJ"));
}

#[test]
fn a_url_of_a_service_is_https_or_of_this_machine() {
    let file = |url: &str| format!("data_dir = 'd'\nfcm_endpoint = '{url}'");
    for url in ["https://fcm.example.org", "https://127.0.0.1:8443/", "http://127.0.0.1:80", "http://[::1]:8080"] {
        let config = load(&[("config", "f")], &[], &file(url)).unwrap();
        assert_eq!(config.push.fcm_endpoint, url.trim_end_matches('/'));
    }
    for url in ["", "fcm.example.org", "http://fcm.example.org", "http://localhost", "ftp://127.0.0.1", "https://"] {
        refuses(&[("config", "f")], &[], &file(url), &["fcm_endpoint in f: "]);
    }
    for url in ["https://me:secret@fcm.example.org", "https://fcm.example.org/#x", "https://fcm.example.org/?x"] {
        refuses(&[("config", "f")], &[], &file(url), &["fcm_endpoint in f: "]);
    }
}

#[test]
fn codes_need_a_gateway_and_what_is_told_to_it_a_key() {
    let registration = ("GUREUM_REGISTRATION", "phone");
    let url = ("GUREUM_SMS", "https://sms.example.org/send?from=Gureum");
    let key = ("GUREUM_SMS_KEY", "sms.key");
    let refused = |env: &[(&str, &str)], expected: &str| refuses(&[("data_dir", "d")], env, "", &[expected]);
    refused(&[registration], "GUREUM_REGISTRATION: `phone` needs --sms");
    refused(&[url], "GUREUM_SMS: needs --sms-key");
    refused(&[key], "GUREUM_SMS_KEY: needs --sms");
    refused(&[("GUREUM_SMS", "log"), key], "GUREUM_SMS_KEY: needs --sms");
    refused(&[("GUREUM_SMS", "carrier pigeon")], "GUREUM_SMS: `carrier pigeon` is neither");
    refused(&[("GUREUM_SMS_PER_DAY", "0")], "GUREUM_SMS_PER_DAY: `0` must be from 1 to 864000");
    for countries in ["", "korea", "0", "1000", "82,,1", "70000"] {
        refused(&[("GUREUM_SMS_COUNTRIES", countries)], "GUREUM_SMS_COUNTRIES: ");
    }
    for (countries, why) in [("82,999", "82,1: 999 is no country's code"), ("+881", "881 is the code of no country")] {
        refused(&[("GUREUM_SMS_COUNTRIES", countries)], why);
    }
    let config = load(&[("data_dir", "d")], &[registration, ("GUREUM_SMS", "log")], "").unwrap();
    assert_eq!((config.registration, config.phone.sms), (Registration::Phone, Sms::Log));
    let env = [registration, url, key, ("GUREUM_SMS_COUNTRIES", "+82, 1")];
    let phone = load(&[("data_dir", "d")], &env, "").unwrap().phone;
    assert_eq!(phone.sms, Sms::Webhook(url.1.to_owned()));
    assert_eq!(phone.sms_countries, [82, 1]);
}

#[test]
fn what_is_printed_of_push_and_phones_can_be_read_back() {
    let file = "data_dir = 'd'\nregistration = 'phone'\nsms = 'https://sms.example.org/'\nsms_key = 's'\n\
                sms_countries = 82\nsms_per_hour = 7\napns_key = 'k'\napns_key_id = 'i'\napns_team_id = 't'\n\
                apns_topic = 'o.e.c'\nweb_push = 'off'\npush_private_endpoints = 'allow'\npush_delay = '200ms'\n\
                push_roots = 'r'\nfcm_account = 'f'";
    let config = load(&[("config", "f")], &[], file).unwrap();
    assert_eq!(config.phone.sms_countries, [82]);
    let printed = config.to_string();
    assert_eq!(load(&[("config", "f")], &[], &printed), Ok(config), "{printed}");
}

#[test]
fn what_is_printed_can_be_read_back() {
    let config =
        load(&[("data_dir", "a \"b\\"), ("retention", "90s"), ("public_address", "[::1]:5")], &[], "").unwrap();
    let printed = config.to_string();
    assert_eq!(load(&[("config", "f")], &[], &printed), Ok(config), "{printed}");
}

#[track_caller]
fn check_workers(set: Option<&str>, processors: usize, expected: Result<usize, &str>) {
    let env = |name: &str| set.filter(|_| name == "TOKIO_WORKER_THREADS").map(ToOwned::to_owned);
    let found = workers(env, NonZeroUsize::new(processors).unwrap()).map_err(|error| error.to_string());
    match expected {
        Ok(expected) => assert_eq!(found, Ok(expected)),
        Err(part) => assert!(found.as_ref().is_err_and(|found| found.contains(part)), "{part:?} is not in {found:?}"),
    }
}

#[test]
fn one_processor_is_left_to_the_writer_unless_the_operator_says_how_many_threads_serve() {
    check_workers(None, 1, Ok(1));
    check_workers(None, 2, Ok(1));
    check_workers(None, 16, Ok(15));
    check_workers(Some(""), 16, Ok(15));
    check_workers(Some("16"), 2, Ok(16));
    check_workers(Some("1"), 16, Ok(1));
    for wrong in ["0", "-1", "many", "1025", "1.5"] {
        check_workers(
            Some(wrong),
            16,
            Err(&format!("TOKIO_WORKER_THREADS: it is a number of threads from 1 to 1024, not {wrong:?}")),
        );
    }
}
