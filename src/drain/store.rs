//! Storing what a [`plan`](super::plan) holds, in an order that an archiver could have stored it in.
//!
//! An archiver never gets behind a segment that is refused, and neither does a drain: the segments of a server that
//! parted from the archived one would stand behind the other's, where the right server's can no longer be stored. So
//! what a destination has already is compared first, and the rest comes when every conflict is known.

use super::plan::Item;
use super::{Became, Drain, DrainedFile};
use crate::archive::forms::Forms;
use crate::archive::intake::{self, Cause, Intake, Source};
use crate::archive::lookup;
use crate::failure::Failure;
use crate::host::side_by_side::by_many;
use crate::object::{Checks, Encoder, Key};
use crate::storage::deadline::Deadline;
use crate::storage::{Kind, Storage, hides_what_is_missing};
use crate::wal::records::{Start, Walker};
use crate::wal::{SegmentName, WalName};
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// Where something is under a name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Held {
    Everywhere,
    Somewhere,
    Nowhere,
}

/// Histories one by one, then on several threads what a destination has already, then the rest.
pub(super) fn store_all(request: &Drain<'_>, foreign: &[bool], items: Vec<Item>) -> Vec<DrainedFile> {
    let begin = |item: &Item, encoder: &mut _| {
        let deadline = deadline(request, item);
        match held(request, foreign, item, deadline) {
            Ok(Held::Nowhere) if !matches!(item.name, WalName::TimelineHistory(_)) => None,
            Ok(held) => Some(drain_file(request, item, held, deadline, encoder)),
            Err(failure) => Some(Became::Failed(vec![failure])),
        }
    };
    let all: Vec<&Item> = items.iter().collect();
    let histories = all.iter().take_while(|item| matches!(item.name, WalName::TimelineHistory(_))).count();
    let (histories, others) = all.split_at(histories);
    let mut became = each(request, 1, histories, begin);
    became.extend(each(request, request.jobs, others, begin));

    let conflict =
        all.iter().zip(&became).filter_map(|(item, became)| conflict(item.name, became.as_ref()?)).min();
    let lacking: Vec<&Item> =
        all.iter().zip(&became).filter(|(_, became)| became.is_none()).map(|(item, _)| *item).collect();
    let mut rest = each(request, request.jobs, &lacking, |item, encoder| match conflict {
        Some(conflict) if is_behind(item.name, conflict) => Became::HeldBack(conflict),
        _ => drain_file(request, item, Held::Nowhere, deadline(request, item), encoder),
    })
    .into_iter();
    let became: Vec<Became> =
        became.into_iter().filter_map(|became| became.or_else(|| rest.next())).collect();
    items.into_iter().zip(became).map(|(item, became)| DrainedFile { item, became }).collect()
}

/// The segment, if a destination has another one of its name.
fn conflict(name: WalName, became: &Became) -> Option<SegmentName> {
    let (WalName::Segment(segment), Became::Refused(failures)) = (name, became) else { return None };
    failures.iter().any(|failure| failure.kind == Cause::Conflict).then_some(segment)
}

/// Whether PostgreSQL archives it after this segment (`src/backend/postmaster/pgarch.c`: histories first, then in the
/// order of names).
fn is_behind(name: WalName, conflict: SegmentName) -> bool {
    match name {
        WalName::Segment(segment) | WalName::Partial(segment) => segment > conflict,
        WalName::BackupHistory(segment, _) => segment >= conflict,
        WalName::TimelineHistory(_) => false,
    }
}

/// Does the work for each item on so many threads, each with its own encoder, and answers in their order.
fn each<T: Send>(
    request: &Drain<'_>,
    jobs: usize,
    items: &[&Item],
    work: impl Fn(&Item, &mut io::Result<Encoder>) -> T + Sync,
) -> Vec<T> {
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<(usize, T)>> = Mutex::new(Vec::new());
    by_many(jobs, || {
        let mut encoder = Encoder::new(request.level);
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(index) else { return };
            let result = work(item, &mut encoder);
            // Every change is whole, so a poisoned lock still guards a whole list.
            done.lock().unwrap_or_else(PoisonError::into_inner).push((index, result));
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, result)| result).collect()
}

/// By when a file that is begun now must be done.
fn deadline(request: &Drain<'_>, item: &Item) -> Instant {
    let size = std::fs::metadata(&item.path).map_or(0, |file| file.len());
    Instant::now() + request.timeout.unwrap_or_else(|| intake::patience(size))
}

fn drain_file(
    request: &Drain<'_>,
    item: &Item,
    held: Held,
    deadline: Instant,
    encoder: &mut io::Result<Encoder>,
) -> Became {
    let lacking = held != Held::Everywhere;
    if request.dry_run {
        return Became::Planned(lacking);
    }
    let encoder = match encoder {
        Ok(encoder) => encoder,
        Err(error) => {
            let what = format!("cannot start the compressor: {error}");
            return Became::Failed(vec![Failure::new(Cause::Source, what)]);
        }
    };
    let intake = Intake {
        data_directory: request.data_directory.cloned(),
        spool: request.spool.cloned(),
        level: request.level,
        checks: Checks::Header,
        drop_cache: false,
        forms: Forms::of(request.destinations),
        urgent: true,
    };
    let source = match read(item, &intake, encoder) {
        Ok(source) => source,
        Err(failure) => return Became::Refused(vec![failure]),
    };
    match source.store_everywhere(&intake, request.destinations, deadline) {
        Ok(_) if lacking => Became::Stored,
        Ok(_) => Became::There,
        Err(failures) => {
            let refused = |failure: &Failure<Cause>| matches!(failure.kind, Cause::Conflict | Cause::Invalid);
            if failures.iter().all(refused) { Became::Refused(failures) } else { Became::Failed(failures) }
        }
    }
}

/// Without the right to list, S3 does not tell: nothing, then. What a destination fails to tell, it says again where
/// the file is to be stored, and the others get it; a failure only where nothing is to be stored.
fn held(
    request: &Drain<'_>,
    foreign: &[bool],
    item: &Item,
    deadline: Instant,
) -> Result<Held, Failure<Cause>> {
    let (mut having, mut failed) = (0, None);
    for (destination, foreign) in request.destinations.iter().zip(foreign) {
        let storage = Deadline::new(Arc::clone(destination), deadline);
        let found = match storage.head(&Key::of(item.name, storage.keys().writes())) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == Kind::NotFound && !foreign => Ok(false),
            Err(error) if error.kind() == Kind::NotFound => {
                lookup::copies(&storage, item.name, true).map(|found| !found.keys.is_empty())
            }
            Err(error) if hides_what_is_missing(&storage, &error) => Ok(false),
            Err(error) => Err(error),
        };
        match found {
            Ok(there) => having += usize::from(there),
            Err(error) => failed = Some(Failure::from_storage(Cause::Destination, &error)),
        }
    }
    match (having, failed) {
        (_, Some(failure)) if request.dry_run => Err(failure),
        (0, _) => Ok(Held::Nowhere),
        (all, _) if all == request.destinations.len() => Ok(Held::Everywhere),
        _ => Ok(Held::Somewhere),
    }
}

/// Reads it, and its records from what is to be stored.
pub(super) fn read(item: &Item, intake: &Intake, encoder: &mut Encoder) -> Result<Source, Failure<Cause>> {
    let changed = |how: &str| {
        Failure::new(Cause::Source, format!("\"{}\" changed while it was read ({how})", item.path.display()))
            .hint("a server works there; nothing of it was stored: run the drain again")
    };
    let source = Source::read(item.name, &item.path, intake, encoder)?;
    if source.stamp != item.stamp {
        return Err(changed("its size, times or inode differ"));
    }
    let (WalName::Segment(segment) | WalName::Partial(segment)) = item.name else { return Ok(source) };
    let mut walker = Walker::new(Start::Anywhere);
    walker.begin(segment);
    source
        .objects
        .decode(item.name, Checks::Header, &mut walker)
        .map_err(|error| changed(&format!("its compressed form: {error}")))?;
    let walk = walker.walk();
    match item.name {
        WalName::Segment(_) if !walk.complete => Err(changed(&walk.stop.to_string())),
        // A record that began in the segment before is none of this walk's.
        WalName::Partial(_) if item.end.is_some() && walk.end.is_some() && walk.end != item.end => {
            Err(changed(&walk.stop.to_string()))
        }
        _ => Ok(source),
    }
}
