//! Compares facts, and keeps the table of differences honest: a line that no longer applies is an
//! error as well.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::PathBuf;

use mirror_inspect::{Options, inspect};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::coverage::Coverage;
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

/// SHA-256 in hex.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|b| format!("{b:02x}")).collect()
}

/// A file and what `inspect` finds in it.
pub(crate) struct Case {
    /// Its name, of captures without the extension.
    pub(crate) name: String,
    pub(crate) file: String,
    pub(crate) bytes: Vec<u8>,
    pub(crate) sha256: String,
    pub(crate) ours: Value,
}

/// Everything is listed.
pub(crate) fn all_lists() -> Options {
    Options {
        units: true,
        packets: true,
        ..Options::default()
    }
}

impl Case {
    pub(crate) fn new(folder_name: &str, file: &str, options: &Options) -> Self {
        let path = folder(folder_name).join(file);
        let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        Case {
            name: file.trim_end_matches(".pcap").to_owned(),
            file: file.to_owned(),
            sha256: sha256(&bytes),
            bytes,
            ours: found(folder_name, file, options),
        }
    }

    /// The facts are of this file.
    pub(crate) fn check(&self, check: &Check, facts: &Value) {
        let name = &self.name;
        check.fact(name, "sha256", &*self.sha256, facts["sha256"].clone());
        check.fact(name, "file", &*self.file, facts["file"].clone());
        if facts["bytes"].is_u64() {
            check.fact(name, "file bytes", self.bytes.len(), facts["bytes"].clone());
        }
    }
}

/// Compares every file with its facts, and shows that all facts are compared.
pub(crate) fn compare_all(
    group: &'static str,
    folder: &str,
    files: &[String],
    options: impl Fn(&str, &Value) -> Options,
    compare: &dyn Fn(&Check, &Case, &Value),
) {
    let check = Check::new(group);
    let mut coverage = Coverage::new(group);
    for file in files {
        let facts = expected(folder, file.trim_end_matches(".pcap"));
        let case = Case::new(folder, file, &options(file, &facts));
        compare(&check, &case, &facts);
        coverage.file(&case, &facts, compare);
    }
    check.finish();
    coverage.finish();
}

/// The capture as such.
pub(crate) fn check_capture(check: &Check, name: &str, facts: &Value, ours: &Value) {
    let capture = &ours["capture"];
    for (our, their) in [
        ("packets", "packets"),
        ("duration_s", "duration_s"),
        ("other_packets", "non_udp_packets"),
    ] {
        let theirs = match &facts[their] {
            Value::Null => json!(0),
            theirs => theirs.clone(),
        };
        check.fact(name, our, capture[our].clone(), theirs);
    }
}

/// Compares the facts of a group of files.
pub(crate) struct Check {
    group: &'static str,
    wrong: RefCell<Vec<String>>,
    used: RefCell<BTreeSet<usize>>,
    /// Everything that was compared.
    compared: RefCell<DefaultHasher>,
}

impl Check {
    /// `group` is the folder and what the names of its files begin with.
    pub(crate) fn new(group: &'static str) -> Self {
        Check {
            group,
            wrong: RefCell::default(),
            used: RefCell::default(),
            compared: RefCell::default(),
        }
    }

    /// What the comparisons were, as a number.
    pub(crate) fn compared(&self) -> u64 {
        self.compared.borrow().finish()
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
        (fact, &ours, &theirs).hash(&mut *self.compared.borrow_mut());
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
