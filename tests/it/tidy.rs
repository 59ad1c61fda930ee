//! The rules of the house that no compiler knows: first lines, lengths, bans, the edges between crates, licences.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Lines of a file that is no test. One that grows past it has two jobs.
const LINES_MAX: usize = 600;

const CRATES: [&str; 7] = ["wire", "proto", "server", "client", "tests", "benches", "fuzz"];

/// Licences under which a dependency may come.
const LICENCES: [&str; 13] = [
    "0BSD",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

struct Source {
    /// From the root of the repository.
    path: String,
    text: String,
}

impl Source {
    fn is_test(&self) -> bool {
        let path = Path::new(&self.path);
        let is_named = |name: &str| matches!(name, "tests" | "golden" | "conformance");
        path.starts_with("tests")
            || path.iter().any(|part| part.to_str().is_some_and(is_named))
            || path.file_stem().and_then(|stem| stem.to_str()).is_some_and(is_named)
    }

    /// The text before the tests that stand in the same file.
    fn product(&self) -> &str {
        self.text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default()
    }

    /// Lines of code, with their numbers: what is no comment.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.product().lines().enumerate().map(|(index, line)| (index + 1, line.trim()));
        lines.filter(|(_, line)| !line.starts_with("//"))
    }

    fn crate_name(&self) -> &str {
        self.path.split('/').next().unwrap_or_default()
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn sources() -> Vec<Source> {
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> = CRATES.iter().map(|name| root().join(name)).collect();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("target") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                let path = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
                found.push(Source { path, text });
            }
        }
    }
    assert!(found.len() > 100, "the sources are not where they were");
    found
}

#[track_caller]
fn nothing(offences: impl IntoIterator<Item = String>, rule: &str) {
    let offences: Vec<_> = offences.into_iter().collect();
    assert!(offences.is_empty(), "{rule}:\n{}", offences.join("\n"));
}

/// Where product code holds a text that it may not.
fn holding<'a>(sources: &'a [Source], texts: &'a [String]) -> impl Iterator<Item = String> + 'a {
    sources.iter().flat_map(move |source| {
        let lines = source.code().filter(|(_, line)| texts.iter().any(|text| line.contains(text.as_str())));
        lines.map(|(number, line)| format!("{}:{number}: {line}", source.path)).collect::<Vec<_>>()
    })
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[test]
fn every_file_says_its_one_job_first() {
    let silent = |source: &Source| !source.text.starts_with("//! ");
    nothing(sources().into_iter().filter(silent).map(|source| source.path), "the first line begins with //!");
}

#[test]
fn no_file_has_two_jobs() {
    let long = |source: &Source| !source.is_test() && source.text.lines().count() > LINES_MAX;
    nothing(sources().into_iter().filter(long).map(|source| source.path), "at most 600 lines");
}

#[test]
fn nothing_is_left_undone() {
    // Put together here, so that this file does not hold them.
    let banned = [["to", "do!("], ["un", "implemented!("], ["#[ig", "nore"], ["db", "g!("]].map(|parts| parts.concat());
    nothing(holding(&sources(), &banned), "nothing is left undone or switched off");
}

#[test]
fn product_code_does_not_unwrap() {
    let sources: Vec<_> = sources().into_iter().filter(|source| !source.is_test()).collect();
    nothing(holding(&sources, &words(&[".unwrap()"])), "say why it cannot fail, or return an error");
}

#[track_caller]
fn only_in(of_crates: &[&str], text: &str, allowed: impl Fn(&str) -> bool) {
    let concerned =
        |source: &Source| of_crates.contains(&source.crate_name()) && !source.is_test() && !allowed(&source.path);
    let sources: Vec<_> = sources().into_iter().filter(concerned).collect();
    nothing(holding(&sources, &words(&[text])), text);
}

#[test]
fn the_server_reads_the_clock_in_one_place() {
    only_in(&["server"], "SystemTime::now", |path| path == "server/src/time.rs");
}

#[test]
fn the_server_knows_mls_in_one_module() {
    let is_mls = |path: &str| path == "server/src/mls.rs" || path.starts_with("server/src/mls/");
    for text in ["openmls::", "openmls_"] {
        only_in(&["server"], text, is_mls);
        only_in(&["wire", "proto"], text, |_| false);
    }
}

#[test]
fn the_client_knows_mls_in_one_module() {
    only_in(&["client"], "openmls::", |path| path == "client/src/e2ee.rs" || path.starts_with("client/src/e2ee/"));
}

#[test]
fn generated_types_stay_in_proto() {
    only_in(&["wire", "server", "client", "tests", "benches", "fuzz"], "prost", |_| false);
}

#[test]
fn the_pure_layers_touch_no_socket_clock_or_task() {
    for text in ["std::net::UdpSocket", "std::time::", "std::thread", "std::fs", "tokio", "quinn"] {
        only_in(&["wire", "proto"], text, |_| false);
    }
    let is_pure = |path: &str| {
        let parts =
            ["server/src/session.rs", "server/src/session/", "server/src/router/plan.rs", "server/src/router/plan/"];
        parts.iter().any(|part| path.starts_with(part))
    };
    for text in ["std::time::", "std::thread", "tokio", "quinn", "getrandom"] {
        only_in(&["server"], text, |path| !is_pure(path));
    }
}

fn metadata() -> serde_json::Value {
    // For one platform only: the packages of the others need not be on this machine.
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["metadata", "--format-version", "1", "--offline", "--locked", "--filter-platform", &platform])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn packages(metadata: &serde_json::Value) -> &[serde_json::Value] {
    metadata["packages"].as_array().unwrap()
}

#[test]
fn crates_depend_downwards_only() {
    let metadata = metadata();
    let edges = |name: &str| -> BTreeSet<String> {
        let package = packages(&metadata).iter().find(|package| package["name"] == name).unwrap();
        let dependencies = package["dependencies"].as_array().unwrap().iter();
        let ours = dependencies.filter_map(|dependency| dependency["name"].as_str());
        ours.filter(|name| name.starts_with("gureum-")).map(str::to_owned).collect()
    };
    let set = |names: &[&str]| -> BTreeSet<String> { names.iter().map(|name| format!("gureum-{name}")).collect() };
    assert_eq!(edges("gureum-wire"), set(&[]));
    assert_eq!(edges("gureum-proto"), set(&["wire"]));
    assert_eq!(edges("gureum-server"), set(&["proto", "wire"]));
    assert_eq!(edges("gureum-client"), set(&["proto", "wire"]));
}

#[test]
fn what_people_run_has_no_failpoints() {
    let metadata = metadata();
    let mut users: Vec<String> = Vec::new();
    for package in packages(&metadata) {
        let dependencies = package["dependencies"].as_array().unwrap().iter();
        let server = dependencies.filter(|dependency| dependency["name"] == "gureum-server");
        let mut features = server.flat_map(|dependency| dependency["features"].as_array().unwrap());
        if features.any(|feature| feature == "failpoints") {
            users.push(package["name"].as_str().unwrap().to_owned());
        }
    }
    assert_eq!(users, ["gureum-tests"], "only the tests make the server fail");
    let server = packages(&metadata).iter().find(|package| package["name"] == "gureum-server").unwrap();
    let default = server["features"]["default"].as_array().unwrap();
    assert!(default.iter().all(|feature| feature != "failpoints"), "{default:?}");
    // Features of packages that are built together unite: a release is built of the product's packages alone.
    for name in ["Makefile", "scripts/run.sh", "scripts/demo.sh", "scripts/setup.sh"] {
        let text = std::fs::read_to_string(root().join(name)).unwrap();
        let builds = text.lines().filter(|line| line.contains("cargo build") && line.contains("--release"));
        let offences =
            builds.filter(|line| !line.contains("$(PRODUCT)") && !line.contains("--target-dir target/prove"));
        nothing(
            offences.map(|line| format!("{name}: {line}")),
            "a release names its packages, or lies where no one runs it",
        );
    }
}

#[test]
fn fuzzing_compiles_no_rocksdb() {
    let lock = std::fs::read_to_string(root().join("fuzz/Cargo.lock")).unwrap();
    let heavy = |line: &&str| ["rocksdb", "openmls\"", "quinn\"", "tokio\""].iter().any(|name| line.contains(name));
    nothing(lock.lines().filter(heavy).map(str::to_owned), "the fuzz targets build in a minute");
    assert!(lock.contains("name = \"gureum-server\""), "the session is fuzzed");
}

#[test]
fn licences_are_permissive() {
    let metadata = metadata();
    let offence = |package: &serde_json::Value| {
        let name = package["name"].as_str().unwrap();
        let licence = package["license"].as_str().unwrap_or_default();
        let is_excepted = licence == "MPL-2.0" && name.starts_with("hpke-rs");
        (!is_excepted && !allows(licence)).then(|| format!("{name}: {licence:?}"))
    };
    nothing(packages(&metadata).iter().filter_map(offence), "not among the licences allowed");
}

/// Whether an SPDX expression can be satisfied with the licences allowed.
fn allows(expression: &str) -> bool {
    let text = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let mut words = text.split_whitespace().peekable();
    let allowed = any_of(&mut words);
    allowed && words.next().is_none()
}

type Words<'a> = std::iter::Peekable<std::str::SplitWhitespace<'a>>;

fn any_of(words: &mut Words<'_>) -> bool {
    let mut allowed = all_of(words);
    while words.next_if_eq(&"OR").is_some() {
        allowed |= all_of(words);
    }
    allowed
}

fn all_of(words: &mut Words<'_>) -> bool {
    let mut allowed = one(words);
    while words.next_if_eq(&"AND").is_some() {
        allowed &= one(words);
    }
    allowed
}

fn one(words: &mut Words<'_>) -> bool {
    match words.next() {
        Some("(") => {
            let allowed = any_of(words);
            allowed && words.next() == Some(")")
        }
        Some(licence) => {
            // An exception grants more than its licence.
            if words.next_if_eq(&"WITH").is_some() {
                words.next();
            }
            LICENCES.contains(&licence)
        }
        None => false,
    }
}

#[test]
fn licence_expressions_are_read_as_they_are_meant() {
    for (expression, expected) in [
        ("MIT", true),
        ("MIT/Apache-2.0", true),
        ("GPL-3.0 OR MIT", true),
        ("GPL-3.0 AND MIT", false),
        ("GPL-3.0 OR MIT AND ISC", true),
        ("(GPL-3.0 OR MIT) AND (ISC OR LGPL-2.1)", true),
        ("(GPL-3.0 OR MIT) AND LGPL-2.1", false),
        ("Apache-2.0 WITH LLVM-exception", true),
        ("MPL-2.0", false),
        ("", false),
    ] {
        assert_eq!(allows(expression), expected, "{expression}");
    }
}
