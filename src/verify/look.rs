//! One object looked at: decoded and proved, or its trailer only; and whether it belongs to the
//! archive that it stands in.

use super::copies::Copy;
use super::{Depth, Kind, Options};
use crate::archive::inventory::Inventory;
use crate::archive::lookup;
use crate::object::{Encoding, Sha256Sum, Stored};
use crate::storage::{self, Storage};
use crate::wal::{SystemId, WalName};
use std::io::Write;

/// What an intact object turned out to be.
pub(super) struct Seen {
    /// The size of what it holds; not known of another tool's object that was not decoded.
    pub(super) raw: Option<u64>,
    pub(super) sha256: Option<Sha256Sum>,
    system_id: Option<SystemId>,
}

/// Why it is not what its name says.
pub(super) type Wrong = (Kind, String);

impl Seen {
    /// Whether it belongs to this archive.
    pub(super) fn fits(self, inventory: &Inventory, copy: &Copy, name: WalName) -> Result<Self, Wrong> {
        if let (Some(theirs), Some(ours)) = (self.system_id, inventory.system_id)
            && theirs != ours
        {
            let reason = format!(
                "it is of the cluster with system identifier {theirs}, the archive is that of {ours}"
            );
            return Err((Kind::OtherCluster, reason));
        }
        if let (Some(raw), Some(size), true) = (self.raw, inventory.segment_size, name.is_pages())
            && raw != size.bytes()
        {
            return Err((
                Kind::OtherCluster,
                format!("it holds {raw} bytes, segments of this archive have {}", size.bytes()),
            ));
        }
        if let (Stored::Variant(_, short), Some(sum)) = (&copy.stored, &self.sha256)
            && sum.short() != *short
        {
            return Err((
                Kind::Damaged,
                "its content is not the one that its name tells by its sum".to_owned(),
            ));
        }
        Ok(self)
    }
}

/// Reads one object as closely as asked.
pub(super) fn look(
    storage: &dyn Storage,
    inventory: &Inventory,
    name: WalName,
    copy: &Copy,
    options: &Options,
    output: &mut (dyn Write + Send),
) -> storage::Result<Result<Seen, Wrong>> {
    let encoding = match copy.stored {
        Stored::Wal(_, encoding) => encoding,
        _ => Encoding::Zstd,
    };
    if options.depth == Depth::Quick {
        return look_at_trailer(storage, inventory, name, copy, encoding);
    }
    let read = lookup::read(storage, &copy.key, encoding, name, options.checks, output);
    Ok(read?.map_err(|reason| (Kind::Damaged, reason)).map(|decoded| Seen {
        raw: Some(decoded.size),
        sha256: Some(decoded.sha256),
        system_id: decoded.system_id(),
    }))
}

/// `--quick`: what the trailer says against the name and the length. Another tool's object has none;
/// where only this program writes, an object without one was cut. (What is left of it may still be the
/// whole frame: only decoding tells.)
fn look_at_trailer(
    storage: &dyn Storage,
    inventory: &Inventory,
    name: WalName,
    copy: &Copy,
    encoding: Encoding,
) -> storage::Result<Result<Seen, Wrong>> {
    if copy.size == 0 {
        return Ok(Err((Kind::Damaged, "it is empty".to_owned())));
    }
    let mut seen = Seen { raw: None, sha256: None, system_id: None };
    if encoding != Encoding::Zstd {
        seen.raw = (encoding == Encoding::Bare).then_some(copy.size);
        return Ok(Ok(seen));
    }
    let trailer = match lookup::trailer(storage, &copy.key)? {
        Ok(Some(trailer)) => trailer,
        Ok(None) if inventory.is_own() || matches!(copy.stored, Stored::Variant(..)) => {
            let reason = "it has no trailer at its end, so it was cut, or another program stored it";
            return Ok(Err((Kind::Damaged, reason.to_owned())));
        }
        Ok(None) => return Ok(Ok(seen)),
        Err(reason) => return Ok(Err((Kind::Damaged, reason))),
    };
    if trailer.name != name {
        return Ok(Err((Kind::Damaged, format!("it is the object of \"{}\"", trailer.name))));
    }
    Ok(Ok(Seen { raw: Some(trailer.size), sha256: Some(trailer.sha256), system_id: trailer.system_id }))
}
