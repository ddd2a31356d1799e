//! What is wrong with a configuration: all of it at once, each fault with its place, key,
//! value and what is allowed (product contract, section 3).

use std::fmt;

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

/// Collects faults.
#[derive(Debug, Default)]
pub(crate) struct ErrorList(Vec<ConfigError>);

impl ErrorList {
    pub(crate) fn push(&mut self, error: ConfigError) {
        self.0.push(error);
    }

    pub(crate) fn finish<T>(mut self, value: T) -> Result<T, ConfigErrors> {
        if self.0.is_empty() {
            return Ok(value);
        }
        self.0.sort_by_key(|e| match &e.origin {
            Origin::File(name, line) => (0, name.to_string(), *line),
            Origin::Environment(name) => (1, name.to_string(), 0),
            Origin::CommandLine => (2, String::new(), 0),
        });
        Err(ConfigErrors(self.0))
    }
}
