//! What stands at a destination besides the probe: whose files they are where no `archive.json` says it,
//! files of another `archive_command`, and whether the oldest can still be read.

use super::{Finding, State};
use crate::archive::lookup::{self, Limit, Sample};
use crate::archive::object::{Label, label};
use crate::object::key::WAL_FOLDER;
use crate::object::{Identity, Key, Stored};
use crate::storage::{Kind, Result, Storage};

/// What stands where there is no `archive.json`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Held {
    /// No WAL file.
    Nothing,
    /// WAL files, none of them of this program as far as was looked.
    Foreign,
    /// WAL files of this program.
    Ours,
    /// It may not be listed.
    Unknown,
}

/// What is looked at to learn who stored it.
const LIMIT: Limit = Limit { files: 16, keys: 1000 };

impl Held {
    /// By the labels of a few objects.
    pub(super) fn at(storage: &dyn Storage) -> Result<Self> {
        let Sample { keys, example, .. } = lookup::sample(storage, true, LIMIT)?;
        let is_ours = |key: &Key| {
            key.as_str().starts_with(WAL_FOLDER)
                && lookup::is_ours(&Stored::of(key))
                && matches!(label(storage, key), Ok(Label::Ours(_)))
        };
        Ok(match example {
            None => Held::Nothing,
            Some(_) if keys.iter().any(is_ours) => Held::Ours,
            Some(_) => Held::Foreign,
        })
    }
}

/// WAL files directly under the prefix of an archive that is wal-archive's own.
pub(super) fn misplaced(storage: &dyn Storage, identity: &Identity) -> Option<Finding> {
    if identity.foreign {
        return None;
    }
    let of = storage.place();
    let (mut first, mut count) = (None, 0u64);
    // Whether it can be listed is told elsewhere.
    for entry in storage.list("", "").ok()?.map_while(Result::ok) {
        if Stored::parse(&entry.key).name().is_some() {
            first.get_or_insert(entry.key);
            count += 1;
        }
    }
    let first = first?;
    let (are, files) = if count == 1 { ("is", "file") } else { ("are", "files") };
    let what = format!(
        "{count} WAL {files} {are} directly under the prefix of \"{of}\", \"{first}\" the first: wal-push stores nothing there"
    );
    Some(Finding::new(State::Warning, "misplaced", of, what).hint(
        "find the server that still archives with cp or another tool and set its archive_command to wal-push; \"wal-archive verify\" says whether wal-fetch finds them",
    ))
}

/// Whether what was stored longest ago can still be read: a lifecycle rule may have moved it to a class
/// from which it must be restored first.
pub(super) fn oldest(storage: &dyn Storage) -> Option<Finding> {
    let of = storage.place();
    let mut listed = storage.list(WAL_FOLDER, "").ok()?.map_while(Result::ok);
    let key = listed
        .find_map(|entry| Key::parse(&entry.key).filter(|key| matches!(Stored::of(key), Stored::Wal(..))))?;
    match label(storage, &key) {
        Ok(_) => {
            Some(Finding::fine("oldest", of, format!("\"{of}\" lets \"{key}\", the first object, be read")))
        }
        Err(error) if error.kind() == Kind::NotFound => None, // expired meanwhile
        Err(error) => {
            let hint = error.hint_text().unwrap_or(
                "see that no lifecycle rule moves WAL to a class from which it must be restored first",
            );
            Some(Finding::new(State::Warning, "oldest", of, error.to_string()).hint(hint))
        }
    }
}

/// Classes from which an object must be restored, for hours, before it can be read.
const COLD: [&str; 2] = ["GLACIER", "DEEP_ARCHIVE"];

/// A storage class that wal-fetch could not read from.
pub(super) fn storage_class(of: &str, class: Option<&str>) -> Option<Finding> {
    let class = class.filter(|class| COLD.contains(class))?;
    let what = format!(
        "\"{of}\" stores WAL in the class \"{class}\", from which wal-fetch cannot read before it was restored, for hours"
    );
    Some(Finding::new(State::Warning, "storage_class", of, what).hint(
        "use STANDARD, STANDARD_IA or GLACIER_IR; move old WAL by a lifecycle rule only if recovery may wait for it",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::encode;
    use crate::storage::Body;
    use crate::storage::memory::Memory;

    #[test]
    fn whose_files_they_are_shows_by_their_trailers() {
        let memory = Memory::default();
        assert_eq!(Held::at(&memory).unwrap(), Held::Nothing);
        let create = |key: &str, bytes: Vec<u8>| {
            memory.create(&Key::parse(key).unwrap(), &Body::from(bytes)).unwrap();
        };
        create("notes.txt", b"x".to_vec());
        assert_eq!(Held::at(&memory).unwrap(), Held::Nothing);
        create("wal_005/000000010000000000000001.zst", b"another tool's".to_vec());
        assert_eq!(Held::at(&memory).unwrap(), Held::Foreign);
        let (mut bytes, text) = (Vec::new(), b"1\t0/180000\tx\n");
        encode("00000002.history".parse().unwrap(), text.len() as u64, None, 1, &mut &text[..], &mut bytes)
            .unwrap();
        create("wal_005/00000002.history.zst", bytes);
        assert_eq!(Held::at(&memory).unwrap(), Held::Ours);
    }

    #[test]
    fn a_class_that_must_be_restored_first_is_a_warning() {
        for (class, warns) in [
            (None, false),
            (Some("STANDARD_IA"), false),
            (Some("GLACIER_IR"), false),
            (Some("GLACIER"), true),
            (Some("DEEP_ARCHIVE"), true),
        ] {
            assert_eq!(storage_class("s3://b", class).is_some(), warns, "{class:?}");
        }
    }
}
