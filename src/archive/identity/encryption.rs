//! Encryption belongs to the archive: what is written there fits, or nothing is.

use super::Refusal;
use super::survey::Holds;
use crate::object::{Encryption, Identity};
use crate::storage::{Error, Kind, Result, Storage};

const NEW_PREFIX: &str = "encryption is fixed when an archive is made: give an encrypted one a prefix of its own with \
     \"wal-archive init\", and bring what is in the old one there with \"wal-archive copy\"";

/// Refuses to write what the archive does not hold.
pub(super) fn fits_what_is_written(
    storage: &dyn Storage,
    verb: &str,
    archive: Encryption,
) -> std::result::Result<(), Refusal> {
    let (place, keys) = (storage.place(), storage.keys());
    let (message, hint) = match (archive, keys.writes()) {
        (Encryption::Age, Encryption::None) => (
            format!(
                "\"{place}\" {verb} this cluster and is encrypted, and there are no recipients to encrypt for"
            ),
            "name the public keys as recipients in [encryption] of the configuration file".to_owned(),
        ),
        (Encryption::None, Encryption::Age) => (
            format!("\"{place}\" {verb} this cluster and is not encrypted, and recipients are configured"),
            format!("{NEW_PREFIX}; a plain copy is allowed by encryption = \"none\" in its [[destination]]"),
        ),
        (Encryption::None, Encryption::None) if keys.required => {
            let error = plain(storage);
            (error.to_string(), error.hint_text().unwrap_or_default().to_owned())
        }
        _ => return Ok(()),
    };
    Err(Refusal::Encryption { message, hint })
}

/// Why nothing is written there with the keys at hand, and what to do about it.
pub fn refuse_to_write(storage: &dyn Storage, found: &Identity) -> std::result::Result<(), (String, String)> {
    match fits_what_is_written(storage, "is the archive of", found.encryption) {
        Err(Refusal::Encryption { message, hint }) => Err((message, hint)),
        _ => Ok(()),
    }
}

/// Refuses to begin an archive of one kind where the other one is.
pub(super) fn fits_what_is_held(
    storage: &dyn Storage,
    wanted: Encryption,
    held: &Holds,
) -> std::result::Result<(), Refusal> {
    let place = storage.place();
    let (key, is) = match (wanted, &held.plain, &held.encrypted) {
        (Encryption::Age, Some(key), _) => (key, "is not encrypted"),
        (Encryption::None, _, Some(key)) => (key, "is encrypted"),
        _ => return Ok(()),
    };
    let message = format!("\"{place}\" holds WAL files already, and one of them, \"{key}\", {is}");
    Err(Refusal::Encryption { message, hint: NEW_PREFIX.to_owned() })
}

/// Refuses to read an archive that is not encrypted where encryption is required; `None`: it says nothing.
pub fn refuse_plain(storage: &dyn Storage, found: Option<&Identity>) -> Result<()> {
    match found {
        Some(found) if found.encryption == Encryption::None && storage.keys().required => Err(plain(storage)),
        _ => Ok(()),
    }
}

fn plain(storage: &dyn Storage) -> Error {
    let place = storage.place();
    Error::new(Kind::Invalid, format!("\"{place}\" is not encrypted, and encryption is required")).hint(
        "name the encrypted archive; required = false in [encryption], or encryption = \"none\" in its [[destination]], \
         accepts a plain one",
    )
}
