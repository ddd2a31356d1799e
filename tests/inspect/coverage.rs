//! Every fact beside a file is compared: each is changed in turn, and the comparison has to notice.
//! A fact that nobody compares fails the test, unless a line of [`UNREAD`] says why; a line that
//! is no longer needed fails it, too.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

use serde_json::{Value, json};

use crate::check::{Case, Check, expected, files};
use crate::unread::UNREAD;

thread_local! {
    /// A panic here says that a change was noticed.
    static EXPECTED: Cell<bool> = const { Cell::new(false) };
}

/// Leaves panics that are expected unprinted.
fn quiet() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = take_hook();
        set_hook(Box::new(move |info| {
            if !EXPECTED.get() {
                usual(info);
            }
        }));
    });
}

/// Places of a kind in one file that are changed.
const PLACES: usize = 4;

/// A step into a fact.
#[derive(Clone, Debug)]
enum Step {
    Key(String),
    Index(usize),
}

/// Whether a key is data: a number, a PID, a path of addresses.
fn is_data(key: &str) -> bool {
    let hex = key.strip_prefix("0x").unwrap_or(key);
    let is_number = !hex.is_empty() && hex.chars().all(|c| c.is_ascii_hexdigit());
    key.contains('>') || is_number && key.chars().next().is_some_and(|c| c.is_ascii_digit())
}

/// The leaves of `value`, by the kind of their place: keys that are data are `*`, places in lists
/// `[]`. An empty list or object is a leaf.
fn leaves(value: &Value, kind: &str, at: &[Step], found: &mut BTreeMap<String, Vec<Vec<Step>>>) {
    let mut go = |kind: String, step: Step, value: &Value| {
        let at = [at, &[step]].concat();
        leaves(value, &kind, &at, found);
    };
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (key, value) in map {
                let shown = if is_data(key) { "*" } else { key };
                let dot = if kind.is_empty() { "" } else { "." };
                go(format!("{kind}{dot}{shown}"), Step::Key(key.clone()), value);
            }
        }
        Value::Array(list) if !list.is_empty() => {
            for (n, value) in list.iter().enumerate() {
                go(format!("{kind}[]"), Step::Index(n), value);
            }
        }
        _ => found.entry(kind.to_owned()).or_default().push(at.to_vec()),
    }
}

/// Something else of the same type.
fn changed(value: &Value) -> Value {
    match value {
        Value::Null => json!(1),
        Value::Bool(is) => json!(!is),
        Value::Number(number) => match (number.as_u64(), number.as_i64()) {
            (Some(n), _) => json!(n + 1),
            (_, Some(n)) => json!(n + 1),
            _ => json!(number.as_f64().unwrap_or(0.0) + 1.0),
        },
        Value::String(text) => {
            let mut text = text.clone();
            let last = match text.pop() {
                Some('0') => "1",
                Some(c) if c.is_ascii_digit() => "0",
                Some('a') => "b",
                Some(c) => {
                    text.push(c);
                    "a"
                }
                None => "x",
            };
            json!(text + last)
        }
        Value::Array(_) => json!(["more"]),
        Value::Object(_) => json!({"more": 1}),
    }
}

fn put(facts: &mut Value, at: &[Step]) {
    let mut place = facts;
    for step in at {
        place = match step {
            Step::Key(key) => &mut place[key.as_str()],
            Step::Index(n) => &mut place[*n],
        };
    }
    *place = changed(place);
}

/// First, last and some in between.
fn some(places: &[Vec<Step>]) -> impl Iterator<Item = &Vec<Step>> {
    let most = places.len().min(PLACES);
    (0..most).map(move |n| &places[n * (places.len() - 1) / (most - 1).max(1)])
}

/// What the comparisons of a group read.
pub(crate) struct Coverage {
    group: &'static str,
    /// Lines that were needed.
    used: BTreeSet<usize>,
    wrong: Vec<String>,
}

impl Coverage {
    pub(crate) fn new(group: &'static str) -> Self {
        quiet();
        Coverage {
            group,
            used: BTreeSet::new(),
            wrong: Vec::new(),
        }
    }

    /// Changes the facts of one file, one by one.
    pub(crate) fn file(
        &mut self,
        case: &Case,
        facts: &Value,
        compare: &dyn Fn(&Check, &Case, &Value),
    ) {
        let compared = |facts: &Value| {
            let check = Check::new(self.group);
            // Facts that cannot be are noticed, too.
            EXPECTED.set(true);
            let run = catch_unwind(AssertUnwindSafe(|| compare(&check, case, facts)));
            EXPECTED.set(false);
            run.ok().map(|()| check.compared())
        };
        let as_they_are = compared(facts);
        let mut kinds = BTreeMap::new();
        leaves(facts, "", &[], &mut kinds);
        for (kind, places) in kinds {
            let is_it = |line: &crate::unread::Unread| {
                let groups = line.group.is_empty() || line.group == self.group;
                groups && case.name.starts_with(line.file) && line.fact == kind
            };
            let line = UNREAD.iter().position(is_it);
            let unnoticed = some(&places).any(|at| {
                let mut facts = facts.clone();
                put(&mut facts, at);
                compared(&facts) == as_they_are
            });
            match (unnoticed, line) {
                (true, Some(line)) => {
                    self.used.insert(line);
                }
                (true, None) => {
                    let name = &case.name;
                    self.wrong.push(format!("{name}: {kind} is not compared"));
                }
                (false, _) => {}
            }
        }
    }

    /// Panics with everything that nobody reads.
    pub(crate) fn finish(mut self) {
        for (n, line) in UNREAD.iter().enumerate() {
            if line.group == self.group && !self.used.contains(&n) {
                let (file, fact) = (line.file, line.fact);
                self.wrong
                    .push(format!("{file}: {fact} is compared, or is not there"));
            }
        }
        let wrong = self.wrong;
        assert!(wrong.is_empty(), "{}\n{}", wrong.len(), wrong.join("\n"));
    }
}

#[test]
fn what_is_unread_everywhere_is_somewhere() {
    let mut kinds = BTreeMap::new();
    for folder in ["media", "rtp", "srt"] {
        for file in files(folder, |n| n.ends_with(".json")) {
            let facts = expected(folder, file.trim_end_matches(".json"));
            leaves(&facts, "", &[], &mut kinds);
        }
    }
    for line in UNREAD.iter().filter(|line| line.group.is_empty()) {
        assert!(kinds.contains_key(line.fact), "{}", line.fact);
    }
}
