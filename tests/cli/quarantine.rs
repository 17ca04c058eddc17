//! `wal-archive quarantine`: the way out where a damaged object holds a name.

use crate::util::{Run, Sandbox, flip, names};
use std::fs;

const ONE: &str = "000000010000000000000001";
const TWO: &str = "000000010000000000000002";

fn quarantined(sandbox: &Sandbox) -> Vec<String> {
    names(&sandbox.archive().join("quarantine"))
}

/// Two archived segments, the first of them damaged.
fn damaged() -> (Sandbox, Vec<u8>) {
    let sandbox = Sandbox::new();
    for name in [ONE, TWO] {
        sandbox.segment(name);
        sandbox.push(name, &[]).succeeds();
    }
    flip(&sandbox.object(ONE), 80_000);
    let bytes = fs::read(sandbox.object(ONE)).unwrap();
    (sandbox, bytes)
}

#[test]
fn a_damaged_object_is_moved_aside_and_the_next_push_stores_the_good_one() {
    let (sandbox, bytes) = damaged();
    sandbox.push(ONE, &[]).fails(12, &["damaged"]);
    let run = sandbox.admin("quarantine", &[ONE]).says(0, &[ONE, "damaged", "moved to", "bytes, stored 20"]);
    assert!(run.stderr.is_empty(), "{run:?}");
    let [aside] = &quarantined(&sandbox)[..] else { panic!("one object") };
    assert!(aside.starts_with(&format!("{ONE}.")) && aside.len() == ONE.len() + 17, "{aside}");
    assert!(fs::read(sandbox.archive().join("quarantine").join(aside)).unwrap() == bytes);
    assert_eq!(sandbox.objects(), [format!("{TWO}.zst")]);
    // The repeat has nothing to do and says where it is.
    sandbox.admin("quarantine", &[ONE]).says(0, &[ONE, "moved before", aside]);
    sandbox.push(ONE, &[]).succeeds();
    sandbox.fetch(ONE, &[]).succeeds();
    assert!(quarantined(&sandbox).len() == 1);
}

#[test]
fn an_intact_object_stays_unless_forced() {
    let (sandbox, _) = damaged();
    let run = sandbox.admin("quarantine", &[TWO]).says(1, &[TWO, "intact", "stays"]);
    assert!(run.stderr.contains("--force"), "{run:?}");
    assert!(sandbox.object(TWO).exists());
    let run = sandbox.admin("quarantine", &["--force", TWO]).says(0, &[TWO, "intact", "moved to"]);
    assert!(run.stderr.contains("shorter"), "nothing stands behind it: {run:?}");
    assert!(!sandbox.object(TWO).exists() && quarantined(&sandbox).len() == 1);
}

#[test]
fn variants_and_unread_encodings_go_by_their_key_and_strangers_never() {
    let (sandbox, _) = damaged();
    let folder = sandbox.archive().join("wal_005");
    let unread = format!("wal_005/{TWO}.gpg");
    fs::write(sandbox.archive().join(&unread), "secret").unwrap();
    sandbox.admin("quarantine", &[&unread]).says(1, &["encoding", "stays"]);
    sandbox.admin("quarantine", &["--force", &unread]).says(0, &["encoding", "moved to"]);
    let variant = format!("wal_005/{TWO}.partial.0123456789abcdef.zst");
    fs::copy(sandbox.object(TWO), sandbox.archive().join(&variant)).unwrap();
    sandbox.admin("quarantine", &[&variant]).says(0, &["damaged", "moved to", &format!("{TWO}.partial.")]);
    fs::write(folder.join("notes.txt"), "mine").unwrap();
    for stranger in ["wal_005/notes.txt", "archive.json", "wal-archive-probe", "../etc/passwd"] {
        sandbox.admin("quarantine", &["--force", stranger]).fails(2, &["neither", "HINT"]);
    }
    assert!(folder.join("notes.txt").exists() && sandbox.archive().join("archive.json").exists());
}

#[test]
fn what_stands_nowhere_is_told() {
    let (sandbox, _) = damaged();
    sandbox.admin("quarantine", &["000000010000000000000009"]).fails(1, &["is at no destination"]);
    let gone = sandbox.path("gone");
    sandbox
        .admin("quarantine", &[ONE, "--from", gone.to_str().unwrap()])
        .fails(2, &["cannot open the archive's root"]);
}

#[test]
fn of_several_destinations_only_the_damaged_copy_is_moved_and_never_all_intact_ones() {
    let (sandbox, _) = damaged();
    let other = sandbox.make_archive("other");
    for name in [ONE, TWO] {
        Run::of(sandbox.program("wal-push").arg("--archive").arg(&other).arg(format!("pg_wal/{name}")))
            .succeeds();
    }
    let both = format!("{},{}", sandbox.archive().display(), other.display());
    let admin = |args: &[&str]| Run::of(sandbox.program("wal-archive").env("WAL_ARCHIVE", &both).args(args));
    admin(&["quarantine", "--force", TWO]).fails(2, &["every intact copy", "--from"]);
    let run = admin(&["quarantine", ONE, "--json"]);
    let answer: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    let rows = &answer["objects"];
    assert_eq!(run.code, Some(0), "{run:?}");
    assert!(rows[0]["was"].as_str().unwrap().starts_with("damaged: "));
    assert!(rows[0]["now_at"].as_str().unwrap().starts_with("quarantine/"));
    assert_eq!(rows[1]["was"], "intact");
    assert_eq!(rows[1]["now_at"], serde_json::Value::Null);
    assert!(other.join(format!("wal_005/{ONE}.zst")).exists());
    let from = other.to_str().unwrap();
    admin(&["quarantine", "--force", TWO, "--from", from]).says(0, &["intact", "moved to"]);
    assert!(sandbox.object(TWO).exists() && !other.join(format!("wal_005/{TWO}.zst")).exists());
}

/// Two timelines of a real server, stored long ago.
fn two_timelines() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.archive_real();
    sandbox
}

fn of_timeline_2(sandbox: &Sandbox) -> Vec<String> {
    sandbox.objects().into_iter().filter(|name| name.starts_with("00000002")).collect()
}

#[test]
fn a_timeline_goes_by_a_plan_and_its_history_last() {
    let sandbox = two_timelines();
    let (before, all) = (of_timeline_2(&sandbox), sandbox.objects().len());
    assert!(before.len() >= 3 && before.contains(&"00000002.history.zst".to_owned()), "{before:?}");
    let plan = sandbox.admin("quarantine", &["--timeline", "2"]).says(0, &["nothing was moved", "--yes"]);
    assert_eq!((of_timeline_2(&sandbox), plan.stdout.lines().count()), (before.clone(), before.len() + 1));
    let run = sandbox.admin("quarantine", &["--timeline", "2", "--yes"]);
    assert!(run.code == Some(0) && run.stderr.is_empty(), "{run:?}");
    let last = run.stdout.lines().last().unwrap();
    assert!(last.contains("00000002.history.zst") && last.contains("moved to"), "{run:?}");
    assert_eq!((of_timeline_2(&sandbox).len(), sandbox.objects().len()), (0, all - before.len()));
    assert_eq!(quarantined(&sandbox).len(), before.len());
    sandbox.admin("quarantine", &["--timeline", "2", "--yes"]).fails(1, &["no file of timeline 2"]);
    sandbox.admin("quarantine", &["--timeline", "0"]).fails(2, &["no timeline 0"]);
}

#[test]
fn verify_names_the_command_that_moves_a_timeline_aside_that_nobody_needs() {
    let sandbox = two_timelines();
    let accepted = ["--accept-gap", "000000010000000000000016..000000010000000000000019"];
    // A rehearsal that archived put segments there, and its history did not arrive.
    fs::remove_file(sandbox.object("00000002.history")).unwrap();
    let run = sandbox.admin("verify", &accepted).says(1, &["no-history", "00000002.history"]);
    let archive = sandbox.archive();
    let hint = format!("\"wal-archive quarantine --timeline 2 --from {}\"", archive.display());
    assert!(run.stdout.contains(&hint), "{run:?}");
    let from = archive.to_str().unwrap();
    sandbox.admin("quarantine", &["--timeline", "2", "--from", from, "--yes"]).says(0, &["moved to"]);
    sandbox.admin("verify", &accepted).says(0, &["sound: "]);

    // Two servers archived on the timeline, each to a destination of its own.
    let (sandbox, other) = (two_timelines(), two_timelines());
    let name = "00000002000000000000001C";
    fs::remove_file(other.object(name)).unwrap();
    other.wal(name, &crate::util::segment(name, crate::util::MIB, crate::util::CLUSTER, 7));
    other.push(name, &[]).succeeds();
    other.age(name);
    let both = format!("{},{}", sandbox.archive().display(), other.archive().display());
    let verify =
        || Run::of(sandbox.program("wal-archive").env("WAL_ARCHIVE", &both).arg("verify").args(accepted));
    let run = verify().says(1, &["differs", name]);
    let from = other.archive();
    let hint = format!("\"wal-archive quarantine --force --from {} wal_005/{name}.zst\"", from.display());
    assert!(run.stdout.contains(&hint) && run.stdout.contains("\"--timeline 2\""), "{run:?}");
    sandbox
        .admin("quarantine", &["--force", "--from", from.to_str().unwrap(), &format!("wal_005/{name}.zst")])
        .says(0, &["intact", "moved to"]);
    assert!(!verify().stdout.contains("differs"));
}

#[test]
fn a_timeline_that_is_needed_or_was_just_written_stays() {
    let sandbox = two_timelines();
    let yes = |number: &str| sandbox.admin("quarantine", &["--timeline", number, "--yes"]);
    yes("1").fails(1, &["oldest timeline", "timeline 2 continues it", "HINT"]);
    fs::File::options()
        .append(true)
        .open(sandbox.object("00000002.history"))
        .unwrap()
        .set_modified(std::time::SystemTime::now())
        .unwrap();
    yes("2").fails(1, &["15 minutes", "archiving on it"]);
    assert!(quarantined(&sandbox).is_empty() && !of_timeline_2(&sandbox).is_empty());
    sandbox.admin("quarantine", &["--timeline", "2", "--yes", "--force"]).says(0, &["moved to"]);
    assert!(of_timeline_2(&sandbox).is_empty());
}

#[test]
fn what_was_moved_aside_is_shown_and_deleted_once_the_archive_has_a_good_one() {
    let (sandbox, _) = damaged();
    sandbox.admin("quarantine", &["--list"]).says(0, &["nothing was moved aside"]);
    sandbox.admin("quarantine", &[ONE]).says(0, &["moved to"]);
    sandbox.admin("quarantine", &["--list"]).says(0, &["quarantine/", ONE, "no"]);
    // The only object of its name stays.
    let run = sandbox.admin("quarantine", &["--purge", "--yes"]).says(1, &[ONE, "no", "stays"]);
    assert!(run.stderr.contains("the last of its name") && quarantined(&sandbox).len() == 1, "{run:?}");
    sandbox.push(ONE, &[]).succeeds();
    sandbox.admin("quarantine", &["--purge"]).says(0, &[ONE, "yes", "goes with --yes"]);
    sandbox.admin("quarantine", &["--purge", TWO, "--yes"]).says(0, &["nothing was moved aside"]);
    assert_eq!(quarantined(&sandbox).len(), 1);
    fs::write(sandbox.archive().join("quarantine/notes.txt"), "mine").unwrap();
    sandbox.admin("quarantine", &["--purge", ONE, "--yes"]).says(0, &[ONE, "deleted"]);
    assert_eq!(quarantined(&sandbox), ["notes.txt"]);
    sandbox.admin("quarantine", &[ONE, "--yes"]).fails(2, &["--timeline"]);
}
