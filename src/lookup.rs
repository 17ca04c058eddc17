//! Where a WAL file stands at a destination: in whatever encoding, in WAL-G's folder or directly
//! under the prefix; and what stands around it.
//!
//! Our own object is asked for by its key. What is here is for the rest: a miss, and archives
//! that other tools wrote to.

use crate::object::key::WAL_FOLDER;
use crate::object::{Checks, DecodeError, Decoded, Encoding, Key, Stored, Trailer, decode_as};
use crate::storage::{Error, Range, Result, Storage};
use crate::wal::WalName;
use std::io::{Read, Write};

/// What a listing from a name on showed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Around {
    /// Objects of the name, in the order in which they are believed.
    pub copies: Vec<(Key, Encoding)>,
    /// The key of an object of the name in an encoding that is not read here.
    pub unknown: Option<String>,
    /// For a segment: a later segment of its timeline, or a later partial one.
    pub later: Option<WalName>,
}

/// Lists what stands under a name and, for a segment, the next one after it: in [`WAL_FOLDER`],
/// and directly under the prefix too where `plain` files may stand there.
pub fn around(storage: &dyn Storage, name: WalName, plain: bool) -> Result<Around> {
    let mut around = Around::default();
    look(storage, name, WAL_FOLDER, &mut around)?;
    if plain {
        look(storage, name, "", &mut around)?;
    }
    Key::sort(name, &mut around.copies);
    Ok(around)
}

/// Reads and proves one object. `Ok(Err(reason))`: it is damaged; an error says nothing about it.
pub fn read(
    storage: &dyn Storage,
    key: &Key,
    encoding: Encoding,
    name: WalName,
    checks: Checks,
    output: &mut (dyn Write + Send),
) -> Result<std::result::Result<Decoded, String>> {
    let mut object = storage.get(key, Range::Whole)?;
    match decode_as(encoding, name, checks, &mut object.body, output) {
        Ok(decoded) => Ok(Ok(decoded)),
        Err(DecodeError::Damaged(reason)) => Ok(Err(reason)),
        Err(DecodeError::Read(error) | DecodeError::Write(error)) => {
            Err(Error::of_io(error, storage.place()))
        }
    }
}

/// What an object says of itself, by one ranged request. `Ok(None)`: no trailer of ours is there;
/// `Ok(Err(reason))`: one is there, and it is damaged or not of an object of this length.
pub fn trailer(storage: &dyn Storage, key: &Key) -> Result<std::result::Result<Option<Trailer>, String>> {
    let mut object = storage.get(key, Range::Last(Trailer::LEN as u64))?;
    let mut tail = Vec::with_capacity(Trailer::LEN);
    let read = object.body.by_ref().take(Trailer::LEN as u64).read_to_end(&mut tail);
    read.map_err(|error| Error::of_io(error, storage.place()))?;
    if !Trailer::is_here(&tail) {
        return Ok(Ok(None));
    }
    Ok(Trailer::read(&tail).and_then(|trailer| match trailer.object_len() == object.size {
        true => Ok(Some(trailer)),
        false => Err(format!("it has {} bytes, by its trailer {}", object.size, trailer.object_len())),
    }))
}

fn look(storage: &dyn Storage, name: WalName, folder: &str, around: &mut Around) -> Result<()> {
    let text = name.to_string();
    // From a little before the name on, so that the bare file is seen.
    let (prefix, after) = match name {
        WalName::Segment(_) => (text.get(..8), text.get(..23)),
        _ => (Some(text.as_str()), None),
    };
    let after = after.map(|start| format!("{folder}{start}")).unwrap_or_default();
    for entry in storage.list(&format!("{folder}{}", prefix.unwrap_or_default()), &after)? {
        let key = entry?.key;
        match (Stored::parse(key.strip_prefix(folder).unwrap_or(&key)), name) {
            (Stored::Wal(other, encoding), _) if other == name => {
                around.copies.extend(Key::parse(&key).map(|key| (key, encoding)));
            }
            (Stored::Unknown(other, _), _) if other == name => around.unknown = Some(key),
            (stored, WalName::Segment(asked)) => match stored.name() {
                Some(later @ (WalName::Segment(segment) | WalName::Partial(segment))) if segment > asked => {
                    around.later = Some(later);
                    break;
                }
                _ => {}
            },
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::Body;
    use crate::storage::memory::Memory;

    const NAME: &str = "00000001000000000000001B";

    fn stored(keys: &[&str]) -> Memory {
        let memory = Memory::default();
        for key in keys {
            memory.create(&Key::parse(key).unwrap(), &Body::from(b"x".to_vec())).unwrap();
        }
        memory
    }

    fn copies(around: &Around) -> Vec<&str> {
        around.copies.iter().map(|(key, _)| key.as_str()).collect()
    }

    #[test]
    fn all_copies_are_found_in_the_order_of_belief_and_nothing_else() {
        let memory = stored(&[
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
        ]);
        let name = NAME.parse().unwrap();
        let both = around(&memory, name, true).unwrap();
        let folder = [".lz4", ".br", ""].map(|x| format!("wal_005/{NAME}{x}"));
        assert_eq!(copies(&both)[..3], folder);
        assert_eq!(copies(&both)[3..], [format!("{NAME}.zst"), NAME.to_owned()]);
        assert_eq!((both.unknown, both.later), (None, None));
        assert_eq!(copies(&around(&memory, name, false).unwrap()), folder);
    }

    #[test]
    fn a_later_segment_is_seen_in_every_encoding_and_place() {
        let name = NAME.parse().unwrap();
        for key in [
            "wal_005/00000001000000000000001C.gz",
            "00000001000000000000001D",
            "00000001000000000000001C.gpg",
        ] {
            let seen = around(&stored(&[key]), name, true).unwrap();
            assert!(seen.later.is_some() && seen.copies.is_empty(), "{key}");
            assert_eq!(around(&stored(&[key]), name, false).unwrap().later.is_some(), key.contains('/'));
        }
    }

    #[test]
    fn an_unknown_encoding_is_told_for_every_kind_of_name() {
        for name in [NAME, "00000002.history", "00000001000000000000001B.partial"] {
            let key = format!("wal_005/{name}.gpg");
            let seen = around(&stored(&[&key]), name.parse().unwrap(), false).unwrap();
            assert_eq!(seen, Around { unknown: Some(key), ..Around::default() });
        }
    }
}
