//! Where objects live: one small trait, its errors, its backends and wrappers.
//!
//! # The contract of [`Storage`]
//!
//! * **create** is the only write. It makes the whole object visible or nothing, is durable when
//!   it returns, and fails with [`Kind::AlreadyExists`] without touching what is there. Of racing
//!   creators exactly one wins.
//! * **get** and **head** say [`Kind::NotFound`] only where the store itself answered that there
//!   is no such key. A missing root, a missing bucket, a refused request are other kinds.
//! * **list** is sorted by bytes and complete, or ends with an error.
//! * **delete** of a key that is not there is success.
//! * Every method may be called from any thread at any time.
//!
//! [`conformance`] holds every backend and wrapper to it. Deadlines, repeats and injected
//! faults are wrappers, not flags in a backend.

pub mod attended;
pub mod body;
pub mod conformance;
pub mod deadline;
pub mod faulty;
pub mod giving_up;
pub mod keyed;
mod layer;
pub mod local;
pub mod memory;
pub mod open;
mod pool;
pub mod retry;
pub mod s3;

use crate::host::stamp::Stamp;
use crate::object::Key;
use crate::object::age::Keyring;
use std::error::Error as StdError;
use std::fmt;
use std::io::Read;
use std::sync::Arc;
use std::time::SystemTime;

pub use body::{Body, BodyWriter};
pub use open::{Destination, Location};

/// What a failure means for the caller's next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The store answered: there is no such key.
    NotFound,
    /// The key is taken; nothing was changed.
    AlreadyExists,
    /// The store refuses: permissions, credentials.
    Denied,
    /// The store cannot be reached or cannot do it now: network, mount, full disk, I/O error.
    Unavailable,
    /// The place itself is not there: a root that is not mounted or mistyped, a bucket that does not
    /// exist. Says nothing about a key.
    NoPlace,
    /// The deadline passed before the store answered.
    TimedOut,
    /// The store answered with something that cannot be true of what was asked.
    Damaged,
    /// The request or the store's set-up is wrong, and will be until somebody changes it.
    Invalid,
}

/// A failed request: the kind for decisions, the rest for people.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    what: String,
    hint: Option<String>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// The result of a storage request.
pub type Result<T> = std::result::Result<T, Error>;

/// A deletion of many objects that failed on the way.
#[derive(Debug)]
pub struct DeletionFailed {
    /// How many of the objects are gone for certain; of others nobody knows.
    pub deleted: u64,
    /// Why the others are not.
    pub error: Error,
}

impl DeletionFailed {
    /// A failure before anything was deleted.
    pub fn of_all(error: Error) -> Self {
        DeletionFailed { deleted: 0, error }
    }
}

impl Error {
    /// `what`: a lower-case statement that names the object and the place.
    pub fn new(kind: Kind, what: impl Into<String>) -> Self {
        Error { kind, what: what.into(), hint: None, source: None }
    }

    /// Adds what the system said.
    pub fn caused_by(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Adds what to do about it.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// What to decide by.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// What to do about it, where there is something to say.
    pub fn hint_text(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// Finds the storage error that a body's reader passed through `io::Error`.
    pub fn of_io(error: std::io::Error, place: &str) -> Error {
        match error.downcast::<Error>() {
            Ok(storage) => storage,
            Err(other) => {
                Error::new(Kind::Unavailable, format!("cannot read from \"{place}\"")).caused_by(other)
            }
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        match &self.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

/// Which bytes of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Range {
    Whole,
    /// From this offset to the end; nothing of an object that is no longer.
    From(u64),
    /// The first so many, or all of a shorter object.
    First(u64),
    /// The last so many, or all of a shorter object.
    Last(u64),
}

impl Range {
    /// Where it begins in an object of `size` bytes.
    pub fn start(self, size: u64) -> u64 {
        match self {
            Range::Whole | Range::First(_) => 0,
            Range::From(offset) => offset.min(size),
            Range::Last(count) => size.saturating_sub(count),
        }
    }

    /// Where it ends.
    pub fn end(self, size: u64) -> u64 {
        match self {
            Range::First(count) => count.min(size),
            Range::Whole | Range::From(_) | Range::Last(_) => size,
        }
    }
}

/// An object on its way in. The length and time are of the whole object, whatever the range.
pub struct Object {
    /// Length in bytes.
    pub size: u64,
    /// When it was created, by the store's clock.
    pub modified: SystemTime,
    /// The bytes of the range asked for.
    pub body: Box<dyn Read + Send>,
}

/// One key of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Relative to the destination's prefix.
    pub key: String,
    /// Length in bytes.
    pub size: u64,
    /// When it was created, by the store's clock.
    pub modified: SystemTime,
}

/// Entries in the order of their keys' bytes; an error ends it.
pub type Listing = Box<dyn Iterator<Item = Result<Entry>> + Send>;

/// A place for objects. See the module's contract.
pub trait Storage: Send + Sync {
    /// The place, for messages: a URL without secrets.
    fn place(&self) -> &str;

    /// What tells the place from every other one, for the spool's memory.
    fn address(&self) -> String;

    /// Creates an object, whole and durable, or not at all.
    fn create(&self, key: &Key, body: &Body) -> Result<()>;

    /// Reads an object, or a part of it.
    fn get(&self, key: &Key, range: Range) -> Result<Object>;

    /// An object's length and time.
    fn head(&self, key: &Key) -> Result<Entry>;

    /// What a file system says of an object, and would say otherwise after any change; `None` for a
    /// store whose objects are no files, which is asked nothing. What is not there is
    /// [`Kind::NotFound`].
    fn fingerprint(&self, key: &Key) -> Result<Option<Stamp>>;

    /// What the store's clock shows, by which it says when objects were created.
    fn clock(&self) -> Result<SystemTime>;

    /// The keys that begin with `prefix`, have no `/` after it, and sort after `after`.
    fn list(&self, prefix: &str, after: &str) -> Result<Listing>;

    /// The same keys in whatever order they come first, for who needs only a few of them: a large
    /// directory is not read to its end.
    fn list_unordered(&self, prefix: &str) -> Result<Listing>;

    /// The names of the folders directly below `prefix`, which is empty or ends with `/`; in order. A
    /// folder is what keys have before a further `/`; a file system may show an empty one.
    fn folders(&self, prefix: &str) -> Result<Vec<String>>;

    /// Deletes an object, durably.
    fn delete(&self, key: &Key) -> Result<()>;

    /// Deletes many objects. Where it fails, it says how many are gone.
    fn delete_all(&self, keys: &[Key]) -> std::result::Result<(), DeletionFailed>;

    /// Makes an object durable that another process created and may not have finished with.
    /// Stores that acknowledge only what is durable have nothing to do.
    fn make_durable(&self, key: &Key) -> Result<()>;

    /// Proves before the first push that the place keeps the contract of `create`; places whose
    /// system guarantees it have nothing to do.
    fn prove_create(&self) -> Result<()>;

    /// Removes what an interrupted create of this program left behind and nobody can see.
    fn sweep(&self, now: SystemTime) -> Result<()>;

    /// What kind of place it is.
    fn nature(&self) -> Nature;

    /// The keys that are configured for its objects, of which the store itself knows nothing.
    fn keys(&self) -> &Keyring;
}

/// What kind of place holds the objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nature {
    /// Files. The place may silently be another one, as where its disk is not mounted, so its identity is
    /// read every time, and existing objects are read in full. A listing reads every name that there is, so
    /// a dozen questions for single keys cost less; it says what it sees of a file for nothing.
    Directory,
    /// A store that answers for itself, request by request. Without the right to list it refuses what is
    /// not there as it refuses what may not be read.
    Bucket,
}

impl Nature {
    /// Whether it is one of files.
    pub fn is_directory(self) -> bool {
        self == Nature::Directory
    }
}

/// Deletes one after the other, for a place that cannot delete many at once.
fn delete_each(storage: &dyn Storage, keys: &[Key]) -> std::result::Result<(), DeletionFailed> {
    for (deleted, key) in (0..).zip(keys) {
        storage.delete(key).map_err(|error| DeletionFailed { deleted, error })?;
    }
    Ok(())
}

/// Whether an error may stand for what is not there.
pub fn hides_what_is_missing(storage: &dyn Storage, error: &Error) -> bool {
    error.kind() == Kind::Denied && !storage.nature().is_directory()
}

/// A storage to share between threads.
pub type Shared = Arc<dyn Storage>;
