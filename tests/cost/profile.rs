//! Reads what callgrind wrote: instructions by function, its own, not those of what it called
//! (<https://valgrind.org/docs/manual/cl-format.html>).

use std::collections::HashMap;
use std::path::Path;

/// Instructions by function.
#[derive(Debug, Default)]
pub(crate) struct Profile {
    by_function: HashMap<String, u64>,
}

impl Profile {
    /// Reads a file.
    pub(crate) fn read(path: &Path) -> Self {
        let bytes = std::fs::read(path).expect("callgrind wrote its file");
        Self::parse(&String::from_utf8_lossy(&bytes))
    }

    fn parse(text: &str) -> Self {
        let mut profile = Profile::default();
        // A name is written once, as "(12) name", and then as "(12)".
        let mut names: HashMap<String, String> = HashMap::new();
        let mut resolve = |written: &str| {
            let (id, name) = written.split_once(' ').unwrap_or((written, ""));
            if name.is_empty() {
                names.get(id).cloned().unwrap_or_else(|| id.to_owned())
            } else {
                names.insert(id.to_owned(), name.to_owned());
                name.to_owned()
            }
        };
        let mut function = String::new();
        let mut is_call = false;
        for line in text.lines() {
            if let Some(name) = line.strip_prefix("fn=") {
                function = resolve(name);
            } else if let Some(name) = line.strip_prefix("cfn=") {
                resolve(name);
            } else if line.starts_with("calls=") {
                // The next line is the cost of what was called.
                is_call = true;
            } else if line.starts_with(|c: char| c.is_ascii_digit() || "+-*".contains(c)) {
                let cost = line.split_whitespace().nth(1).and_then(|n| n.parse().ok());
                if !core::mem::take(&mut is_call) {
                    *profile.by_function.entry(function.clone()).or_default() += cost.unwrap_or(0);
                }
            }
        }
        profile
    }

    /// All of them.
    pub(crate) fn total(&self) -> u64 {
        self.by_function.values().sum()
    }

    /// Those of functions whose name is chosen.
    pub(crate) fn of(&self, choose: impl Fn(&str) -> bool) -> u64 {
        let chosen = self.by_function.iter().filter(|(name, _)| choose(name));
        chosen.map(|(_, cost)| cost).sum()
    }
}

#[test]
fn own_instructions_are_told_from_those_of_calls() {
    let text = "version: 1\nevents: Ir\n\nfl=(1) a.rs\nfn=(1) work\n10 5\n+2 7\n\
                cfn=(2) memcpy\ncalls=3 40\n12 90\n\nfn=(2)\n40 90\n\nfn=(1)\n* 1\n";
    let profile = Profile::parse(text);
    assert_eq!(profile.total(), 103);
    assert_eq!(profile.of(|name| name == "memcpy"), 90);
    assert_eq!(profile.of(|name| name == "work"), 13);
}
