//! Reads typed values out of the tree. Each `take` removes its key, so that what is left at the
//! end is what nobody knows; each fault is noted and reading goes on, so that all are told.

use std::fmt::Display;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::error::{ConfigError, ErrorList};
use super::tree::{Node, Origin, Table, Value};
use super::value::{parse_duration, parse_size, show_duration, show_size};

/// Keys of the product that this version does not have yet, and must not accept silently.
pub(crate) type Planned = &'static [&'static str];

/// One section being read.
#[derive(Debug)]
pub(crate) struct Section<'e> {
    path: String,
    table: Table,
    known: Vec<&'static str>,
    errors: &'e mut ErrorList,
    missing: Origin,
}

impl<'e> Section<'e> {
    pub(crate) fn root(table: Table, missing: Origin, errors: &'e mut ErrorList) -> Section<'e> {
        Section {
            path: String::new(),
            table,
            known: Vec::new(),
            errors,
            missing,
        }
    }

    fn full(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    /// Notes a fault of `key`.
    pub(crate) fn fault(&mut self, key: &str, node: &Node, message: impl Display) {
        let error = ConfigError {
            origin: node.origin.clone(),
            key: self.full(key),
            value: Some(node.value.shown()),
            message: message.to_string(),
        };
        self.errors.push(error);
    }

    /// Notes a fault at a place that no one value fills.
    pub(crate) fn fault_here(&mut self, key: &str, node: &Node, message: impl Display) {
        let error = ConfigError {
            origin: node.origin.clone(),
            key: self.full(key),
            value: None,
            message: message.to_string(),
        };
        self.errors.push(error);
    }

    /// How many faults were noted so far.
    pub(crate) fn faults(&self) -> usize {
        self.errors.len()
    }

    /// Where the section itself is written.
    pub(crate) fn whole(&self) -> Node {
        Node {
            origin: self.missing.clone(),
            value: Value::Table(Table::new()),
        }
    }

    pub(crate) fn take(&mut self, key: &'static str) -> Option<Node> {
        self.known.push(key);
        self.table.remove(key)
    }

    /// Takes a key that the embedded defaults have; without it (an API misuse of a caller who
    /// brings no defaults) a fault is noted.
    fn required(&mut self, key: &'static str) -> Option<Node> {
        let node = self.take(key);
        if node.is_none() {
            let error = ConfigError {
                origin: self.missing.clone(),
                key: self.full(key),
                value: None,
                message: "must be given".to_owned(),
            };
            self.errors.push(error);
        }
        node
    }

    /// Where `key` is written now, for checks of combinations later.
    pub(crate) fn peek(&self, key: &str) -> Option<Node> {
        self.table.get(key).cloned()
    }

    /// A sub-section; an empty one when it is not there.
    pub(crate) fn section<R>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&mut Section<'_>) -> R,
    ) -> R {
        let path = self.full(key);
        let table = match self.take(key) {
            Some(Node {
                value: Value::Table(table),
                ..
            }) => table,
            Some(node) => {
                self.fault(key, &node, format!("must be a section [{path}]"));
                Table::new()
            }
            None => Table::new(),
        };
        let mut section = Section {
            path,
            table,
            known: Vec::new(),
            errors: self.errors,
            missing: self.missing.clone(),
        };
        read(&mut section)
    }

    /// An array of tables (`[[key]]`).
    pub(crate) fn tables<R>(
        &mut self,
        key: &'static str,
        mut read: impl FnMut(&mut Section<'_>) -> Option<R>,
    ) -> Vec<R> {
        let full = self.full(key);
        let items = match self.take(key) {
            Some(Node {
                value: Value::Array(items),
                ..
            }) => items,
            Some(node) => {
                self.fault(key, &node, format!("must be a list of tables [[{full}]]"));
                return Vec::new();
            }
            None => return Vec::new(),
        };
        let mut result = Vec::new();
        for (i, node) in items.into_iter().enumerate() {
            let Node {
                origin,
                value: Value::Table(table),
            } = node
            else {
                self.fault(key, &node, format!("must be a table [[{full}]]"));
                continue;
            };
            let mut section = Section {
                path: format!("{full}[{i}]"),
                table,
                known: Vec::new(),
                errors: self.errors,
                missing: origin,
            };
            result.extend(read(&mut section));
        }
        result
    }

    /// Every key with its value: for tables whose keys are data.
    pub(crate) fn drain(&mut self) -> Table {
        std::mem::take(&mut self.table)
    }

    /// What is left is unknown, or not there yet.
    pub(crate) fn finish(&mut self, planned: Planned) {
        for (key, node) in std::mem::take(&mut self.table) {
            let message = if planned.contains(&key.as_str()) {
                "is not available yet in this version".to_owned()
            } else {
                let close = self.known.iter().min_by_key(|k| distance(k, &key));
                match close.filter(|k| distance(k, &key) <= 2) {
                    Some(close) => format!("unknown key; did you mean {close:?}?"),
                    None if self.known.is_empty() => "unknown key".to_owned(),
                    None => format!("unknown key; known here: {}", self.known.join(", ")),
                }
            };
            let value = match node.value {
                Value::Table(_) | Value::Array(_) => None,
                ref value => Some(value.shown()),
            };
            let error = ConfigError {
                origin: node.origin,
                key: self.full(&key),
                value,
                message,
            };
            self.errors.push(error);
        }
    }

    pub(crate) fn string(&mut self, key: &'static str) -> String {
        match self.required(key) {
            Some(node) => self.as_string(key, &node).unwrap_or_default(),
            None => String::new(),
        }
    }

    pub(crate) fn optional_string(&mut self, key: &'static str) -> Option<(String, Node)> {
        let node = self.take(key)?;
        self.as_string(key, &node).map(|s| (s, node))
    }

    /// A string that no default has, and where it is written.
    pub(crate) fn required_string(&mut self, key: &'static str) -> Option<(String, Node)> {
        let node = self.required(key)?;
        self.as_string(key, &node).map(|s| (s, node))
    }

    fn as_string(&mut self, key: &str, node: &Node) -> Option<String> {
        match &node.value {
            Value::String(s) | Value::Untyped(s) => Some(s.clone()),
            _ => {
                self.fault(key, node, "must be a string");
                None
            }
        }
    }

    pub(crate) fn boolean(&mut self, key: &'static str) -> bool {
        match self.required(key) {
            Some(node) => self.as_boolean(key, &node).unwrap_or(false),
            None => false,
        }
    }

    /// A switch that may be left out.
    pub(crate) fn boolean_or(&mut self, key: &'static str, default: Option<bool>) -> Option<bool> {
        match self.take(key) {
            Some(node) => self.as_boolean(key, &node).or(default),
            None => default,
        }
    }

    fn as_boolean(&mut self, key: &str, node: &Node) -> Option<bool> {
        match &node.value {
            Value::Boolean(b) => return Some(*b),
            Value::Untyped(s) if s == "true" || s == "1" => return Some(true),
            Value::Untyped(s) if s == "false" || s == "0" => return Some(false),
            _ => {}
        }
        self.fault(key, node, "must be true or false");
        None
    }

    pub(crate) fn integer(&mut self, key: &'static str, allowed: RangeInclusive<u64>) -> u64 {
        match self.required(key) {
            Some(node) => self
                .as_integer(key, &node, &allowed)
                .unwrap_or(*allowed.start()),
            None => *allowed.start(),
        }
    }

    pub(crate) fn optional_integer(
        &mut self,
        key: &'static str,
        allowed: RangeInclusive<u64>,
    ) -> Option<u64> {
        let node = self.take(key)?;
        self.as_integer(key, &node, &allowed)
    }

    pub(crate) fn as_integer(
        &mut self,
        key: &str,
        node: &Node,
        allowed: &RangeInclusive<u64>,
    ) -> Option<u64> {
        let number = match &node.value {
            Value::Integer(i) => u64::try_from(*i).ok(),
            Value::Untyped(s) => s.trim().replace('_', "").parse().ok(),
            _ => None,
        };
        let number = number.filter(|n| allowed.contains(n));
        if number.is_none() {
            self.fault(
                key,
                node,
                format!(
                    "must be a whole number from {} to {}",
                    allowed.start(),
                    allowed.end()
                ),
            );
        }
        number
    }

    /// A number that may be left out.
    pub(crate) fn integer_or(
        &mut self,
        key: &'static str,
        allowed: RangeInclusive<u64>,
        default: u64,
    ) -> u64 {
        self.optional_integer(key, allowed).unwrap_or(default)
    }

    pub(crate) fn duration(
        &mut self,
        key: &'static str,
        allowed: RangeInclusive<Duration>,
    ) -> Duration {
        let start = *allowed.start();
        match self.required(key) {
            Some(node) => self.as_duration(key, &node, allowed).unwrap_or(start),
            None => start,
        }
    }

    /// A duration that may be left out.
    pub(crate) fn duration_or(
        &mut self,
        key: &'static str,
        allowed: RangeInclusive<Duration>,
        default: Duration,
    ) -> Duration {
        self.take(key)
            .and_then(|node| self.as_duration(key, &node, allowed))
            .unwrap_or(default)
    }

    fn as_duration(
        &mut self,
        key: &str,
        node: &Node,
        allowed: RangeInclusive<Duration>,
    ) -> Option<Duration> {
        let parsed = match &node.value {
            Value::String(s) | Value::Untyped(s) => parse_duration(s),
            _ => None,
        };
        let parsed = parsed.filter(|d| allowed.contains(d));
        if parsed.is_none() {
            let (low, high) = (
                show_duration(*allowed.start()),
                show_duration(*allowed.end()),
            );
            self.fault(
                key,
                node,
                format!("must be a duration such as \"120ms\" or \"5s\", from {low} to {high}"),
            );
        }
        parsed
    }

    /// A number from 0 to 1 that may be left out.
    pub(crate) fn fraction_or(&mut self, key: &'static str, default: f64) -> f64 {
        let Some(node) = self.take(key) else {
            return default;
        };
        let number = match &node.value {
            Value::Float(x) => Some(*x),
            Value::Integer(0) => Some(0.0),
            Value::Integer(1) => Some(1.0),
            Value::Untyped(s) => s.trim().parse().ok(),
            _ => None,
        };
        match number.filter(|x| (0.0..=1.0).contains(x)) {
            Some(number) => number,
            None => {
                self.fault(key, &node, "must be a number from 0 to 1");
                default
            }
        }
    }

    pub(crate) fn size(&mut self, key: &'static str, allowed: RangeInclusive<u64>) -> u64 {
        let Some(node) = self.required(key) else {
            return *allowed.start();
        };
        let parsed = match &node.value {
            Value::String(s) | Value::Untyped(s) => parse_size(s),
            Value::Integer(i) => u64::try_from(*i).ok(),
            _ => None,
        };
        match parsed.filter(|n| allowed.contains(n)) {
            Some(size) => size,
            None => {
                let (low, high) = (show_size(*allowed.start()), show_size(*allowed.end()));
                self.fault(
                    key,
                    &node,
                    format!("must be a size such as \"4MiB\", from {low} to {high}"),
                );
                *allowed.start()
            }
        }
    }

    pub(crate) fn address(&mut self, key: &'static str) -> SocketAddr {
        let fallback = SocketAddr::from(([0, 0, 0, 0], 0));
        self.parsed(
            key,
            "must be an IP address and port such as \"[::]:30000\" or \"127.0.0.1:8080\"",
            |s| s.parse().ok(),
        )
        .unwrap_or(fallback)
    }

    /// A string with a form of its own; `allowed` says which.
    pub(crate) fn parsed<T>(
        &mut self,
        key: &'static str,
        allowed: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        let node = self.required(key)?;
        let parsed = match &node.value {
            Value::String(s) | Value::Untyped(s) => parse(s.trim()),
            _ => None,
        };
        if parsed.is_none() {
            self.fault(key, &node, allowed);
        }
        parsed
    }

    /// One of a few words.
    pub(crate) fn choice<T: Copy>(
        &mut self,
        key: &'static str,
        choices: &[(&str, T)],
    ) -> Option<T> {
        let words: Vec<_> = choices
            .iter()
            .map(|(word, _)| format!("{word:?}"))
            .collect();
        self.parsed(key, &format!("must be one of {}", words.join(", ")), |s| {
            choices.iter().find(|(word, _)| *word == s).map(|&(_, t)| t)
        })
    }

    /// One of a few words, which may be left out.
    pub(crate) fn choice_or<T: Copy>(
        &mut self,
        key: &'static str,
        choices: &[(&str, T)],
        default: Option<T>,
    ) -> Option<T> {
        if self.peek(key).is_none() {
            self.known.push(key);
            return default;
        }
        self.choice(key, choices)
    }

    /// A list whose elements have a form of their own. From the environment: commas between.
    pub(crate) fn list<T>(
        &mut self,
        key: &'static str,
        allowed: &str,
        parse: impl Fn(&Value) -> Option<T>,
    ) -> Vec<T> {
        let Some(node) = self.take(key) else {
            return Vec::new();
        };
        let items = match &node.value {
            Value::Array(items) => items.clone(),
            Value::Untyped(s) => s
                .trim_matches(['[', ']'])
                .split(',')
                .map(|item| item.trim().trim_matches('"'))
                .filter(|item| !item.is_empty())
                .map(|item| Node {
                    origin: node.origin.clone(),
                    value: Value::Untyped(item.to_owned()),
                })
                .collect(),
            _ => {
                self.fault(
                    key,
                    &node,
                    format!("must be a list; each element {allowed}"),
                );
                return Vec::new();
            }
        };
        let mut result = Vec::new();
        for item in items {
            match parse(&item.value) {
                Some(value) => result.push(value),
                None => self.fault(key, &item, format!("each element {allowed}")),
            }
        }
        result
    }
}

/// Text of a list element.
pub(crate) fn text(value: &Value) -> Option<&str> {
    match value {
        Value::String(s) | Value::Untyped(s) => Some(s),
        _ => None,
    }
}

/// Levenshtein distance, for "did you mean".
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().take(64).enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (y, cell) in b.iter().zip(row.iter_mut().skip(1)) {
            let best = (diagonal + usize::from(x != *y))
                .min(*cell + 1)
                .min(left + 1);
            diagonal = *cell;
            *cell = best;
            left = best;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::distance;

    #[test]
    fn distance_counts_edits() {
        assert_eq!(distance("latency", "latency"), 0);
        assert_eq!(distance("latency", "latenci"), 1);
        assert_eq!(distance("latency", "latecy"), 1);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
