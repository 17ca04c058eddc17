//! One object looked at: decoded and proved, or its label only; and whether it belongs to the
//! archive that it is in.

use super::copies::FileCopy;
use super::{Depth, Options};
use crate::archive::inventory::Inventory;
use crate::archive::object::{Label, Opener, Verdict, label};
use crate::finding::FindingKind;
use crate::object::age::{Comparison, Recipient, Seal};
use crate::object::{Encoding, Sha256Sum, Stored};
use crate::storage::{self, Error, Storage};
use crate::wal::WalName;
use std::io::Write;

/// What an intact object turned out to be.
pub(super) struct Seen {
    /// The size of what it holds; not known of another tool's object that was not decoded.
    pub(super) raw: Option<u64>,
    pub(super) content: Content,
    /// Whether no identity decrypts it, so that only its stored bytes were proved.
    pub(super) is_shut: bool,
}

/// By which the content of one copy is compared with that of another.
pub(super) enum Content {
    Sum(Sha256Sum),
    /// What an encrypted object says of it to everybody.
    Sealed(Box<Seal>),
    NotKnown,
}

impl Content {
    /// Whether it is known to be another one. `known`: the recipients whose tags can be made.
    pub(super) fn differs(&self, other: &Content, known: &[Recipient]) -> bool {
        let told = match (self, other) {
            (Content::Sum(one), Content::Sum(other)) => return one != other,
            (Content::Sum(sum), Content::Sealed(seal)) | (Content::Sealed(seal), Content::Sum(sum)) => {
                seal.compare(sum, known)
            }
            (Content::Sealed(one), Content::Sealed(other)) => one.compare_with(other),
            (Content::NotKnown, _) | (_, Content::NotKnown) => return false,
        };
        told == Comparison::Different
    }
}

/// Why it is not what its name says.
pub(super) type Wrong = (FindingKind, String);

/// Reads one object as closely as asked.
pub(super) fn examine(
    storage: &dyn Storage,
    inventory: &Inventory,
    name: WalName,
    copy: &FileCopy,
    options: &Options,
    output: &mut (dyn Write + Send),
) -> storage::Result<Result<Seen, Wrong>> {
    let Inventory { system_id, segment_size, .. } = *inventory;
    let opener = Opener { checks: options.checks, system_id, segment_size };
    if options.depth == Depth::Quick {
        return examine_label(storage, inventory, &opener, name, copy);
    }
    let opened = opener.open(storage, &copy.key, output)?;
    let gone = || Error::new(storage::Kind::NotFound, format!("\"{}\" is not there any more", copy.key));
    Ok(match opened.ok_or_else(gone)?.verdict {
        Verdict::Intact(decoded) => {
            Ok(Seen { raw: Some(decoded.size), content: Content::Sum(decoded.sha256), is_shut: false })
        }
        Verdict::Shut(seal) => {
            Ok(Seen { raw: None, content: Content::Sealed(Box::new(seal)), is_shut: true })
        }
        verdict => Err(wrong(verdict)),
    })
}

fn wrong(verdict: Verdict) -> Wrong {
    match verdict {
        Verdict::OtherCluster(reason) => (FindingKind::OtherCluster, reason),
        Verdict::Damaged(reason) => (FindingKind::Damaged, reason),
        verdict @ (Verdict::Intact(_) | Verdict::Shut(_) | Verdict::Unread) => {
            (FindingKind::UnknownEncoding, verdict.to_string())
        }
    }
}

/// `--quick`: what the label says against the name and the length. Another tool's object has none;
/// where only this program writes, an object without one was cut. (What is left of it may still be the
/// whole frame: only decoding tells.)
fn examine_label(
    storage: &dyn Storage,
    inventory: &Inventory,
    opener: &Opener,
    name: WalName,
    copy: &FileCopy,
) -> storage::Result<Result<Seen, Wrong>> {
    let damaged = |reason: &str| Ok(Err((FindingKind::Damaged, reason.to_owned())));
    if copy.size == 0 {
        return damaged("it is empty");
    }
    let unlabelled = |raw: Option<u64>| {
        let misfit = raw.and_then(|raw| opener.misfit(&copy.key, name, raw, None, None));
        Ok(misfit.map_or(Ok(Seen { raw, content: Content::NotKnown, is_shut: false }), |verdict| {
            Err(wrong(verdict))
        }))
    };
    match copy.stored {
        Stored::Wal(_, Encoding::Zstd | Encoding::Age) | Stored::Variant(..) => {}
        Stored::Wal(_, Encoding::Bare) => return unlabelled(Some(copy.size)),
        _ => return unlabelled(None),
    }
    match label(storage, &copy.key)? {
        Label::Ours(trailer) => Ok(match opener.contradiction(&copy.key, name, &trailer) {
            Some(verdict) => Err(wrong(verdict)),
            None => {
                Ok(Seen { raw: Some(trailer.size), content: Content::Sum(trailer.sha256), is_shut: false })
            }
        }),
        Label::Sealed(seal, _) => Ok(match opener.contradiction_of_seal(&copy.key, name, &seal) {
            Some(verdict) => Err(wrong(verdict)),
            None => {
                Ok(Seen { raw: Some(seal.size), content: Content::Sealed(Box::new(seal)), is_shut: false })
            }
        }),
        Label::None if inventory.is_own() || matches!(copy.stored, Stored::Variant(..)) => {
            damaged("it has no trailer at its end, so it was cut, or another program stored it")
        }
        Label::None => unlabelled(None),
        Label::Damaged(reason) => damaged(&reason),
    }
}
