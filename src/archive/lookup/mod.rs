//! Where a WAL file stands at a destination: in whatever encoding, in WAL-G's folder or directly
//! under the prefix; and what a listing shows around a name that is not there.
//!
//! Our own object is asked for by its key. What is here is for the rest: a miss, and archives
//! that other tools wrote to. What the findings mean is for [`crate::archive::absent`] to say.

mod around;
mod sample;

pub use around::{Around, Later, Relative, SAMPLE, around, later_timelines};
pub use sample::{Limit, Sample, is_ours, sample};

use crate::archive::object::{self, Label, OpenError, Opener};
use crate::object::key::WAL_FOLDER;
use crate::object::{Checks, Encoding, Encryption, Key, Stored};
use crate::storage::{Kind, Result, Storage};
use crate::wal::{FirstPage, SystemId, WalName};
use std::io::{self, Write};

/// The objects of one name at a destination.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Copies {
    /// In the order in which they are believed.
    pub keys: Vec<Key>,
    /// The key of one in an encoding that is not read here.
    pub unknown: Option<String>,
}

/// Lists the objects of a name: in [`WAL_FOLDER`], and directly under the prefix too where `plain`
/// files may stand there.
pub fn copies(storage: &dyn Storage, name: WalName, plain: bool) -> Result<Copies> {
    let mut found = Copies::default();
    for folder in folders(plain) {
        for entry in storage.list(&format!("{folder}{name}"), "")? {
            found.note(name, folder, &entry?.key);
        }
    }
    Key::sort(name, &mut found.keys);
    Ok(found)
}

/// What WAL-G encrypts keeps the names of what it does not encrypt, and looks damaged.
pub const WAL_G_DECRYPTS: &str =
    "what WAL-G encrypted, \"wal-g wal-fetch NAME PATH\" decrypts where its key is";

/// Why an object of a WAL file is not read in its archive, as the end of a sentence, and what to do about it.
pub fn unread(key: &str) -> (&'static str, String) {
    let stored = Stored::parse(key.strip_prefix(WAL_FOLDER).unwrap_or(key));
    match stored.encoding() {
        None => (
            "in an encoding that this version does not read",
            format!(
                "if \"{key}\" is encrypted or encoded, decode it with the tool that stored it and put the plain file beside \
                 it; if it is what an interrupted copy left behind, remove it"
            ),
        ),
        Some(Encoding::Age) => (
            "in age's encoding, and the archive is not encrypted",
            format!(
                "decrypt it and put the plain file beside it; \"wal-archive quarantine --force {key}\" moves it aside"
            ),
        ),
        Some(_) => (
            "not encrypted, and the archive is",
            format!(
                "find out who stored it; wal-push, or \"wal-archive copy\" from an archive that is not encrypted, stores \
                 the file encrypted, and \"wal-archive quarantine --force {key}\" moves this one aside"
            ),
        ),
    }
}

impl Copies {
    /// Leaves those that are read in such an archive; any other is as one that nobody can read.
    pub fn leave(&mut self, encryption: Encryption) {
        let is_read = |encoding: Encoding| encoding.is_read(encryption);
        let (read, unread): (Vec<_>, Vec<_>) = std::mem::take(&mut self.keys)
            .into_iter()
            .partition(|key| Stored::of(key).encoding().is_some_and(is_read));
        self.keys = read;
        self.unknown = unread.first().map(Key::to_string).or_else(|| self.unknown.take());
    }

    /// Takes up a key of that folder; `true` where it is of the name.
    fn note(&mut self, name: WalName, folder: &str, key: &str) -> bool {
        match Stored::parse(key.strip_prefix(folder).unwrap_or(key)) {
            Stored::Wal(other, _) if other == name => {
                self.keys.extend(Key::parse(key));
                true
            }
            Stored::Unknown(other, _) if other == name => {
                self.unknown = Some(key.to_owned());
                true
            }
            _ => false,
        }
    }
}

/// Where objects may be: in [`WAL_FOLDER`], and directly under the prefix too where `plain` files may
/// stand there.
pub(crate) fn folders(plain: bool) -> &'static [&'static str] {
    if plain { &[WAL_FOLDER, ""] } else { &[WAL_FOLDER] }
}

/// The cluster that some objects are of: `ours` where any of them is, else that of the first which
/// tells, by its trailer or its first page. No object is read whole.
pub fn system_id(
    storage: &dyn Storage,
    keys: &[Key],
    ours: Option<SystemId>,
    checks: Checks,
) -> Result<Option<SystemId>> {
    let mut told = None;
    for key in keys {
        match system_id_of(storage, key, checks) {
            Ok(None) => {}
            Ok(id) if id == ours || ours.is_none() => return Ok(id),
            Ok(id) => told = told.or(id),
            Err(error) if error.kind() == Kind::NotFound => {} // gone since the listing
            Err(error) => return Err(error),
        }
    }
    Ok(told)
}

fn system_id_of(storage: &dyn Storage, key: &Key, checks: Checks) -> Result<Option<SystemId>> {
    let stored = Stored::of(key);
    if is_ours(&stored) {
        match object::label(storage, key)? {
            Label::Ours(trailer) => return Ok(trailer.system_id),
            Label::Sealed(seal, _) => return Ok(seal.system_id),
            Label::None | Label::Damaged(_) => {}
        }
    }
    if !stored.name().is_some_and(WalName::is_pages) || checks == Checks::NoHeader {
        return Ok(None);
    }
    let mut head = Head(Vec::with_capacity(FirstPage::LEN));
    match Opener::of_any_cluster(checks).open(storage, key, &mut head) {
        Err(OpenError::Storage(error)) => Err(error),
        Ok(_) | Err(OpenError::Output(_)) => Ok(FirstPage::read(&head.0).map(|page| page.system_id())),
    }
}

/// Takes the first bytes of a file and fails at the next ones, so that the rest is not decoded.
struct Head(Vec<u8>);

impl Write for Head {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let missing = FirstPage::LEN.saturating_sub(self.0.len());
        if missing == 0 {
            return Err(io::Error::other("enough was read"));
        }
        self.0.extend(bytes.iter().take(missing));
        Ok(bytes.len().min(missing))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::Body;
    use crate::storage::memory::Memory;

    const NAME: &str = "00000001000000000000001B";

    #[test]
    fn all_copies_are_found_in_the_order_of_belief_and_nothing_else() {
        let memory = Memory::default();
        for key in [
            "00000001000000000000001B",
            "00000001000000000000001B.zst",
            "wal_005/00000001000000000000001A.lz4",
            "wal_005/00000001000000000000001B",
            "wal_005/00000001000000000000001B.00000028.backup.lz4",
            "wal_005/00000001000000000000001B.json",
            "wal_005/00000001000000000000001B.lz4",
            "wal_005/00000001000000000000001B.partial.lz4",
            "wal_005/00000001000000000000001B.e3b0c44298fc1c14.zst",
            "wal_005/00000001000000000000001B.br",
            "wal_005/00000002000000000000001C.lz4",
        ] {
            memory.create(&Key::parse(key).unwrap(), &Body::from(b"x".to_vec())).unwrap();
        }
        let name = NAME.parse().unwrap();
        let keys = |found: &Copies| -> Vec<String> {
            found.keys.iter().map(|key| key.as_str().to_owned()).collect()
        };
        let both = copies(&memory, name, true).unwrap();
        let folder = [".lz4", ".br", ""].map(|x| format!("wal_005/{NAME}{x}"));
        assert_eq!(keys(&both)[..3], folder);
        assert_eq!(keys(&both)[3..], [format!("{NAME}.zst"), NAME.to_owned()]);
        assert_eq!(both.unknown, None);
        assert_eq!(keys(&copies(&memory, name, false).unwrap()), folder);
    }

    #[test]
    fn an_unknown_encoding_is_told_for_every_kind_of_name() {
        for name in [NAME, "00000002.history", "00000001000000000000001B.partial"] {
            let memory = Memory::default();
            let key = format!("wal_005/{name}.gpg");
            memory.create(&Key::parse(&key).unwrap(), &Body::from(b"x".to_vec())).unwrap();
            let found = copies(&memory, name.parse().unwrap(), false).unwrap();
            assert_eq!(found, Copies { unknown: Some(key), ..Copies::default() });
        }
    }
}
