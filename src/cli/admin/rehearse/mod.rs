//! `wal-archive rehearse`: a restore that really runs: arguments in, a report and evidence out.

mod compare;
mod report;

use super::super::args;
use super::super::exit::{AdminExit, FetchExit, Form};
use super::answer::json_flag;
use super::jobs;
use super::metrics::{self, OfRun};
use super::progress::Progress;
use super::restore::wal_fetch;
use crate::archive::rehearsals::{self, Flaw, Phases, Rehearsal, Verdict};
use crate::base_backup::BackupId;
use crate::config::{Layers, duration};
use crate::failure::Failure;
use crate::finding::Finding;
use crate::rehearse::copy::Brought;
use crate::rehearse::programs::{self, Programs};
use crate::rehearse::scratch::Scratch;
use crate::rehearse::stop::Stop;
use crate::rehearse::{Outcome, Request, rehearse, wal_kept};
use crate::restore::choose::{Choice, Wish, choose};
use crate::restore::settings::Recovery;
use crate::restore::target::{Target, time};
use crate::restore::{self, Archive, Cause, look, restore};
use crate::storage::Shared;
use crate::wal::{Lsn, Timeline};
use clap::{Arg, ArgAction, ArgMatches, Command};
use log::Level;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

/// Told apart from the settings of wal-push, which may stand in the file.
const TIMEOUT: &str = "rehearse-timeout";

/// The longest that a destination may take for one answer.
const PATIENCE: Duration = Duration::from_secs(120);

pub(super) fn command() -> Command {
    let one = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help)
    };
    let flag = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
    };
    let path = |name, value, help| one(name, value, help).value_parser(clap::value_parser!(PathBuf));
    Command::new("rehearse")
        .about("Restores a base backup in a scratch directory, recovers it with a real server, and tells what came of it")
        .after_help(
            "Run it as the user that PostgreSQL runs as, never as root. The copy reaches nothing: no archive, no primary, no \
             publisher, no client. Nothing of it is left at the end.\n\n\
             Examples:\n  \
             wal-archive rehearse --amcheck\n  \
             wal-archive rehearse --base-command 'pgbackrest --stanza=main --pg1-path=\"$DIR\" restore'",
        )
        .args([
            one("backup", "ID", "This backup, or latest (default: the newest that leads to the target)"),
            one("base-command", "COMMAND", "Another tool's backup: a shell command that restores it into the directory $DIR")
                .conflicts_with("backup"),
            one("target-time", "TIME", "Recover what was committed by then (default: to the end of the archived WAL)")
                .value_parser(time),
            path("scratch", "DIRECTORY", "Where the scratch directory is made").default_value("/var/tmp"),
            flag("amcheck", "Check all tables and indexes with pg_amcheck"),
            path("sql", "FILE", "Run these statements: each must return no row, or t"),
            one(TIMEOUT, "DURATION", "The longest that all of it may take")
                .long("timeout")
                .default_value("24h")
                .value_parser(duration),
            path("pg-bindir", "DIRECTORY", "The programs of PostgreSQL (default: where packages put them, else PATH)"),
            one("preload", "LIBRARIES", "shared_preload_libraries that the replay needs (default: none)").default_value(""),
            one("role", "NAME", "The superuser of the cluster, for --amcheck and --sql").default_value("postgres"),
            jobs::arg("Parts of the backup that are read and decoded at once"),
            flag("no-evidence", "Leave no record in the archive, as where it may not be written"),
            json_flag(),
        ])
        .args(metrics::args())
}

const METRICS: OfRun = OfRun {
    state: "rehearsal_state",
    timestamp: "rehearsal_timestamp_seconds",
    duration: "rehearsal_duration_seconds",
};

pub(super) fn run(matches: &ArgMatches) -> Result<AdminExit, Failure> {
    if rustix::process::geteuid().is_root() {
        return Err(Failure::new((), "root runs no server of PostgreSQL, and so rehearses nothing")
            .hint("run it as the user that PostgreSQL runs as: sudo -u postgres wal-archive rehearse ..."));
    }
    let limit: Duration = args::value(matches, TIMEOUT)?;
    // Before anything starts a thread.
    let stop = Stop::after(limit)?;
    let layers = super::layers(matches)?;
    metrics::recorded(matches, &layers, &METRICS, |samples| {
        let began = SystemTime::now();
        let destinations: Vec<Shared> =
            layers.admin()?.0.iter().map(|place| place.open_patiently(PATIENCE)).collect();
        let of = Rehearsing { matches, layers: &layers, destinations: &destinations, stop: &stop, began };
        let (rehearsal, holders) = of.run()?;
        samples.extend(report::samples(&rehearsal));
        let (evidence, refused) = match matches.get_flag("no-evidence") {
            true => (Vec::new(), None),
            false => evidence(&holders, &rehearsal),
        };
        report::tell(&rehearsal, &evidence, matches.get_flag("json"));
        if let Some(failure) = &refused {
            failure.log(Level::Error);
        }
        Ok(match rehearsal.verdict {
            Verdict::Findings => AdminExit::Findings,
            // What was asked for as well is not there.
            Verdict::Sound if refused.is_some() => AdminExit::CouldNotTell,
            Verdict::Sound => AdminExit::Fine,
        })
    })
}

/// Into these destinations: where it is, and why one of them did not take it.
fn evidence(holders: &[Shared], rehearsal: &Rehearsal) -> (Vec<String>, Option<Failure>) {
    let (mut at, mut refused) = (Vec::new(), None);
    if holders.is_empty() {
        let what = "the record of the rehearsal was not created: no destination holds all of the backup";
        refused = Some(
            Failure::new((), what).hint("\"wal-archive verify --backups\" shows what each of them lacks"),
        );
    }
    for storage in holders {
        match rehearsals::create(storage.as_ref(), rehearsal) {
            Ok(key) => at.push(format!("{}/{key}", storage.place())),
            Err(error) => {
                let failure = Failure::from_storage((), &error);
                refused.get_or_insert(failure.within("the record of the rehearsal was not created"));
            }
        }
    }
    (at, refused)
}

/// What is rehearsed.
enum Plan {
    Own(Box<Choice>),
    Command(String),
}

/// A backup in the scratch directory, ready to recover.
struct Restored {
    programs: Programs,
    backup: Option<BackupId>,
    major: u32,
    /// Where recovery begins.
    from: Lsn,
    /// The timeline that it is to go along; `None`: the newest.
    timeline: Option<Timeline>,
    recovery: Vec<(&'static str, String)>,
    took: Duration,
}

struct Rehearsing<'a> {
    matches: &'a ArgMatches,
    layers: &'a Layers,
    destinations: &'a [Shared],
    stop: &'a Stop,
    began: SystemTime,
}

/// Findings, or that it could not be done.
fn sorted<T>(
    result: restore::Result<T>,
    place: &str,
    name: &str,
) -> Result<Result<T, Box<Finding<Flaw>>>, Failure> {
    match result {
        Ok(done) => Ok(Ok(done)),
        Err(failure) if failure.kind == Cause::Refused => {
            Ok(Err(Box::new(Finding::of_failure(Flaw::Refused, name, place, &failure))))
        }
        Err(failure) => Err(Failure { kind: (), message: failure.message, hint: failure.hint }),
    }
}

impl Rehearsing<'_> {
    /// What came of it, and the destinations of which that says something: those that hold the backup whole; all of
    /// them where it is another tool's, or none leads there.
    fn run(&self) -> Result<(Rehearsal, Vec<Shared>), Failure> {
        let plain =
            |failure: Failure<Cause>| Failure { kind: (), message: failure.message, hint: failure.hint };
        let archive = look(self.destinations).map_err(plain)?;
        if let Some(silent) = archive.silent() {
            let without = "to rehearse without this destination, name the others with --archive";
            return Err(plain(silent.clone()).within("recovery would end here").or_else(without));
        }
        let place = archive.inventory.place.clone();
        let plan = match self.matches.get_one::<String>("base-command") {
            Some(command) => Plan::Command(command.clone()),
            None => {
                let chosen = choose(&archive.inventory, &archive.backups, &self.wish()?, &archive)
                    .map_err(|failure| archive.undecided(failure));
                match sorted(chosen, &place, "backup")? {
                    Ok(choice) => {
                        if let Some(newest) = choice.unreached {
                            log::warn!("timeline {newest} is newer, and the rehearsal does not go there");
                        }
                        Plan::Own(Box::new(choice))
                    }
                    Err(finding) => {
                        let rehearsal = self.record(None, Outcome::of(*finding), None);
                        return Ok((rehearsal, self.destinations.to_vec()));
                    }
                }
            }
        };
        let holders = match &plan {
            Plan::Own(choice) => {
                let whole = archive.sources(choice.record.id).iter().filter(|source| source.whole);
                whole.map(|source| source.storage.clone()).collect()
            }
            Plan::Command(_) => self.destinations.to_vec(),
        };
        let around: PathBuf = args::value(self.matches, "scratch")?;
        let scratch = Scratch::make(&around)?;
        let rehearsed = match plan {
            Plan::Own(choice) => match sorted(
                self.restore(&archive, &choice, &scratch),
                &place,
                &choice.record.id.to_string(),
            )? {
                Ok(restored) => self.recover(archive, &scratch, restored),
                Err(finding) => Ok(self.record(None, Outcome::of(*finding), None)),
            },
            Plan::Command(command) => {
                self.fill(&command, &scratch).and_then(|restored| self.recover(archive, &scratch, restored))
            }
        };
        // Whatever happened.
        let removed = scratch.remove();
        let rehearsed = rehearsed?;
        removed.map(|()| (rehearsed, holders))
    }

    fn target(&self) -> Target {
        self.matches.get_one::<SystemTime>("target-time").map_or(Target::End, |time| Target::Time(*time))
    }

    fn wish(&self) -> Result<Wish, Failure> {
        let named = self.matches.get_one::<String>("backup").filter(|text| *text != "latest");
        let backup = named.map(|text| {
            text.parse::<BackupId>()
                .map_err(|error| Failure::new((), format!("--backup: \"{text}\" is {error}")))
        });
        Ok(Wish { backup: backup.transpose()?, target: self.target(), exclusive: false, timeline: None })
    }

    fn programs(&self, major: u32) -> Result<Programs, Failure> {
        let named = self.matches.get_one::<PathBuf>("pg-bindir").map(PathBuf::as_path);
        let mut needed = vec!["postgres"];
        if self.matches.get_flag("amcheck") {
            needed.push("pg_amcheck");
        }
        if self.matches.contains_id("sql") {
            needed.push("psql");
        }
        Programs::find(named, major, &needed)
    }

    /// wal-fetch with a spool of its own; it says why it fails so that it can be read here.
    fn restore_command(&self, scratch: &Scratch) -> Result<String, Failure> {
        self.layers.refuse_elsewhere(&scratch.data())?;
        let spool = scratch.spool().display().to_string();
        let options = [("spool-dir", spool.as_str()), ("on-error", "abort"), ("log-format", "json")];
        self.layers.fetch_command(&wal_fetch()?, &options)
    }

    fn restore(&self, archive: &Archive, choice: &Choice, scratch: &Scratch) -> restore::Result<Restored> {
        let could_not = |failure: Failure| Failure {
            kind: Cause::CouldNot,
            message: failure.message,
            hint: failure.hint,
        };
        let record = &choice.record;
        let major = record.server_version / 10_000;
        let programs = self.programs(major).map_err(could_not)?;
        let wal = (record.segments().1 + 1 - record.segments().0).saturating_mul(record.segment_size.bytes());
        let (least, most) = wal_kept(record.segment_size);
        scratch.require(record.sizes().0.saturating_add(wal.clamp(least, most))).map_err(could_not)?;
        let restore_command = self.restore_command(scratch).map_err(could_not)?;
        let recovery = Recovery::of(choice, restore_command);
        let tablespaces: BTreeMap<String, PathBuf> = record
            .series
            .iter()
            .filter_map(|series| series.tablespace.as_ref())
            .map(|(oid, place)| (place.clone(), scratch.tablespaces().join(oid.to_string())))
            .collect();
        log::info!("restoring backup {} to \"{}\"", record.id, scratch.data().display());
        let (start, progress) = (Instant::now(), Progress::new("restoring"));
        restore(&restore::Request {
            sources: archive.sources(record.id),
            choice,
            directory: &scratch.data(),
            tablespaces: &tablespaces,
            recovery: &recovery,
            force: false,
            jobs: jobs::count(self.matches).map_err(could_not)?,
            progress: &|done, total| {
                progress.set_bytes("restoring", done, total);
                self.stop.check().map_err(could_not)
            },
        })?;
        Ok(Restored {
            programs,
            backup: Some(record.id),
            major,
            from: record.id.start,
            timeline: Some(choice.timeline),
            recovery: recovery.target_lines(),
            took: start.elapsed(),
        })
    }

    /// By the user's command.
    fn fill(&self, command: &str, scratch: &Scratch) -> Result<Restored, Failure> {
        let start = Instant::now();
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", command]).env("DIR", scratch.data()).current_dir(scratch.root());
        let ran = programs::run(&mut shell, scratch, self.stop)?;
        if !ran.status.success() {
            let what = format!("the base command ended with {}: {}", ran.status, ran.last_words());
            return Err(Failure::new((), what)
                .hint("try it by hand, with DIR set to an empty directory of mode 0700"));
        }
        let took = start.elapsed();
        let brought = Brought::look(scratch)?;
        let recovery = Recovery {
            restore_command: self.restore_command(scratch)?,
            target: self.target(),
            timeline: brought.timeline,
            action: None,
            exclusive: false,
            keep_archiving: false,
            standby: false,
        };
        let newest = |(name, value)| match name {
            "recovery_target_timeline" => (name, "latest".to_owned()),
            _ => (name, value),
        };
        Ok(Restored {
            programs: self.programs(brought.major)?,
            backup: None,
            major: brought.major,
            from: brought.start,
            timeline: None,
            recovery: recovery.target_lines().into_iter().map(newest).collect(),
            took,
        })
    }

    fn recover(&self, archive: Archive, scratch: &Scratch, restored: Restored) -> Result<Rehearsal, Failure> {
        let sql = self.matches.get_one::<PathBuf>("sql");
        let sql = sql.map(|path| std::path::absolute(path).unwrap_or_else(|_| path.clone()));
        let mut outcome = rehearse(&Request {
            scratch,
            programs: &restored.programs,
            recovery: &restored.recovery,
            has_target: self.target() != Target::End,
            preload: &args::value::<String>(self.matches, "preload")?,
            stop: self.stop,
            telling: &[FetchExit::Damaged, FetchExit::Hole].map(|exit| exit.code(Form::Abort)),
            amcheck: self.matches.get_flag("amcheck"),
            sql: sql.as_deref(),
            role: &args::value::<String>(self.matches, "role")?,
        })?;
        let expected = compare::Expected {
            destinations: self.destinations,
            from: restored.from,
            timeline: restored.timeline,
            to_the_end: self.target() == Target::End,
        };
        let last_commit = expected.compare(archive, &mut outcome)?;
        Ok(self.record(Some(&restored), outcome, last_commit))
    }

    fn record(
        &self,
        restored: Option<&Restored>,
        outcome: Outcome,
        last_commit: Option<SystemTime>,
    ) -> Rehearsal {
        let seconds = |duration: Duration| duration.as_secs_f64();
        let target = self.matches.get_one::<SystemTime>("target-time").copied();
        Rehearsal {
            rehearsed: self.began,
            verdict: if outcome.findings.is_empty() { Verdict::Sound } else { Verdict::Findings },
            backup: restored.and_then(|restored| restored.backup).map(|id| id.to_string()),
            target: target.and_then(crate::failure::exact_time),
            timeline: outcome.timeline.map(Timeline::get),
            end_lsn: outcome.end.map(|end| end.to_string()),
            last_commit,
            data_lost_seconds: last_commit
                .map(|at| self.began.duration_since(at).unwrap_or_default().as_secs_f64()),
            phases: Phases {
                restore_seconds: restored.map(|restored| seconds(restored.took)),
                replay_seconds: outcome.replay.map(seconds),
                ready_seconds: outcome.ready.map(seconds),
            },
            replayed_bytes: outcome.replayed_bytes,
            server_major: restored.map(|restored| restored.major),
            checked: outcome.checked,
            findings: outcome.findings,
        }
    }
}
