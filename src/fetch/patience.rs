//! How long what may change by itself is waited for.
//!
//! A wrong FATAL costs a server, so the abort form waits for whatever may pass; while the retry form
//! waits, a standby can neither promote nor stream, and it asks again by itself. Pure: the time is an
//! argument, and every duration can be set. Does not know: destinations, sleeping.

use crate::archive::absent::Age;
use std::time::{Duration, Instant};

/// Up to the deadline of the call.
pub const TO_THE_DEADLINE: Duration = Duration::MAX;

/// How long to ask again, by what was answered; [`Duration::ZERO`]: not at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// A destination does not answer, or asks for patience.
    pub outage: Duration,
    /// The same where a timeline history is asked for: taking its absence for an answer could give a
    /// timeline id away twice.
    pub history_outage: Duration,
    /// A root or bucket is not there, or holds no WAL file: a disk that is being mounted, or a typing
    /// error.
    pub nothing_there: Duration,
    /// The same where a timeline history is asked for.
    pub history_nothing_there: Duration,
    /// A hole whose later side was stored a moment ago: a push that looks ahead may bring the rest.
    pub young_hole: Duration,
    /// A hole that has been there for a while.
    pub old_hole: Duration,
    /// One that an earlier call waited for; `None`: no matter.
    pub known_hole: Option<Duration>,
    /// Up to which age of its later side a hole is young.
    pub youth: Duration,
    /// Before the second question; each further pause is twice as long.
    pub first_pause: Duration,
    pub longest_pause: Duration,
    /// The end of the time that no further question is begun in: what is known says more than one
    /// more timeout.
    pub reserve: Duration,
}

impl Patience {
    /// Where a failure stops the server.
    pub const ABORT: Patience = Patience {
        outage: TO_THE_DEADLINE,
        history_outage: TO_THE_DEADLINE,
        nothing_there: Duration::from_secs(30),
        history_nothing_there: Duration::from_secs(30),
        young_hole: TO_THE_DEADLINE,
        old_hole: Duration::from_secs(15),
        known_hole: None,
        youth: Duration::from_secs(300),
        first_pause: Duration::from_millis(250),
        longest_pause: Duration::from_secs(5),
        reserve: Duration::from_secs(1),
    };

    /// Where PostgreSQL asks again by itself.
    pub const RETRY: Patience = Patience {
        outage: Duration::ZERO,
        nothing_there: Duration::ZERO,
        young_hole: Duration::from_secs(15),
        known_hole: Some(Duration::ZERO),
        ..Patience::ABORT
    };

    /// Nothing is waited for: one question to each destination.
    pub const NONE: Patience = Patience {
        outage: Duration::ZERO,
        history_outage: Duration::ZERO,
        nothing_there: Duration::ZERO,
        history_nothing_there: Duration::ZERO,
        young_hole: Duration::ZERO,
        old_hole: Duration::ZERO,
        ..Patience::ABORT
    };

    /// How long that is waited for.
    fn limit(&self, reason: Reason) -> Duration {
        match reason {
            Reason::Outage { history: false } => self.outage,
            Reason::Outage { history: true } => self.history_outage,
            Reason::NothingThere { history: false } => self.nothing_there,
            Reason::NothingThere { history: true } => self.history_nothing_there,
            Reason::Hole { age, known } => {
                let known = self.known_hole.filter(|_| known);
                let is_old = age.is_some_and(|age| age >= self.youth);
                known.unwrap_or(if is_old { self.old_hole } else { self.young_hole })
            }
            Reason::Final => Duration::ZERO,
        }
    }
}

/// Why there is no answer yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// A destination does not answer.
    Outage {
        history: bool,
    },
    /// There is no archive to be seen.
    NothingThere {
        history: bool,
    },
    /// The file is missing though later ones are there; how old its later side is, and whether an
    /// earlier call waited for it.
    Hole {
        age: Age,
        known: bool,
    },
    Final,
}

/// The waiting of one call.
pub(super) struct Waits {
    patience: Patience,
    /// What is waited for now, and since when.
    current: Option<(std::mem::Discriminant<Reason>, Instant)>,
    pause: Duration,
}

/// What to do after a round without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Wait so long and ask again. `Some`: this wait is new, and may take so long in all.
    Ask(Duration, Option<Duration>),
    /// Say what is known.
    Answer,
}

impl Waits {
    pub(super) fn new(patience: Patience) -> Self {
        Waits { patience, current: None, pause: patience.first_pause }
    }

    /// Whether anything was waited for.
    pub(super) fn waited(&self) -> bool {
        self.current.is_some()
    }

    /// Decides after a round at `now`.
    pub(super) fn next(&mut self, reason: Reason, now: Instant, deadline: Instant) -> Next {
        let kind = std::mem::discriminant(&reason);
        let (since, is_new) = match self.current {
            Some((current, since)) if current == kind => (since, false),
            _ => (now, true),
        };
        let left_of_call = deadline.saturating_duration_since(now).saturating_sub(self.patience.reserve);
        let limit = self.patience.limit(reason);
        let left = limit.saturating_sub(now.saturating_duration_since(since)).min(left_of_call);
        if left.is_zero() {
            return Next::Answer;
        }
        self.current = Some((kind, since));
        let pause = self.pause.min(left);
        self.pause = (2 * self.pause).min(self.patience.longest_pause);
        Next::Ask(pause, is_new.then_some(left))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const OUTAGE: Reason = Reason::Outage { history: false };
    const NOTHING: Reason = Reason::NothingThere { history: false };
    const OLD: Reason = Reason::Hole { age: Some(Duration::from_secs(300)), known: false };
    const YOUNG: Reason = Reason::Hole { age: Some(Duration::from_secs(299)), known: false };
    const FUTURE: Reason = Reason::Hole { age: None, known: false };
    const KNOWN: Reason = Reason::Hole { age: None, known: true };

    /// How long is waited for that reason in a call of so many seconds, asked at no cost.
    fn waited(patience: Patience, reason: Reason, call: u32) -> Duration {
        let start = Instant::now();
        let mut waits = Waits::new(patience);
        let mut now = start;
        while let Next::Ask(pause, _) = waits.next(reason, now, start + call * SECOND) {
            now += pause;
        }
        now - start
    }

    #[test]
    fn the_abort_form_waits_for_what_may_pass_and_not_for_what_will_not() {
        for (reason, seconds) in [
            (OUTAGE, 299),
            (Reason::Outage { history: true }, 299),
            (NOTHING, 30),
            (Reason::NothingThere { history: true }, 30),
            (YOUNG, 299),
            (FUTURE, 299),
            (OLD, 15),
            (KNOWN, 299),
            (Reason::Final, 0),
        ] {
            assert_eq!(waited(Patience::ABORT, reason, 300), seconds * SECOND, "{reason:?}");
        }
    }

    #[test]
    fn the_retry_form_asks_once_and_waits_for_holes_and_histories_only() {
        for (reason, seconds) in [
            (OUTAGE, 0),
            (Reason::Outage { history: true }, 19),
            (NOTHING, 0),
            (Reason::NothingThere { history: true }, 19),
            (YOUNG, 15),
            (FUTURE, 15),
            (OLD, 15),
            (KNOWN, 0),
            (Reason::Final, 0),
        ] {
            assert_eq!(waited(Patience::RETRY, reason, 20), seconds * SECOND, "{reason:?}");
        }
    }

    #[test]
    fn nothing_is_waited_for_where_none_is_had() {
        let history = true;
        let of_history = [Reason::Outage { history }, Reason::NothingThere { history }];
        for reason in [OUTAGE, NOTHING, YOUNG, OLD, KNOWN].into_iter().chain(of_history) {
            assert_eq!(waited(Patience::NONE, reason, 300), Duration::ZERO, "{reason:?}");
        }
    }

    #[test]
    fn the_deadline_ends_every_wait_a_moment_early() {
        assert_eq!(waited(Patience::ABORT, OLD, 10), 9 * SECOND);
        assert_eq!(waited(Patience::ABORT, OUTAGE, 1), Duration::ZERO);
        assert_eq!(waited(Patience::ABORT, OUTAGE, 0), Duration::ZERO);
    }

    #[test]
    fn pauses_grow_and_each_wait_is_told_once() {
        let start = Instant::now();
        let mut waits = Waits::new(Patience::ABORT);
        let mut pauses = Vec::new();
        let mut now = start;
        for _ in 0..7 {
            match waits.next(OUTAGE, now, start + 300 * SECOND) {
                Next::Ask(pause, told) => {
                    assert_eq!(told.is_some(), pauses.is_empty());
                    now += pause;
                    pauses.push(pause.as_millis());
                }
                Next::Answer => panic!("{pauses:?}"),
            }
        }
        assert_eq!(pauses, [250, 500, 1000, 2000, 4000, 5000, 5000]);
        // Another reason is another wait, from then on.
        let next = waits.next(NOTHING, now, start + 300 * SECOND);
        assert_eq!(next, Next::Ask(5 * SECOND, Some(30 * SECOND)));
    }

    #[test]
    fn a_young_hole_is_waited_for_no_longer_once_it_is_old() {
        let start = Instant::now();
        let mut waits = Waits::new(Patience::ABORT);
        let deadline = start + 600 * SECOND;
        assert!(matches!(waits.next(YOUNG, start, deadline), Next::Ask(..)));
        assert_eq!(waits.next(OLD, start + 20 * SECOND, deadline), Next::Answer);
    }
}
