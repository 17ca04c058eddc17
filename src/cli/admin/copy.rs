//! `wal-archive copy FROM TO`: migration, off-site copy, repair.

use super::super::exit::AdminExit;
use super::answer::{VERSION_WITH_FINDINGS, json_flag, show, show_json};
use super::findings;
use super::jobs;
use super::look::Look;
use super::patience;
use super::progress::Progress;
use crate::config::{ArchiveBy, Layers};
use crate::copy::{Copied, Encrypted, Request, copy};
use crate::failure::Failure;
use crate::object::Encryption;
use crate::storage::Destination;
use clap::{Arg, ArgAction, ArgMatches, Command};
use log::Level;
use serde_json::{Value, json};

pub(super) fn command() -> Command {
    Command::new("copy")
        .about("Copies what is missing from one archive into another, verified on the way")
        .after_help(
            "Examples:\n  \
             wal-archive copy FROM TO   one archive into another\n  \
             wal-archive copy TO        the configured destinations into another\n  \
             wal-archive copy           each configured destination gets what it lacks\n  \
             wal-archive copy --repair  the same, and damaged objects are replaced",
        )
        .arg(
            Arg::new("urls")
                .num_args(0..=2)
                .value_names(["FROM", "TO"])
                .help("/directory, file:///directory or s3://bucket/prefix"),
        )
        .arg(
            Arg::new("repair")
                .long("repair")
                .action(ArgAction::SetTrue)
                .help("Read every object at TO in full; move damaged ones aside and create them anew"),
        )
        .arg(Arg::new("reencrypt").long("reencrypt").action(ArgAction::SetTrue).help(
            "Encrypt anew, for the configured recipients; else encrypted objects are passed on as they are",
        ))
        .arg(
            Arg::new("decrypt")
                .long("decrypt")
                .action(ArgAction::SetTrue)
                .conflicts_with("reencrypt")
                .help("Store what is encrypted at FROM decrypted in TO, a plain archive"),
        )
        .arg(jobs::arg("Files at once"))
        .arg(patience::arg())
        .arg(json_flag())
}

pub(super) fn run(matches: &ArgMatches) -> Result<AdminExit, Failure> {
    let urls: Vec<_> = matches.get_many::<String>("urls").unwrap_or_default().cloned().collect();
    let layers = super::layers_for(matches, None, ArchiveBy::arguments_if(urls.len() == 2))?;
    let pairs = pairs(&layers, &urls)?;
    let (checks, level) = (layers.admin_checks()?, layers.level()?);
    let encrypted = match (matches.get_flag("reencrypt"), matches.get_flag("decrypt")) {
        (true, _) => Encrypted::Anew,
        (_, true) => Encrypted::Decrypted,
        _ => Encrypted::PassOn,
    };
    let mut outcome = AdminExit::Fine;
    let (mut tables, mut copies) = (Vec::new(), Vec::new());
    for (from, mut to) in pairs {
        let encrypted = match encrypted {
            Encrypted::Decrypted => decrypted(urls.len(), &from, &mut to),
            other => other,
        };
        let progress = Progress::new("listing");
        let made = copy(&Request {
            from: &patience::open(&from, matches)?,
            to: &patience::open(&to, matches)?,
            checks,
            level,
            repair: matches.get_flag("repair"),
            encrypted,
            jobs: jobs::count(matches)?,
            progress: &|made| progress.set("copying", made.seen, made.listed, made.bytes),
        });
        drop(progress);
        match made {
            Ok(made) => {
                made.failures.iter().for_each(|failure| failure.log(Level::Error));
                outcome = match (made.failures.is_empty(), made.findings.is_empty()) {
                    (false, _) => AdminExit::CouldNotTell,
                    (true, false) if outcome == AdminExit::Fine => AdminExit::Findings,
                    _ => outcome,
                };
                tables.push(table(&from, &to, &made));
                copies.push(object(&from, &to, &made));
            }
            Err(failure) => {
                failure.log(Level::Error);
                outcome = AdminExit::CouldNotTell;
            }
        }
    }
    match matches.get_flag("json") {
        true => show_json(VERSION_WITH_FINDINGS, json!({"copies": copies})),
        false => show(&tables.join("\n")),
    }
    Ok(outcome)
}

/// What `--decrypt` means between these two: of destinations that are not named it is for those alone that go from an
/// encrypted one into a plain one.
fn decrypted(named: usize, from: &Destination, to: &mut Destination) -> Encrypted {
    if named == 0 && to.keys.as_ref().is_some_and(|keys| keys.writes() == Encryption::Age) {
        return Encrypted::PassOn;
    }
    to.keys = None; // it is to be a plain one, whatever the others are
    if named < 2 && from.keys.is_none() { Encrypted::PassOn } else { Encrypted::Decrypted }
}

/// From where to where.
fn pairs(layers: &Layers, urls: &[String]) -> Result<Vec<(Destination, Destination)>, Failure> {
    if let [from, to] = urls {
        let pair = (layers.destination(from)?, layers.destination(to)?);
        return match pair.0.location == pair.1.location {
            true => Err(Failure::new((), format!("\"{}\" is to be copied onto itself", pair.0))
                .hint("name another archive as TO; a second copy of an archive is another place")),
            false => Ok(vec![pair]),
        };
    }
    let (archive, _) = layers.admin()?;
    let targets = match urls {
        [to, ..] => vec![layers.destination(to)?],
        [] => archive.clone(),
    };
    let pair = |to: &Destination| {
        let others = archive.iter().filter(|from| from.location != to.location);
        others.map(|from| (from.clone(), to.clone())).collect::<Vec<_>>()
    };
    let pairs: Vec<_> = targets.iter().flat_map(pair).collect();
    match pairs.is_empty() {
        true => Err(Failure::new((), "there is no other destination to copy from")
            .hint("name both: wal-archive copy FROM TO")),
        false => Ok(pairs),
    }
}

fn table(from: &Destination, to: &Destination, made: &Copied) -> String {
    let mut text = format!("from       {from}\nto         {to}\n");
    for (label, count) in [
        ("files", made.listed),
        ("copied", made.copied),
        ("encoded", made.encoded),
        ("repaired", made.repaired),
        ("identical", made.identical),
        ("left", made.left),
        ("held back", made.held_back),
        ("sealed", made.sealed),
        ("old keys", made.for_others),
        ("bytes", made.bytes),
        ("strangers", made.strangers_total),
        ("findings", made.findings.len() as u64),
        ("failures", made.failures.len() as u64),
    ] {
        text += &format!("{label:9}  {count}\n");
    }
    text += &findings::text(&made.findings, Look::wide());
    for key in &made.strangers {
        text += &format!("stranger   {:?} was not copied\n", format!("{from}/{key}"));
    }
    text
}

fn object(from: &Destination, to: &Destination, made: &Copied) -> Value {
    json!({
        "from": from.to_string(),
        "to": to.to_string(),
        "files": made.listed,
        "copied": made.copied,
        "encoded": made.encoded,
        "repaired": made.repaired,
        "identical": made.identical,
        "left": made.left,
        "held_back": made.held_back,
        "not_decrypted": made.sealed,
        "for_others": made.for_others,
        "bytes": made.bytes,
        "strangers": made.strangers,
        "strangers_total": made.strangers_total,
        "findings": made.findings,
        "failures": made.failures.iter().map(ToString::to_string).collect::<Vec<_>>(),
    })
}
