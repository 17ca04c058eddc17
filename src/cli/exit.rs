//! Exit codes: the only map from outcome to number.
//!
//! PostgreSQL's archiver counts codes from 1 to 125 as a failure and dies of anything above
//! (`src/backend/archive/shell_archive.c`, `shell_archive_file`; up to 14
//! `src/backend/postmaster/pgarch.c`, `pgarch_archiveXlog`). Its startup process takes 1 to 125
//! for "not in the archive", promotes, and stops with FATAL above
//! (`src/backend/access/transam/xlogarchive.c`, `RestoreArchivedFile`, by
//! `wait_result_is_any_signal` of `src/common/wait_error.c`).
//!
//! What each of them means: `super::codes`.

use crate::check::State;
use crate::failure::Failure;
use crate::{fetch, push};

/// The end of `wal-push`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PushExit {
    Stored,
    /// Bad arguments or configuration.
    Usage,
    Source,
    /// Not a valid file.
    Invalid,
    /// Another file stands there.
    Conflict,
    /// A destination's fault, and what a panic is reported as.
    Destination,
    Deadline,
}

impl PushExit {
    /// Never above 125.
    pub fn code(self) -> u8 {
        match self {
            PushExit::Stored => 0,
            PushExit::Usage => 2,
            PushExit::Source => 10,
            PushExit::Invalid => 11,
            PushExit::Conflict => 12,
            PushExit::Destination => 13,
            PushExit::Deadline => 14,
        }
    }

    pub const ALL: [PushExit; 7] = [
        PushExit::Stored,
        PushExit::Usage,
        PushExit::Source,
        PushExit::Invalid,
        PushExit::Conflict,
        PushExit::Destination,
        PushExit::Deadline,
    ];

    /// The one with this code.
    pub fn from_code(code: u8) -> Option<Self> {
        PushExit::ALL.into_iter().find(|exit| exit.code() == code)
    }

    /// By the gravest failure: 12 before 13 before 14.
    pub fn of(failures: &[Failure<push::Cause>]) -> Self {
        match failures.iter().map(|failure| failure.kind).min() {
            Some(push::Cause::Source) => PushExit::Source,
            Some(push::Cause::Invalid) => PushExit::Invalid,
            Some(push::Cause::Conflict) => PushExit::Conflict,
            Some(push::Cause::Destination) | None => PushExit::Destination,
            Some(push::Cause::Deadline) => PushExit::Deadline,
            Some(push::Cause::Configuration) => PushExit::Usage,
        }
    }
}

/// How wal-fetch's failures are to be read by PostgreSQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// 1 to 125: a standby asks again.
    Retry,
    /// Above 125: PostgreSQL stops, and can be started again.
    Abort,
}

/// The end of `wal-fetch`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FetchExit {
    /// The file is there.
    Delivered,
    Absent,
    /// Bad arguments or configuration.
    Usage,
    /// A destination's fault, and what a panic is reported as.
    Unreachable,
    Damaged,
    Local,
    Deadline,
    Hole,
}

impl FetchExit {
    /// In the given form.
    pub fn code(self, form: Form) -> u8 {
        let code = match self {
            FetchExit::Delivered => return 0,
            FetchExit::Absent => return 1,
            FetchExit::Usage => 2,
            FetchExit::Unreachable => 20,
            FetchExit::Damaged => 21,
            FetchExit::Local => 22,
            FetchExit::Deadline => 23,
            FetchExit::Hole => 24,
        };
        match form {
            Form::Retry => code,
            Form::Abort => 200 + code,
        }
    }

    pub const ALL: [FetchExit; 8] = [
        FetchExit::Delivered,
        FetchExit::Absent,
        FetchExit::Usage,
        FetchExit::Unreachable,
        FetchExit::Damaged,
        FetchExit::Local,
        FetchExit::Deadline,
        FetchExit::Hole,
    ];

    /// The one with this code in this form.
    pub fn from_code(code: u8, form: Form) -> Option<Self> {
        FetchExit::ALL.into_iter().find(|exit| exit.code(form) == code)
    }

    /// By the gravest failure: 21 before 24 before 20 before 23.
    pub fn of(failures: &[Failure<fetch::Cause>]) -> Self {
        match failures.iter().map(|failure| failure.kind).min() {
            Some(fetch::Cause::Local) => FetchExit::Local,
            Some(fetch::Cause::Damaged) => FetchExit::Damaged,
            Some(fetch::Cause::Hole) => FetchExit::Hole,
            Some(fetch::Cause::Unreachable | fetch::Cause::NothingThere | fetch::Cause::Refused) | None => {
                FetchExit::Unreachable
            }
            Some(fetch::Cause::Deadline) => FetchExit::Deadline,
        }
    }
}

/// The end of `wal-archive`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdminExit {
    /// Nothing to object to.
    Fine,
    Findings,
    /// Bad usage, or it could not tell.
    CouldNotTell,
    /// Of `check`, whose numbers are those of monitoring plugins.
    Checked(State),
}

impl AdminExit {
    /// Of several clusters or findings: what is known to be wrong comes before what could not be told.
    pub fn of_all(exits: &[AdminExit]) -> Self {
        let gravest = [AdminExit::Findings, AdminExit::CouldNotTell];
        gravest.into_iter().find(|exit| exits.contains(exit)).unwrap_or(AdminExit::Fine)
    }

    pub fn code(self) -> u8 {
        match self {
            AdminExit::Fine => 0,
            AdminExit::Findings => 1,
            AdminExit::CouldNotTell => 2,
            AdminExit::Checked(State::Ok) => 0,
            AdminExit::Checked(State::Warning) => 1,
            AdminExit::Checked(State::Critical) => 2,
            AdminExit::Checked(State::Unknown) => 3,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_code_of_wal_push_kills_the_archiver() {
        assert_eq!(PushExit::ALL.map(PushExit::code), [0, 2, 10, 11, 12, 13, 14]);
    }

    #[test]
    fn a_code_leads_back_to_its_end_and_no_other_number_to_one() {
        for exit in PushExit::ALL {
            assert_eq!(PushExit::from_code(exit.code()), Some(exit));
        }
        assert_eq!((1..=255).filter_map(PushExit::from_code).count(), PushExit::ALL.len() - 1);
        for form in [Form::Retry, Form::Abort] {
            for exit in FetchExit::ALL {
                assert_eq!(FetchExit::from_code(exit.code(form), form), Some(exit));
            }
            assert_eq!(FetchExit::from_code(134, form), None);
        }
    }

    #[test]
    fn failures_of_wal_fetch_are_below_126_in_one_form_and_above_it_in_the_other() {
        use FetchExit::*;
        let all = [Usage, Unreachable, Damaged, Local, Deadline, Hole];
        assert_eq!(all.map(|exit| exit.code(Form::Retry)), [2, 20, 21, 22, 23, 24]);
        assert_eq!(all.map(|exit| exit.code(Form::Abort)), [202, 220, 221, 222, 223, 224]);
        for form in [Form::Retry, Form::Abort] {
            assert_eq!((Delivered.code(form), Absent.code(form)), (0, 1));
        }
    }

    #[test]
    fn a_check_ends_as_monitoring_plugins_do() {
        let all = [State::Ok, State::Warning, State::Critical, State::Unknown];
        assert_eq!(all.map(|state| AdminExit::Checked(state).code()), [0, 1, 2, 3]);
    }

    #[test]
    fn the_gravest_of_several_failures_counts() {
        use fetch::Cause as F;
        use push::Cause as P;
        let push = |kinds: &[P]| {
            PushExit::of(&kinds.iter().map(|k| Failure::new(*k, "")).collect::<Vec<_>>()).code()
        };
        assert_eq!(push(&[P::Deadline, P::Destination, P::Conflict]), 12);
        assert_eq!(push(&[P::Deadline, P::Destination]), 13);
        assert_eq!(push(&[P::Deadline]), 14);
        let fetch = |kinds: &[F]| {
            FetchExit::of(&kinds.iter().map(|k| Failure::new(*k, "")).collect::<Vec<_>>()).code(Form::Retry)
        };
        assert_eq!(fetch(&[F::Deadline, F::Unreachable, F::Hole, F::Damaged]), 21);
        assert_eq!(fetch(&[F::Deadline, F::Unreachable, F::Hole]), 24);
        assert_eq!(fetch(&[F::Deadline, F::Unreachable]), 20);
        assert_eq!(fetch(&[F::Deadline]), 23);
    }
}
