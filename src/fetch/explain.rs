//! The sentences of a fetch that brings nothing: what is wrong, and what to do about it.

use super::Cause;
use crate::archive::absent::{Excuse, Gap, Lack, Seen};
use crate::archive::lookup;
use crate::failure::Failure;
use crate::object::{Encoding, Key, Stored};
use crate::wal::{SystemId, WalName};
use std::fmt::Display;

/// PostgreSQL 15 and later read ahead of what they replay.
const TARGET: &str =
    "where the recovery target lies before it, recovery_prefetch = off lets recovery reach the target";

/// Why a destination proves nothing; `None` where the failure has been told already.
pub(super) fn lack(place: &str, lack: Lack, ours: Option<SystemId>) -> Option<Failure<Cause>> {
    let refused = |what: String| Some(Failure::new(Cause::Refused, what));
    let named = |failure: Failure<Cause>| failure.hint("name the archive of this cluster in restore_command");
    match lack {
        Lack::Answer => None,
        Lack::Cluster(theirs) => {
            let ours = ours.map_or_else(|| "another one".to_owned(), |ours| ours.to_string());
            refused(format!(
                "\"{place}\" is the archive of the cluster with system identifier {theirs}, this one has {ours}"
            ))
            .map(named)
        }
        Lack::SegmentSize(theirs) => refused(format!(
            "\"{place}\" is the archive of a cluster with segments of {theirs}, this one has others"
        ))
        .map(named),
        Lack::Owner => refused(format!(
            "\"{place}\" has no \"archive.json\", and no WAL file there that was tried tells whose it is"
        ))
        .map(|failure| {
            failure.hint(
                "\"wal-archive verify\" shows what can be read there; \"wal-archive init\" makes an archive",
            )
        }),
        Lack::Wal => Some(
            Failure::new(
                Cause::NothingThere,
                format!("\"{place}\" is not an archive, or not yet: it holds no WAL file"),
            )
            .hint("mount its disk or correct the path; wal-fetch --allow-empty accepts an empty archive"),
        ),
        Lack::Absence => Some(Failure::new(
            Cause::Unreachable,
            format!("\"{place}\" lists the file that was asked for but does not give it"),
        )),
    }
}

/// A hole, or a lost history.
pub(super) fn missing(name: WalName, gap: &Gap) -> Failure<Cause> {
    let evidence = gap.evidence();
    let (seen, place) = (&evidence.seen, &evidence.place);
    match gap {
        Gap::Hole(_) => {
            let later = if matches!(seen, Seen::File(_)) { "the later " } else { "" };
            Failure::new(
                Cause::Hole,
                format!("a hole in the archive: \"{name}\" is in no destination, but {later}{seen} is in \"{place}\""),
            )
            .hint(format!(
                "bring \"{name}\" from another copy of the archive or from the pg_wal of a server that has it; {TARGET}; \
                 if it is lost for good, --accept-gap {name} lets recovery end before it"
            ))
        }
        Gap::LostHistory(_) => {
            let timeline = name.timeline();
            Failure::new(
                Cause::Hole,
                format!("a lost history: \"{name}\" is in no destination, but {seen} of its timeline is in \"{place}\""),
            )
            .hint(format!(
                "bring \"{name}\" from another copy of the archive or from the pg_wal of a server that has it; if it is \
                 lost for good, --accept-gap {name} gives timeline {timeline} up: recovery ends on an older one, and the \
                 next promotion may use {timeline} again"
            ))
        }
    }
}

/// Why "not there" is the answer all the same.
pub(super) fn excused(name: WalName, gap: &Gap, excuse: Excuse) -> String {
    let seen = gap.evidence().seen;
    let why = match excuse {
        Excuse::Accepted => "accepted by --accept-gap",
        Excuse::OwnCopy => "PostgreSQL uses its own copy in pg_wal",
    };
    format!("\"{name}\" is missing in the archive although {seen} is there; {why}")
}

/// An object that is not what its key says.
pub(super) fn damaged(place: &str, key: &Key, reason: &str) -> Failure<Cause> {
    let subject = key.to_quarantine();
    let stored = Stored::of(key);
    let target = match stored.name() {
        Some(name) if name.is_pages() => format!("{TARGET}; "),
        _ => String::new(),
    };
    // WAL-G's own encodings.
    let encrypted = match stored.encoding() {
        Some(Encoding::Lz4 | Encoding::Lzma | Encoding::Brotli) => format!("{}; ", lookup::WAL_G_DECRYPTS),
        _ => String::new(),
    };
    Failure::new(Cause::Damaged, format!("\"{place}/{key}\" is damaged or not the file asked for: {reason}")).hint(format!(
        "\"wal-archive copy --repair\" puts a good copy from another destination in its place, {encrypted}\"wal-archive \
         quarantine {subject}\" makes room for one from a server that still has it; {target}until then recovery waits, nothing is lost"
    ))
}

/// Two intact objects that hold different content.
pub(super) fn differ(place: &str, one: &dyn Display, other: &dyn Display) -> Failure<Cause> {
    Failure::new(
        Cause::Damaged,
        format!("\"{one}\" and \"{other}\" in \"{place}\" are both intact and hold different content"),
    )
    .hint(
        "two servers or two tools archived there: find out which file belongs to this history, and move the other one \
         aside with \"wal-archive quarantine --force KEY\"",
    )
}

/// An object that may be the file, and is not read in this archive.
pub(super) fn unknown(place: &str, name: WalName, key: &str) -> Failure<Cause> {
    let (why, hint) = lookup::unread(key);
    Failure::new(Cause::Refused, format!("\"{place}/{key}\" is \"{name}\" {why}")).hint(hint)
}
