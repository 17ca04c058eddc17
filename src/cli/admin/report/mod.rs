//! `wal-archive report FILE.html`: what the archive holds and from when to when it can be recovered, as one
//! page to mail, to open offline and to keep. What is in it is what `list`, `window` and `config` tell.

mod page;
mod picture;

use super::super::exit::AdminExit;
use super::answer::show;
use super::config::{self, Shown};
use super::list::Listed;
use super::patience;
use crate::archive::inventory::items;
use crate::config::Layers;
use crate::failure::{Failure, time};
use crate::host::durable;
use crate::object::Stored;
use crate::restore::look;
use crate::restore::window::{Window, windows};
use crate::storage::Shared;
use clap::{Arg, ArgMatches, Command};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

pub(super) fn command() -> Command {
    Command::new("report")
        .about("Writes an HTML page of what the archive holds and how far it can be recovered")
        .after_help(
            "The page needs nothing else and asks nothing of any network. Contents are not read, as by list: \"wal-archive \
             verify\" proves them.\n\n\
             Examples:\n  \
             wal-archive report /srv/reports/wal-main.html",
        )
        .arg(
            Arg::new("file")
                .required(true)
                .value_name("FILE.html")
                .value_parser(clap::value_parser!(PathBuf))
                .help("The page; one that is there is replaced"),
        )
        .arg(patience::arg())
}

/// All that is on the page.
struct Report {
    made: SystemTime,
    cluster: Option<String>,
    listed: Listed,
    /// Or why they are not known.
    windows: Result<Vec<Window>, Failure>,
    /// Bytes of WAL as stored, by the day, at the first destination.
    days: BTreeMap<String, u64>,
    settings: Vec<Shown>,
}

pub(super) fn run(matches: &ArgMatches) -> Result<AdminExit, Failure> {
    let file: PathBuf = super::super::args::value(matches, "file")?;
    let layers = super::layers(matches)?;
    let report = Report::gather(&layers, matches)?;
    write(&file, &page::html(&report))?;
    show(&format!("the report is in \"{}\"\n", file.display()));
    Ok(match report.windows {
        // Known to be wrong counts more.
        Err(_) if report.listed.exit() == AdminExit::Fine => AdminExit::CouldNotTell,
        _ => report.listed.exit(),
    })
}

fn write(file: &Path, text: &str) -> Result<(), Failure> {
    let absolute = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    durable::replace_public(&absolute, text.as_bytes())
        .map_err(|error| Failure::new((), format!("cannot write \"{}\": {error}", file.display())))
}

impl Report {
    fn gather(layers: &Layers, matches: &ArgMatches) -> Result<Self, Failure> {
        let listed = Listed::read(layers, matches)?;
        let storages = patience::open_all(&layers.admin()?.0, matches)?;
        let known = look(&storages).and_then(|archive| windows(&archive));
        let plain = |failure: Failure<_>| Failure { kind: (), message: failure.message, hint: failure.hint };
        Ok(Report {
            made: SystemTime::now(),
            cluster: layers.cluster().map(|chosen| chosen.name.clone()),
            listed,
            windows: known.map_err(plain),
            days: storages.first().map(days).unwrap_or_default(),
            settings: config::rows(layers)?,
        })
    }
}

/// What cannot be listed was told already.
fn days(storage: &Shared) -> BTreeMap<String, u64> {
    let mut days = BTreeMap::new();
    for item in items(storage.as_ref()).into_iter().flatten().flatten() {
        let day = time(item.modified).and_then(|text| Some(text.get(..10)?.to_owned()));
        if let (Some(day), false) = (day, matches!(item.stored, Stored::Stranger)) {
            *days.entry(day).or_insert(0) += item.size;
        }
    }
    days
}
