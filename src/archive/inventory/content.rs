//! The few objects that an inventory reads: history files.

use super::{Content, Item, Unreadable};
use crate::archive::lookup;
use crate::archive::object::{Opener, Verdict};
use crate::object::{Checks, Key};
use crate::storage::{Error, Storage};
use crate::wal::WalName;

/// The first intact copy, in the order in which they are believed.
pub(super) fn read_text<T>(
    storage: &dyn Storage,
    name: WalName,
    copies: &[Item],
    parse: impl Fn(&[u8]) -> std::result::Result<T, String>,
) -> Content<T> {
    let mut failed = None;
    let readable = copies.iter().filter(|copy| copy.stored.encoding().is_some());
    let mut keys: Vec<_> = readable.filter_map(Item::key).collect();
    Key::sort(name, &mut keys);
    for key in keys {
        let mut bytes = Vec::new();
        let opened = Opener::of_any_cluster(Checks::Header).open(storage, &key, &mut bytes);
        let mut shut = false;
        let (damaged, reason) = match opened.map(|opened| opened.map(|opened| opened.verdict)) {
            Ok(Some(Verdict::Intact(_))) => match parse(&bytes) {
                Ok(content) => return Ok(content),
                Err(reason) => (true, reason),
            },
            Ok(Some(verdict)) => {
                shut = matches!(verdict, Verdict::Shut(_));
                let reason = verdict.damage().map_or_else(|| verdict.to_string(), str::to_owned);
                (verdict.damage().is_some(), reason)
            }
            Ok(None) => (false, "it is not there any more".to_owned()),
            Err(error) => (false, Error::from(error).to_string()),
        };
        failed.get_or_insert(Unreadable {
            key: key.as_str().to_owned(),
            damaged,
            shut,
            conflict: false,
            reason,
        });
    }
    Err(failed.unwrap_or_else(|| {
        let key = copies.first().map(|copy| copy.key.clone()).unwrap_or_default();
        let reason = format!("it is {}", lookup::unread(&key).0);
        Unreadable { key, damaged: false, shut: false, conflict: false, reason }
    }))
}
