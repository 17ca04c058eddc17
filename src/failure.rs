//! A failed workflow: the kind for the exit code, a sentence and a hint for people.

use crate::storage;
use std::fmt;

/// What a workflow returns instead of its result; `K` is the workflow's own set of kinds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure<K> {
    /// What the exit code is made of.
    pub kind: K,
    /// A lower-case statement with quoted values, one line.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl<K> Failure<K> {
    /// Without a hint.
    pub fn new(kind: K, message: impl Into<String>) -> Self {
        Failure { kind, message: message.into(), hint: None }
    }

    /// Says what to do.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Keeps a storage error's words and hint.
    pub fn from_storage(kind: K, error: &storage::Error) -> Self {
        Failure { kind, message: error.to_string(), hint: error.hint_text().map(str::to_owned) }
    }
}

impl<K> fmt::Display for Failure<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, " HINT: {hint}"),
            None => Ok(()),
        }
    }
}
