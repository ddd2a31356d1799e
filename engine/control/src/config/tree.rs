//! The configuration before it has a meaning: a tree of values in which each value remembers
//! where it was written. Four layers are laid over one another (the embedded defaults, the
//! file, the environment, `--set`), and only the result is read by the validators.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, ErrorList};

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A line of a file.
    File(Arc<str>, usize),
    /// An environment variable.
    Environment(Arc<str>),
    /// `--set` on the command line.
    CommandLine,
    /// A request over HTTP.
    Request,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::File(name, line) => write!(f, "{name}:{line}"),
            Origin::Environment(name) => write!(f, "environment {name}"),
            Origin::CommandLine => f.write_str("--set"),
            Origin::Request => f.write_str("the request"),
        }
    }
}

/// A value and where it was written.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) origin: Origin,
    pub(crate) value: Value,
}

/// A value without its meaning.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Table(Table),
    Array(Vec<Node>),
    String(String),
    Integer(i64),
    Float(f64),
    Boolean(bool),
    /// From the environment or the command line: its type is what the key asks for.
    Untyped(String),
    /// A TOML type that no key has.
    Other(String),
}

pub(crate) type Table = BTreeMap<String, Node>;

impl Value {
    /// The value as an error message shows it.
    pub(crate) fn shown(&self) -> String {
        match self {
            Value::Table(_) => "a table".to_owned(),
            Value::Array(items) => {
                let items: Vec<_> = items.iter().map(|n| n.value.shown()).collect();
                format!("[{}]", items.join(", "))
            }
            Value::String(s) => format!("{s:?}"),
            Value::Integer(i) => i.to_string(),
            Value::Float(x) => x.to_string(),
            Value::Boolean(b) => b.to_string(),
            Value::Untyped(s) | Value::Other(s) => s.clone(),
        }
    }
}

/// Parses a TOML document. Syntax errors (all that the parser can tell apart) go to `errors`.
pub(crate) fn parse(name: &str, text: &str, errors: &mut ErrorList) -> Table {
    let name: Arc<str> = Arc::from(name);
    let lines = Lines::of(text);
    let (table, found) = DeTable::parse_recoverable(text);
    // One syntax error makes the parser stumble over what follows: only the first is certain.
    if let Some(error) = found.first() {
        let line = error.span().map_or(1, |span| lines.line(span.start));
        errors.push(ConfigError {
            origin: Origin::File(name.clone(), line),
            key: String::new(),
            value: None,
            message: format!("not valid TOML: {}", error.message().trim()),
        });
        return Table::new();
    }
    convert_table(table.get_ref(), &name, &lines)
}

fn convert_table(table: &DeTable<'_>, name: &Arc<str>, lines: &Lines) -> Table {
    table
        .iter()
        .map(|(key, value)| {
            // The key's line: that of a value may be the last of several.
            let origin = Origin::File(name.clone(), lines.line(key.span().start));
            let value = convert(value.get_ref(), name, lines, &origin);
            (key.get_ref().to_string(), Node { origin, value })
        })
        .collect()
}

fn convert(value: &DeValue<'_>, name: &Arc<str>, lines: &Lines, origin: &Origin) -> Value {
    match value {
        DeValue::String(s) => Value::String(s.to_string()),
        DeValue::Integer(i) => i64::from_str_radix(i.as_str(), i.radix())
            .map_or_else(|_| Value::Other(i.to_string()), Value::Integer),
        DeValue::Float(x) => x
            .as_str()
            .parse()
            .map_or_else(|_| Value::Other(x.to_string()), Value::Float),
        DeValue::Boolean(b) => Value::Boolean(*b),
        DeValue::Datetime(d) => Value::Other(d.to_string()),
        DeValue::Table(t) => Value::Table(convert_table(t, name, lines)),
        DeValue::Array(items) => Value::Array(
            items
                .iter()
                .map(|item| {
                    let line = lines.line(item.span().start);
                    let origin = match origin {
                        Origin::File(name, _) => Origin::File(name.clone(), line),
                        other => other.clone(),
                    };
                    let value = convert(item.get_ref(), name, lines, &origin);
                    Node { origin, value }
                })
                .collect(),
        ),
    }
}

/// Lays `upper` over `base`: tables are merged, everything else is replaced.
pub(crate) fn overlay(base: &mut Table, upper: Table) {
    for (key, node) in upper {
        match (base.get_mut(&key), node) {
            (
                Some(Node {
                    value: Value::Table(below),
                    ..
                }),
                Node {
                    value: Value::Table(above),
                    ..
                },
            ) => overlay(below, above),
            (_, node) => {
                base.insert(key, node);
            }
        }
    }
}

/// Puts an untyped value at `path` ("srt.latency"). Elements of arrays have no path.
pub(crate) fn set_path(
    root: &mut Table,
    path: &str,
    text: &str,
    origin: Origin,
) -> Result<(), String> {
    let mut parts: Vec<&str> = path.split('.').collect();
    let last = parts
        .pop()
        .filter(|p| !p.is_empty())
        .ok_or("the key is empty")?;
    let mut table = root;
    for part in parts {
        if part.is_empty() {
            return Err("a part of the key is empty".to_owned());
        }
        let node = table.entry(part.to_owned()).or_insert_with(|| Node {
            origin: origin.clone(),
            value: Value::Table(Table::new()),
        });
        table = match &mut node.value {
            Value::Table(t) => t,
            _ => return Err(format!("{part} is no section")),
        };
    }
    table.insert(
        last.to_owned(),
        Node {
            origin,
            value: Value::Untyped(text.to_owned()),
        },
    );
    Ok(())
}

/// Byte offset → line number.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Self {
        Lines(
            text.bytes()
                .enumerate()
                .filter(|&(_, b)| b == b'\n')
                .map(|(i, _)| i)
                .collect(),
        )
    }

    fn line(&self, offset: usize) -> usize {
        self.0.partition_point(|&newline| newline < offset) + 1
    }
}
