//! One destination: whose it is, and whether it does what wal-push and wal-fetch need.
//!
//! A probe object of its own unique name is created, created again, read and deleted: creation
//! that never replaces cannot be believed, only seen.

use super::encryption;
use super::held::{self, Held};
use super::{Check, Finding, Metric, Place, Report, Rights, State, backups, in_words, rehearsals, room};
use crate::archive::identity;
use crate::failure::Failure;
use crate::object::{Identity, Key};
use crate::storage::deadline::Deadline;
use crate::storage::{Body, Error, Kind, Range, Result, Storage, hides_what_is_missing};
use crate::wal::SystemId;
use std::io::Read;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// What one destination showed.
pub(super) struct Looked {
    pub(super) name: String,
    pub(super) whose: Whose,
    pub(super) report: Report,
}

/// Whose archive it is.
pub(super) enum Whose {
    Cluster(Identity),
    /// There is no `archive.json`.
    Nobodys(Held),
    /// It could not be told.
    Failed(Error),
}

/// What the other parts tell of the cluster.
pub(super) struct Expected {
    pub(super) system_id: Option<SystemId>,
    pub(super) archived_before: bool,
    /// The first destination that is an archive.
    pub(super) first: Option<(String, Identity)>,
}

impl Expected {
    /// Whether it is not the cluster's archive, or not of the one that the first destination belongs to.
    pub(super) fn is_another(&self, identity: &Identity) -> bool {
        match (self.system_id, &self.first) {
            (Some(ours), _) => ours != identity.system_id,
            (None, Some((_, first))) => {
                (first.system_id, first.segment_size) != (identity.system_id, identity.segment_size)
            }
            (None, None) => false,
        }
    }
}

impl Looked {
    pub(super) fn identity(&self) -> Option<Identity> {
        match &self.whose {
            Whose::Cluster(identity) => Some(*identity),
            Whose::Nobodys(_) | Whose::Failed(_) => None,
        }
    }

    /// The place and its identity.
    pub(super) fn identified(&self) -> Option<(String, Identity)> {
        Some((self.name.clone(), self.identity()?))
    }
}

impl Whose {
    /// Judged by what is known of the cluster.
    pub(super) fn finding(&self, of: &str, expected: &Expected) -> Finding {
        match self {
            Whose::Failed(error) => failed(State::Critical, "identity", of, error),
            Whose::Cluster(identity) if expected.is_another(identity) => another(of, identity, expected),
            Whose::Cluster(Identity { system_id, .. }) => {
                let what =
                    format!("\"{of}\" is the archive of the cluster with system identifier {system_id}");
                Finding::fine("identity", of, what)
            }
            Whose::Nobodys(held) => nobodys(of, *held, expected.archived_before),
        }
    }
}

fn another(of: &str, Identity { system_id, segment_size, .. }: &Identity, expected: &Expected) -> Finding {
    let is = format!("\"{of}\" is the archive of the cluster with system identifier {system_id}");
    match (expected.system_id, &expected.first) {
        (None, Some((place, first))) => {
            let what = format!(
                "{is} and segments of {segment_size}, \"{place}\" that of {} and {}",
                first.system_id, first.segment_size
            );
            Finding::new(State::Critical, "identity", of, what).hint("name only destinations of one cluster")
        }
        (ours, _) => {
            let ours = ours.map_or_else(String::new, |ours| ours.to_string());
            Finding::new(State::Critical, "identity", of, format!("{is}, this one has {ours}"))
                .hint("give each cluster a prefix of its own; after initdb or pg_upgrade that is a new one")
        }
    }
}

/// A place without `archive.json`, to which wal-push archives nothing.
fn nobodys(of: &str, held: Held, archived_before: bool) -> Finding {
    let critical = |what: String| Finding::new(State::Critical, "identity", of, what);
    match held {
        Held::Ours => critical(format!(
            "\"{of}\" holds WAL that wal-push archived, and no \"archive.json\": it was removed"
        ))
        .hint(format!(
            "bring the file back from another destination or a copy, or make it again with \"wal-archive init {of}\""
        )),
        Held::Foreign => Finding::new(
            State::Warning,
            "identity",
            of,
            format!("\"{of}\" holds WAL of other tools and no \"archive.json\" yet"),
        )
        .hint("the first wal-push of the same cluster makes it; until then nothing was proved here"),
        Held::Nothing | Held::Unknown if archived_before => critical(format!(
            "\"{of}\" has no \"archive.json\", though this cluster has archived before"
        ))
        .hint("mount its disk or correct the path; an archive that starts anew needs a new base backup"),
        Held::Nothing | Held::Unknown => {
            critical(format!("\"{of}\" is not an archive: it has no \"archive.json\"")).hint(format!(
                "mount its disk or correct the path; for a new archive run: wal-archive init {of}"
            ))
        }
    }
}

pub(super) fn check(place: &Place, request: &Check<'_>, at: Instant) -> Looked {
    let storage = Deadline::new(Arc::clone(&place.storage), at);
    let name = storage.place().to_owned();
    let mut report = Report::default();
    let whose = whose(&storage, request.rights);
    // Of what cannot be read the rest would say the same again, except why it cannot be written; and
    // nothing is made where no archive is.
    let may_create = match &whose {
        Whose::Cluster(_) => true,
        Whose::Nobodys(_) => false,
        Whose::Failed(error) => match error.kind() {
            Kind::Damaged => true,
            Kind::Denied => storage.nature().is_directory(),
            _ => false,
        },
    };
    if may_create {
        match request.rights {
            Rights::Fetch => drop(list(&storage, Key::identity().as_str(), None, &mut report)),
            rights => probe(place, &storage, rights, request.thresholds.clock, &mut report),
        }
    }
    if let Whose::Cluster(identity) = &whose {
        report.findings.extend(held::storage_class(&name, place.storage_class.as_deref()));
        report.findings.extend(encryption::findings(&storage, identity, request.rights));
        if request.rights != Rights::Push {
            report.findings.extend(held::misplaced(&storage, identity));
            report.findings.extend(held::oldest(&storage));
            let (now, thresholds) = (SystemTime::now(), &request.thresholds);
            backups::check(&storage, thresholds.backup_age, now, &mut report);
            rehearsals::check(&storage, thresholds.rehearsal_age, now, &mut report);
        }
    }
    if !matches!(&whose, Whose::Failed(error) if is_away(error))
        && let Some(directory) = &place.directory
    {
        report.append(room::check(directory, &name, request.thresholds.free, at));
    }
    Looked { name, whose, report }
}

fn is_away(error: &Error) -> bool {
    matches!(error.kind(), Kind::Unavailable | Kind::TimedOut | Kind::Invalid)
}

fn whose(storage: &dyn Storage, rights: Rights) -> Whose {
    match identity::identity(storage) {
        Ok(Some(identity)) => Whose::Cluster(identity),
        Ok(None) if rights == Rights::Push => Whose::Nobodys(Held::Unknown),
        Ok(None) => Held::at(storage).map_or_else(Whose::Failed, Whose::Nobodys),
        // Without the right to list, S3 answers so for what is not there, too.
        Err(error) if rights == Rights::Push && hides_what_is_missing(storage, &error) => {
            Whose::Nobodys(Held::Unknown)
        }
        Err(error) => Whose::Failed(error),
    }
}

/// The probe's life.
fn probe(place: &Place, storage: &dyn Storage, rights: Rights, clock: Duration, report: &mut Report) {
    let of = storage.place();
    let unique = fastrand::u64(..);
    let key = Key::probe(unique);
    let content = |which: &str| format!("wal-archive check, {which} of {unique:016x}; delete this object\n");
    let (first, second) = (content("first"), content("second"));
    let before = (Instant::now(), SystemTime::now());
    match storage.create(&key, &Body::from(first.clone().into_bytes())) {
        Ok(()) => {}
        // The answer to our own write was lost, and it was repeated.
        Err(error) if error.kind() == Kind::AlreadyExists => {}
        Err(error) => {
            report.push(failed(State::Critical, "create", of, &error));
            return;
        }
    }
    let took = before.0.elapsed();
    report.push(Finding::fine("create", of, format!("\"{of}\" took a new object in {took:.1?}")));
    report.metrics.push(Metric::new("write_seconds", Some(of), took.as_secs_f64()));
    report.push(exclusive(place, storage, &key, second.into_bytes()));
    let start = Instant::now();
    match read_back(storage, &key, first.as_bytes()) {
        Ok(modified) => {
            let took = start.elapsed();
            report.push(Finding::fine("read", of, format!("\"{of}\" gave it back in {took:.1?}")));
            report.metrics.push(Metric::new("read_seconds", Some(of), took.as_secs_f64()));
            report.append(compare_clocks(of, modified, (before.1, SystemTime::now()), clock));
        }
        Err(failure) => report.push(Finding::of_failure(State::Critical, "read", of, &failure)),
    }
    let left = match rights {
        Rights::All => list(storage, Key::PROBES, Some(&key), report),
        Rights::Push | Rights::Fetch => Vec::new(),
    };
    match left.iter().chain([&key]).try_for_each(|key| storage.delete(key)) {
        Ok(()) => report.push(Finding::fine("delete", of, format!("\"{of}\" deleted the probe"))),
        // A policy against deletion protects the archive; only "wal-archive expire" needs the right.
        Err(error) => {
            let what = format!("the probe \"{key}\" stays: {error}");
            report.push(Finding::new(State::Warning, "delete", of, what).hint(
                "allow deletion of wal_005/wal-archive-check.* below the prefix; where nothing may be deleted, run the check rarely, \
                 or with --rights fetch",
            ));
        }
    }
}

/// The second of two creators must be refused.
fn exclusive(place: &Place, storage: &dyn Storage, key: &Key, other: Vec<u8>) -> Finding {
    let (of, check) = (storage.place(), "exclusive");
    match storage.create(key, &Body::from(other)) {
        Err(error) if error.kind() == Kind::AlreadyExists && place.unconditional => Finding::new(
            State::Warning,
            check,
            of,
            format!(
                "\"{of}\" is written without conditions (conditional_writes = \"unsupported\"): two servers that archive \
                 one name at the same moment may overwrite each other"
            ),
        )
        .hint("use a store that honours conditional writes (docs/providers.md), or keep this knowingly"),
        Err(error) if error.kind() == Kind::AlreadyExists => {
            Finding::fine(check, of, format!("\"{of}\" refused to replace it"))
        }
        Err(error) => failed(State::Critical, check, of, &error),
        Ok(()) => Finding::new(
            State::Critical,
            check,
            of,
            format!("\"{of}\" accepted a second object of one name: it would silently overwrite WAL"),
        )
        .hint("use a store that honours If-None-Match (docs/providers.md)"),
    }
}

/// Reads the object whole, and its end as wal-push reads a trailer; when it was stored.
fn read_back(storage: &dyn Storage, key: &Key, content: &[u8]) -> std::result::Result<SystemTime, Failure> {
    let read = |range| -> Result<(Vec<u8>, SystemTime)> {
        let object = storage.get(key, range)?;
        let mut bytes = Vec::new();
        let read = object.body.take(4096).read_to_end(&mut bytes);
        read.map_err(|error| Error::of_io(error, storage.place()))?;
        Ok((bytes, object.modified))
    };
    let tail = content.get(content.len().saturating_sub(16)..).unwrap_or_default();
    let mut stored = SystemTime::UNIX_EPOCH;
    for (range, expected) in [(Range::Whole, content), (Range::Last(16), tail)] {
        let (bytes, modified) = read(range).map_err(|error| Failure::from_storage((), &error))?;
        if bytes != expected {
            let what = format!("\"{}/{key}\" came back with other bytes than were stored", storage.place());
            return Err(Failure::new((), what)
                .hint("the store or something between changes or replaces objects: do not archive there before it is understood"));
        }
        stored = modified;
    }
    Ok(stored)
}

/// How long an interrupted check may have been at work.
const LEFT: Duration = Duration::from_secs(24 * 3600);

/// wal-fetch must see what stands there, or it cannot say "not there". Returns the probes that
/// interrupted checks left.
fn list(storage: &dyn Storage, prefix: &str, probe: Option<&Key>, report: &mut Report) -> Vec<Key> {
    let of = storage.place();
    let now = SystemTime::now();
    let mut seen = probe.is_none();
    let mut left = Vec::new();
    let listed = storage.list(prefix, "").and_then(|mut entries| {
        entries.try_for_each(|entry| {
            let entry = entry?;
            match Key::parse(&entry.key) {
                key if key.as_ref() == probe => seen = true,
                Some(key)
                    if probe.is_some() && now.duration_since(entry.modified).is_ok_and(|age| age > LEFT) =>
                {
                    left.push(key);
                }
                _ => {}
            }
            Ok(())
        })
    });
    report.push(match listed {
        Ok(()) if seen => Finding::fine("list", of, format!("\"{of}\" can be listed")),
        Ok(()) => Finding::new(
            State::Critical,
            "list",
            of,
            format!("\"{of}\" does not list an object that is there"),
        )
        .hint("its listings are not up to date: wal-fetch would answer \"not there\" for what is there; use another store"),
        Err(error) => {
            let refused = hides_what_is_missing(storage, &error);
            let finding = failed(if refused { State::Warning } else { State::Critical }, "list", of, &error);
            match refused {
                true => finding.hint("wal-fetch needs s3:ListBucket; --rights push checks for a server that only archives"),
                false => finding,
            }
        }
    });
    left
}

/// `between`: our own clock before the creation and after the answer.
fn compare_clocks(
    of: &str,
    stored: SystemTime,
    between: (SystemTime, SystemTime),
    limit: Duration,
) -> Report {
    let ahead = stored.duration_since(between.1).unwrap_or_default();
    let behind = between.0.duration_since(stored).unwrap_or_default();
    let skew = ahead.max(behind);
    let mut report = Report::default();
    let finding = if skew <= limit {
        Finding::fine("clock", of, format!("the clock of \"{of}\" agrees with this machine's"))
    } else {
        let way = if ahead > behind { "ahead of" } else { "behind" };
        Finding::new(
            State::Warning,
            "clock",
            of,
            format!("the clock of \"{of}\" is {} {way} this machine's", in_words(skew)),
        )
        .hint("set both by NTP: S3 refuses requests that are 15 minutes off, and recovery targets are times")
    };
    report.push(finding);
    report.metrics.push(Metric::new("clock_skew_seconds", Some(of), skew.as_secs_f64()));
    report
}

fn failed(state: State, check: &str, of: &str, error: &Error) -> Finding {
    Finding::of_failure(state, check, of, &Failure::from_storage((), error))
}
