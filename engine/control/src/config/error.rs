//! What is wrong with a configuration: all of it at once, each fault with its place, key,
//! value and what is allowed (product contract, section 3).

use std::fmt;

use super::HIDDEN;
use super::tree::Origin;

/// One fault.
#[derive(Clone, Debug)]
pub struct ConfigError {
    pub(crate) origin: Origin,
    /// The key with its section ("srt.latency"); empty for a syntax error.
    pub key: String,
    /// The value as it was written, where one value is at fault.
    pub value: Option<String>,
    /// What is wrong or what is allowed.
    pub message: String,
}

impl ConfigError {
    /// File and line, environment variable, or `--set`.
    pub fn place(&self) -> String {
        self.origin.to_string()
    }

    /// The line, where the fault is in a file.
    pub fn line(&self) -> Option<usize> {
        match self.origin {
            Origin::File(_, line) => Some(line),
            _ => None,
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.origin)?;
        match (&self.key, &self.value) {
            (key, _) if key.is_empty() => {}
            (key, Some(value)) => write!(f, "{key} = {value}: ")?,
            (key, None) => write!(f, "{key}: ")?,
        }
        f.write_str(&self.message)
    }
}

/// Everything that is wrong, in the order of place.
#[derive(Clone, Debug, Default)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// Whether a key of this name (or one that was meant to be it) holds a secret.
fn is_secret(key: &str) -> bool {
    // All of it: a secret may have been written one level too deep.
    let name = key.to_ascii_lowercase();
    let secret = ["pass", "phrase", "secret", "token", "word", "pwd", "psk"];
    let last = name.rsplit('.').next();
    !name.ends_with("_file")
        && (secret.iter().any(|part| name.contains(part)) || last == Some("key"))
}

/// A wrong value as it may be shown. Whatever else is wrong with it, a URL has its secrets
/// behind the `?` or before the `@`, and a whole table in one string may have one anywhere.
fn without_secrets(key: &str, mut value: String) -> String {
    if is_secret(key) {
        return HIDDEN.to_owned();
    }
    if key.ends_with("_file") {
        return value;
    }
    let url = value.contains("://") || key.ends_with(".url");
    if url && value.contains('@') {
        return HIDDEN.to_owned();
    }
    if url && let Some(query) = value.find('?') {
        let quote = if value.ends_with('"') { "\"" } else { "" };
        value.truncate(query + 1);
        value.push_str(HIDDEN);
        value.push_str(quote);
    }
    let lower = value.to_ascii_lowercase();
    let secret = ["pass", "secret", "token"]
        .iter()
        .any(|p| lower.contains(p));
    if secret { HIDDEN.to_owned() } else { value }
}

/// What `--set` was given, up to where a secret may begin.
pub(crate) fn without_secret(pair: &str) -> String {
    if !is_secret(pair) {
        return pair.to_owned();
    }
    let key = |c: &char| c.is_ascii_alphanumeric() || "._[]-".contains(*c);
    let mut shown: String = pair.chars().take_while(key).collect();
    if shown.len() < pair.len() {
        shown.push_str(HIDDEN);
    }
    shown
}

/// Collects faults.
#[derive(Debug, Default)]
pub(crate) struct ErrorList(Vec<ConfigError>);

impl ErrorList {
    /// Notes a fault; secrets in its value are not kept.
    pub(crate) fn push(&mut self, mut error: ConfigError) {
        let key = &error.key;
        error.value = error.value.map(|value| without_secrets(key, value));
        self.0.push(error);
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn finish<T>(mut self, value: T) -> Result<T, ConfigErrors> {
        if self.0.is_empty() {
            return Ok(value);
        }
        self.0.sort_by_key(|e| match &e.origin {
            Origin::File(name, line) => (0, name.to_string(), *line),
            Origin::Environment(name) => (1, name.to_string(), 0),
            Origin::CommandLine => (2, String::new(), 0),
            Origin::Request => (3, String::new(), 0),
        });
        Err(ConfigErrors(self.0))
    }
}
