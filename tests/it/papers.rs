//! What the papers claim is shown by the tests that they name: those tests must be there.

use std::path::{Path, PathBuf};

const PAPERS: [&str; 2] = ["SECURITY.md", "docs/reliability.md"];
const CRATES: [&str; 5] = ["wire", "proto", "server", "client", "tests"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// What stands between single backquotes outside of code blocks.
fn quoted(text: &str) -> Vec<&str> {
    let mut is_code = false;
    let mut found = Vec::new();
    for line in text.lines() {
        if line.starts_with("```") {
            is_code = !is_code;
        } else if !is_code {
            found.extend(line.split('`').skip(1).step_by(2));
        }
    }
    found
}

/// `file::name` or `crate: name`, as where to look and the name.
fn claim(text: &str) -> Option<(PathBuf, &str)> {
    let is_name = |name: &str| {
        name.contains('_') && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    };
    if let Some((file, name)) = text.split_once("::") {
        return is_name(name).then(|| (root().join("tests/it").join(file).with_extension("rs"), name));
    }
    let (package, name) = text.split_once(": ")?;
    (CRATES.contains(&package) && is_name(name)).then(|| (root().join(package), name))
}

fn holds(place: &Path, function: &str) -> bool {
    if place.is_dir() {
        let inner = std::fs::read_dir(place).unwrap().map(|entry| entry.unwrap().path());
        return inner.filter(|path| !path.ends_with("target")).any(|path| holds(&path, function));
    }
    place.extension().is_some_and(|extension| extension == "rs")
        && std::fs::read_to_string(place).is_ok_and(|text| text.contains(function))
}

#[test]
fn every_test_that_the_papers_name_is_there() {
    let mut missing = Vec::new();
    for paper in PAPERS {
        let text = std::fs::read_to_string(root().join(paper)).unwrap();
        let claims: Vec<_> = quoted(&text).into_iter().filter_map(claim).collect();
        assert!(claims.len() > 10, "{paper} names tests");
        for (place, name) in claims {
            if !holds(&place, &format!("fn {name}(")) {
                missing.push(format!("{paper}: {name} is not in {}", place.display()));
            }
        }
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

#[test]
fn claims_are_told_from_other_code() {
    assert_eq!(claim("proof::a_good_one").map(|(_, name)| name), Some("a_good_one"));
    assert_eq!(claim("client: a_good_one").map(|(_, name)| name), Some("a_good_one"));
    assert_eq!(claim("--master-key"), None);
    assert_eq!(claim("gureumd serve"), None);
    assert_eq!(quoted("a `b::c_d` e\n```\n`no`\n```\n`f`"), ["b::c_d", "f"]);
}
