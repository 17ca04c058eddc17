//! What only the file systems tell of the settings: an archive that dies with the server, two names
//! of one directory, a spool that cannot be had, a server that would adopt what is left behind.

use super::{Check, Finding, Report, State, within};
use crate::host::data_directory::{self, DataDirectory};
use crate::spool;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// What does not answer in time is reported by what is looked at there otherwise.
pub(super) fn check(request: &Check<'_>, at: Instant) -> Report {
    let programs = request.directories.to_vec();
    let data_directory = request.data_directory.map(Path::to_owned);
    let spools = request.spools.to_vec();
    within(at, move || {
        let data_directory = data_directory.as_deref().and_then(DataDirectory::at);
        let mut report = Report::default();
        report.findings.extend(data_directory.as_ref().and_then(one_process));
        report.findings.extend(data_directory.and_then(|directory| inside(&directory, &programs.concat())));
        report.findings.extend(programs.iter().find_map(|roots| twice(roots)));
        report.findings.extend(spools.iter().map(usable));
        report
    })
    .unwrap_or_default()
}

/// No fault, but whoever wonders about a hang must know.
fn one_process(directory: &DataDirectory) -> Option<Finding> {
    directory.server().filter(|server| server.adopts_orphans())?;
    let of = directory.path().display().to_string();
    let what = "the server is process 1 of its container: wal-push and wal-fetch work in one process there, whose \
                deadline a hung mount can outlast, and nothing is prefetched";
    Some(Finding::fine("processes", &of, what).hint("run the container with an init (docker run --init)"))
}

fn inside(directory: &DataDirectory, roots: &[PathBuf]) -> Option<Finding> {
    let root = roots.iter().find(|root| directory.contains(root))?;
    let what = format!("the archive \"{}\" lies inside the data directory", root.display());
    let of = directory.path().display().to_string();
    Some(Finding::new(State::Critical, "directories", &of, what).hint(
        "wal-push refuses it, as it would be lost together with the server: use a directory on another disk",
    ))
}

fn twice(roots: &[PathBuf]) -> Option<Finding> {
    let same = |(at, root): (usize, &PathBuf)| {
        let place = data_directory::place(root)?;
        let other = roots.iter().take(at).find(|other| data_directory::place(other) == Some(place))?;
        Some((other.display().to_string(), root.display().to_string()))
    };
    let (one, other) = roots.iter().enumerate().find_map(same)?;
    let what = format!("\"{one}\" and \"{other}\" are the same directory");
    Some(Finding::new(State::Critical, "directories", &other, what).hint(
        "wal-push refuses them, as they are one copy: name it once, or use a directory on another disk",
    ))
}

fn usable(place: &spool::Place) -> Finding {
    let of = place.folder().display().to_string();
    match place.check() {
        Ok(()) => Finding::fine("spool", &of, format!("the spool is \"{of}\"")),
        Err(error) => Finding::new(
            State::Warning,
            "spool",
            &of,
            format!("wal-push and wal-fetch have no spool in \"{of}\": {error}"),
        )
        .hint(
            "archiving works without one, one file at a time: let the server's user write to the folder around it, remove \
             what another user left there, or set spool_dir",
        ),
    }
}
