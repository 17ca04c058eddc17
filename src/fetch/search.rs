//! The answer for PostgreSQL: all destinations asked as often as patience allows, and what they say
//! together.
//!
//! Knows: what their failures say together, what PostgreSQL's own copies in
//! pg_wal are worth. Does not know: how
//! destinations are asked ([`super::asking`]), what makes a file absent ([`crate::archive::absent`]), how long to wait
//! ([`super::patience`]), exit codes, prefetched files, who waits for the answer.

use super::asking::{Asked, Asking, Round};
use super::destination::Proof;
use super::patience::{Next, Reason, Waits};
use super::{
    Cause, Failures, Fetch, explain, hint_in_promotion, is_promoting, own_copy, own_history, own_path,
};
use crate::archive::absent::{self, Asked as Question, Excuse, Gap, OwnCopy};
use crate::failure::Failure;
use crate::wal::{TimelineHistory, WalName};
use log::Level;
use std::fs;
use std::time::{Duration, Instant};

/// How long nobody looks whether the server that asked is still there.
const WATCH: Duration = Duration::from_secs(1);

/// The answer, and what is known of the file that is at the path now.
pub(super) enum End {
    /// An object of that name was delivered.
    Archived(Proof),
    /// What else may be given for it was: PostgreSQL's own copy, or a partial segment.
    Otherwise,
    Absent,
}

pub(super) struct Search<'a> {
    pub(super) request: &'a Fetch<'a>,
    pub(super) asking: Asking<'a>,
}

impl Search<'_> {
    /// Asks until there is an answer.
    pub(super) fn run(self, deadline: Instant) -> Result<End, Failures> {
        let mut waits = Waits::new(self.request.patience);
        let mut before = Vec::new();
        loop {
            let round = match self.asking.ask_all(deadline)? {
                Asked::Nobody(round) => round,
                Asked::Delivered(proof) => return Ok(End::Archived(proof)),
            };
            let (mut faults, gap) = match self.conclude(&round) {
                absent::Conclusion::Absent => return self.absent(deadline),
                absent::Conclusion::Excused(gap, excuse) => {
                    log::warn!("{}", explain::excused(self.request.name, &gap, excuse));
                    return match excuse {
                        Excuse::Accepted => self.absent(deadline),
                        Excuse::OwnCopy => Ok(End::Absent),
                    };
                }
                absent::Conclusion::Missing(gap) => (round.faults, Some(gap)),
                absent::Conclusion::Unproved(lacks, gap) => {
                    let lacks = lacks.iter().filter_map(|(index, lack)| {
                        Some(explain::lack(
                            self.asking.destinations.get(*index)?.place(),
                            *lack,
                            self.asking.system_id,
                        ))
                    });
                    (round.faults.into_iter().chain(lacks.flatten()).collect(), gap)
                }
            };
            let reason = self.reason(&faults, gap.as_ref());
            faults.extend(gap.as_ref().map(|gap| explain::missing(self.request.name, gap)));
            match waits.next(reason, Instant::now(), deadline) {
                Next::Ask(pause, told) => {
                    if let Some(limit) = told {
                        self.tell(&faults, limit);
                    }
                    before = faults;
                    self.pause(pause)?;
                }
                Next::Answer => {
                    // A last round that was cut by the deadline knows less than the one before it.
                    let is_cut = faults.iter().all(|fault| fault.kind == Cause::Deadline);
                    let mut faults = if is_cut && !before.is_empty() { before } else { faults };
                    self.explain_history(&mut faults);
                    if gap.is_some() && waits.waited() {
                        self.remember_hole();
                    }
                    return Err(faults);
                }
            }
        }
    }

    /// What a round proves. The files of pg_wal are read only where they matter.
    fn conclude(&self, round: &Round) -> absent::Conclusion {
        let request = self.request;
        let mut question = Question {
            name: request.name,
            system_id: self.asking.system_id,
            segment_size: self.asking.segment_size,
            own_timeline: None,
            own_copy: OwnCopy::None,
            histories: &[],
            accepted: request.accept_gap.contains(&request.name),
            allow_empty: request.allow_empty,
        };
        let histories = match request.name {
            WalName::Segment(_) => self.histories_in_pg_wal(),
            _ => Vec::new(),
        };
        question.histories = &histories;
        let verdict = absent::conclude(&question, &round.shapes);
        if !matches!(verdict, absent::Conclusion::Missing(_) | absent::Conclusion::Unproved(_, Some(_))) {
            return verdict;
        }
        question.own_timeline =
            request.context.data_directory.as_ref().and_then(|directory| directory.timeline().ok()?);
        question.own_copy = self.own_copy();
        absent::conclude(&question, &round.shapes)
    }

    /// What is to be waited for.
    fn reason(&self, faults: &Failures, gap: Option<&Gap>) -> Reason {
        let any = |kinds: &[Cause]| faults.iter().any(|fault| kinds.contains(&fault.kind));
        let history = matches!(self.request.name, WalName::TimelineHistory(_));
        match gap {
            _ if any(&[Cause::Unreachable, Cause::Deadline]) => Reason::Outage { history },
            _ if any(&[Cause::NothingThere]) => Reason::NothingThere { history },
            Some(gap) if faults.is_empty() => {
                let name = self.request.name;
                let known = self.request.context.spool.as_ref().is_some_and(|spool| spool.knows_hole(name));
                Reason::Hole { age: gap.evidence().age, known }
            }
            _ => Reason::Final,
        }
    }

    /// Proved absent; perhaps a partial segment may stand in for it.
    fn absent(&self, deadline: Instant) -> Result<End, Failures> {
        match self.request.name {
            WalName::Segment(segment) if self.request.partial => {
                Ok(if self.deliver_partial(segment, deadline)? { End::Otherwise } else { End::Absent })
            }
            _ => Ok(End::Absent),
        }
    }

    /// A restart of the server waits for this process: its shared memory is in use.
    fn pause(&self, pause: Duration) -> Result<(), Failures> {
        let end = Instant::now() + pause;
        loop {
            self.asking.still_asked().map_err(|failure| vec![failure])?;
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(WATCH));
        }
    }

    /// What PostgreSQL's own copy is worth.
    pub(super) fn own_copy(&self) -> OwnCopy {
        match (self.request.name, own_path(self.request)) {
            (WalName::Segment(segment), Some(path)) => {
                own_copy::of_segment(&path, segment, self.asking.system_id, self.asking.segment_size)
            }
            (WalName::TimelineHistory(_), _) if own_history(self.request).is_some() => OwnCopy::Complete,
            _ => OwnCopy::None,
        }
    }

    /// Those that can be read. PostgreSQL keeps there what it restored.
    pub(super) fn histories_in_pg_wal(&self) -> Vec<TimelineHistory> {
        let folder = self.request.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let entries = folder.and_then(|folder| fs::read_dir(folder).ok()).into_iter().flatten().flatten();
        let histories = entries.filter_map(|entry| {
            let WalName::TimelineHistory(timeline) = entry.file_name().to_str()?.parse().ok()? else {
                return None;
            };
            TimelineHistory::parse(timeline, &fs::read(entry.path()).ok()?).ok()
        });
        histories.collect()
    }

    /// Says once why the answer takes time.
    fn tell(&self, faults: &Failures, limit: Duration) {
        for fault in faults {
            fault.log(Level::Warn);
        }
        let limit = humantime::format_duration(Duration::from_secs(limit.as_secs().max(1)));
        log::warn!("\"{}\" is asked for again for up to {limit}", self.request.name);
    }

    /// The next call that asks for it in the retry form need not wait again.
    fn remember_hole(&self) {
        if let Some(spool) = &self.request.context.spool
            && let Err(error) = spool.note_hole(self.request.name)
        {
            log::debug!("cannot write to the spool \"{}\": {error}", spool.folder().display());
        }
    }

    /// A failed request for a history means more than it says.
    fn explain_history(&self, faults: &mut [Failure<Cause>]) {
        let WalName::TimelineHistory(timeline) = self.request.name else { return };
        let Some(last) = faults.last_mut().filter(|last| last.kind != Cause::Hole) else { return };
        let own = last.hint.take().map_or_else(String::new, |hint| format!("{hint}; "));
        last.hint = Some(if is_promoting(self.request) {
            format!("{own}{}", hint_in_promotion(timeline))
        } else {
            format!(
                "{own}no restore command can tell a standby's poll from a promotion: do not promote while the archive \
                 does not answer, or archived WAL may be missed and a timeline id used twice"
            )
        });
    }
}
