//! What criterion has left on the disk: the medians of its newest runs.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::ratios::Medians;

#[derive(Deserialize)]
struct Benchmark {
    full_id: String,
}

#[derive(Deserialize)]
struct Estimates {
    median: Estimate,
}

#[derive(Deserialize)]
struct Estimate {
    point_estimate: f64,
}

/// Reads every bench's newest median below a directory.
///
/// # Errors
/// When it cannot be read, holds no result, or one that is not criterion's.
pub fn read_results(directory: &Path) -> Result<Medians> {
    let mut medians = Medians::new();
    let mut folders = vec![directory.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder).with_context(|| format!("could not list {}", folder.display()))?;
        for entry in entries {
            let path = entry.with_context(|| format!("could not list {}", folder.display()))?.path();
            if !path.is_dir() {
                continue;
            }
            // Beside it lies `base`, the run before.
            if path.ends_with("new") {
                let Benchmark { full_id } = read(&path.join("benchmark.json"))?;
                let Estimates { median } = read(&path.join("estimates.json"))?;
                medians.insert(full_id, median.point_estimate);
            } else {
                folders.push(path);
            }
        }
    }
    ensure!(!medians.is_empty(), "{} holds no results: run the benches first", directory.display());
    Ok(medians)
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = fs::read_to_string(path).with_context(|| format!("could not read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| {
        format!("{} is not as criterion writes it: remove it and run the benches again", path.display())
    })
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    fn directory() -> TempDir {
        TempDir::new().expect("a temporary directory")
    }

    fn put(directory: &TempDir, run: &str, name: &str, median_ns: f64) {
        let folder = directory.path().join(run);
        fs::create_dir_all(&folder).expect("a folder");
        let benchmark = format!(r#"{{"group_id": "any", "full_id": "{name}"}}"#);
        fs::write(folder.join("benchmark.json"), benchmark).expect("written");
        let estimates = format!(r#"{{"mean": {{"point_estimate": 9}}, "median": {{"point_estimate": {median_ns}}}}}"#);
        fs::write(folder.join("estimates.json"), estimates).expect("written");
    }

    #[test]
    fn the_newest_median_of_each_bench_is_read_by_its_full_name() {
        let directory = directory();
        put(&directory, "wire_encode/256/new", "wire/encode/256", 27.5);
        put(&directory, "wire_encode/256/base", "wire/encode/256", 99.0);
        put(&directory, "calibration_cpu/new", "calibration/cpu", 8.0);
        let expected = [("calibration/cpu".to_owned(), 8.0), ("wire/encode/256".to_owned(), 27.5)];
        assert_eq!(read_results(directory.path()).expect("readable"), Medians::from(expected));
    }

    #[test]
    fn no_results_are_an_error() {
        let directory = directory();
        let error = read_results(directory.path()).expect_err("it is empty").to_string();
        assert!(error.contains("run the benches first"), "{error}");
        read_results(&directory.path().join("nowhere")).expect_err("it is not there");
    }

    #[test]
    fn a_result_that_is_none_is_named() {
        let directory = directory();
        put(&directory, "seal/new", "seal/seal", 1.0);
        fs::write(directory.path().join("seal/new/estimates.json"), "{}").expect("written");
        let error = format!("{:#}", read_results(directory.path()).expect_err("no estimates"));
        assert!(error.contains("seal/new/estimates.json"), "{error}");
    }
}
