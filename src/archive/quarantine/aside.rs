//! What was moved aside, and its end.

use crate::archive::lookup;
use crate::object::Key;
use crate::object::key::QUARANTINE_FOLDER;
use crate::storage::{Result, Storage};
use crate::wal::WalName;
use std::time::SystemTime;

/// An object in the quarantine.
pub struct Aside {
    pub key: Key,
    pub name: WalName,
    pub size: u64,
    /// When it was moved, by the store's clock.
    pub moved: SystemTime,
}

/// Everything in the quarantine that was put there by this program, in the order of names.
pub fn held(storage: &dyn Storage) -> Result<Vec<Aside>> {
    let mut found = Vec::new();
    for entry in storage.list(QUARANTINE_FOLDER, "")? {
        let entry = entry?;
        let file = entry.key.strip_prefix(QUARANTINE_FOLDER).unwrap_or_default();
        let sum = |sum: &str| sum.len() == 16 && sum.bytes().all(|b| b.is_ascii_hexdigit());
        let name = file.rsplit_once('.').filter(|(_, end)| sum(end)).and_then(|(name, _)| name.parse().ok());
        let (Some(name), Some(key)) = (name, Key::parse(&entry.key)) else { continue };
        found.push(Aside { key, name, size: entry.size, moved: entry.modified });
    }
    Ok(found)
}

/// Whether the archive has an object of that name now. Else what is in the quarantine may be the last copy of
/// anything of it.
pub fn is_replaced(storage: &dyn Storage, name: WalName) -> Result<bool> {
    Ok(!lookup::copies(storage, name, true)?.keys.is_empty())
}
