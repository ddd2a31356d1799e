//! Compares facts, and keeps the table of differences honest: a line that no longer applies is an
//! error as well.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::PathBuf;

use mirror_inspect::{Options, inspect};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::table::DIFFERENCES;

/// A folder of recorded files.
pub(crate) fn folder(name: &str) -> PathBuf {
    mirror_tests::root().join("tests/vectors").join(name)
}

/// Names of the files in a folder that `wanted` takes, sorted.
pub(crate) fn files(name: &str, wanted: impl Fn(&str) -> bool) -> Vec<String> {
    let entries = std::fs::read_dir(folder(name)).expect("the folder of recorded files");
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|n| wanted(n))
        .collect();
    names.sort();
    names
}

/// The facts beside a file.
pub(crate) fn expected(name: &str, file: &str) -> Value {
    let path = folder(name).join(format!("{file}.json"));
    let text = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_slice(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// What `inspect --json` prints.
pub(crate) fn found(name: &str, file: &str, options: &Options) -> Value {
    let path = folder(name).join(file);
    let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let report = inspect(file, &bytes, options).unwrap_or_else(|e| panic!("{file}: {e}"));
    report.json()
}

/// The file is the one that its facts are of.
pub(crate) fn check_file(check: &Check, name: &str, file: &str, facts: &Value) {
    let path = folder(name).join(file);
    let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let digest = Sha256::digest(&bytes);
    let hash: String = digest.iter().map(|b| format!("{b:02x}")).collect();
    check.fact(file, "sha256", hash, facts["sha256"].clone());
    if facts["bytes"].is_u64() {
        check.fact(file, "file bytes", bytes.len(), facts["bytes"].clone());
    }
}

/// Compares the facts of a group of files.
pub(crate) struct Check {
    group: &'static str,
    wrong: RefCell<Vec<String>>,
    used: RefCell<BTreeSet<usize>>,
}

impl Check {
    /// `group` is the folder and what the names of its files begin with.
    pub(crate) fn new(group: &'static str) -> Self {
        Check {
            group,
            wrong: RefCell::default(),
            used: RefCell::default(),
        }
    }

    /// One fact of one file.
    pub(crate) fn fact(
        &self,
        file: &str,
        fact: &str,
        ours: impl Into<Value>,
        theirs: impl Into<Value>,
    ) {
        let (ours, theirs) = (ours.into(), theirs.into());
        let line = DIFFERENCES
            .iter()
            .position(|d| d.group == self.group && file.starts_with(d.file) && d.fact == fact);
        if ours == theirs {
            return;
        }
        let printed = ours.to_string();
        if let Some(line) = line
            && DIFFERENCES[line].ours == printed
        {
            self.used.borrow_mut().insert(line);
            return;
        }
        self.wrong
            .borrow_mut()
            .push(format!("{file}: {fact}: {ours}, expected {theirs}"));
    }

    /// Panics with everything that was wrong.
    pub(crate) fn finish(self) {
        let mut wrong = self.wrong.into_inner();
        let used = self.used.into_inner();
        for (n, line) in DIFFERENCES.iter().enumerate() {
            if line.group == self.group && !used.contains(&n) {
                wrong.push(format!(
                    "{}: {}: no difference any more",
                    line.file, line.fact
                ));
            }
        }
        assert!(wrong.is_empty(), "{}\n{}", wrong.len(), wrong.join("\n"));
    }
}
