//! `wal-archive expire`: a plan by default, and only with `--yes` a deletion.

use crate::util::{CLUSTER, MIB, Run, Sandbox, names, segment};
use std::fs;

fn name(number: u32) -> String {
    format!("0000000100000000{number:08X}")
}

/// Archived: segments 1 to 9 of 1 MiB, backups in 2 ("other"), 3 and 7 ("nightly …"), a history.
fn archive() -> Sandbox {
    let sandbox = Sandbox::new();
    for number in 1..10 {
        let name = name(number);
        sandbox.wal(&name, &segment(&name, MIB, CLUSTER, number.into()));
        sandbox.push(&name, &[]).succeeds();
    }
    for (number, label) in [(2, "other"), (3, "nightly 1"), (7, "nightly 2")] {
        push_backup(&sandbox, number, label);
    }
    sandbox.wal("00000002.history", b"1\t0/900000\tno recovery target specified\n");
    sandbox.push("00000002.history", &[]).succeeds();
    sandbox
}

fn push_backup(sandbox: &Sandbox, number: u32, label: &str) {
    let (file, content) = backup(number, label);
    sandbox.wal(&file, content.as_bytes());
    sandbox.push(&file, &[]).succeeds();
}

fn backup(number: u32, label: &str) -> (String, String) {
    let segment = name(number);
    let content = format!(
        "START WAL LOCATION: 0/{number}00028 (file {segment})\nSTOP WAL LOCATION: 0/{number}00100 (file {segment})\n\
         CHECKPOINT LOCATION: 0/{number}00060\nBACKUP METHOD: streamed\nBACKUP FROM: primary\n\
         START TIME: 2026-11-0{number} 21:05:43 UTC\nLABEL: {label}\nSTART TIMELINE: 1\n\
         STOP TIME: 2026-11-0{number} 21:05:44 UTC\nSTOP TIMELINE: 1\n"
    );
    (format!("{segment}.00000028.backup"), content)
}

fn expire(sandbox: &Sandbox, args: &[&str]) -> Run {
    sandbox.admin("expire", args)
}

#[test]
fn without_yes_nothing_is_deleted_and_with_it_exactly_what_was_shown() {
    let sandbox = archive();
    fs::write(sandbox.archive().join("wal_005/notes.txt"), "mine").unwrap();
    let before = sandbox.objects();
    let keep = ["--label", "nightly*", "--keep-backups", "1"];
    let shown = expire(&sandbox, &keep)
        .says(0, &["keep", "\"nightly 2\"", "one of the newest 1"])
        .says(0, &["drop", "\"nightly 1\""])
        .says(0, &["delete", &name(1), &name(6), "8 objects", "older than"])
        .says(0, &["nothing was deleted, --yes does it"]);
    assert!(shown.stderr.is_empty(), "{shown:?}");
    assert_eq!(sandbox.objects(), before);
    expire(&sandbox, &[&keep[..], &["--dry-run"]].concat()).says(0, &["nothing was deleted"]);
    let done = expire(&sandbox, &[&keep[..], &["--yes"]].concat()).says(0, &["deleted 8 objects"]);
    assert!(done.stdout.contains("delete  "), "the plan first: {done:?}");
    let gone: Vec<_> = before.iter().filter(|object| !sandbox.objects().contains(object)).cloned().collect();
    assert_eq!(gone.len(), 8, "six segments and two backup history files: {gone:?}");
    for object in &gone {
        assert!(object[..24] < *name(7), "{object}");
        assert!(
            done.stderr.contains(&format!("deleting \"{}/wal_005/{object}\"", sandbox.archive().display()))
        );
    }
    for stays in ["00000002.history.zst", "notes.txt"] {
        assert!(sandbox.objects().contains(&stays.to_owned()), "{stays}");
    }
    assert!(sandbox.archive().join("archive.json").exists());
    expire(&sandbox, &[&keep[..], &["--yes"]].concat()).says(0, &["deleted 0 objects"]);
}

#[test]
fn a_list_names_backups_too_and_the_most_careful_rule_wins() {
    let sandbox = archive();
    let list = sandbox.path("backups");
    fs::write(&list, "# start timeline finished stop\n0/500028 1 2026-11-05T22:00:00Z 0/500100\n").unwrap();
    let list = list.to_str().unwrap();
    let first_kept = |args: &[&str]| {
        let run = expire(&sandbox, &[args, &["--json"]].concat());
        let value: serde_json::Value =
            serde_json::from_str(&run.stdout).unwrap_or_else(|_| panic!("{run:?}"));
        assert!(value["destinations"][0]["deleted"].is_null());
        value["destinations"][0]["ranges"][0]["last"].as_str().map(str::to_owned)
    };
    assert_eq!(first_kept(&["--backups", list]), Some(name(4)));
    assert_eq!(first_kept(&["--label", "nightly 2"]), Some(name(6)));
    assert_eq!(first_kept(&["--backups", list, "--label", "nightly 2"]), Some(name(4)));
    assert_eq!(
        first_kept(&["--backups", list, "--label", "nightly 2", "--keep-backups", "1"]),
        Some(name(6))
    );
    assert_eq!(first_kept(&["--label", "nightly 2", "--before", &name(3)]), Some(name(2)));
    assert_eq!(first_kept(&["--label", "nightly 2", "--before", "0/3FFFFF"]), Some(name(2)));
    assert_eq!(first_kept(&["--label", "*", "--keep-days", "36500"]), Some(name(1)), "none is older");
}

#[test]
fn between_backups_only_their_own_ranges_stay() {
    let sandbox = archive();
    let args = ["--label", "nightly*", "--between-backups", "--yes"];
    expire(&sandbox, &args).says(0, &["delete", &name(4), &name(6), "between kept backups"]);
    let left: Vec<_> = sandbox.objects().into_iter().filter(|object| object.len() == 28).collect();
    assert_eq!(left, [3, 7, 8, 9].map(|number| format!("{}.zst", name(number))));
}

#[test]
fn what_was_expired_between_backups_is_known_and_no_loss() {
    let sandbox = archive();
    let args = ["--label", "nightly*", "--between-backups", "--yes"];
    expire(&sandbox, &args).says(0, &["deleted"]);
    let records = names(&sandbox.archive().join("expired"));
    assert_eq!(records.len(), 1, "{records:?}");
    let record = fs::read_to_string(sandbox.archive().join("expired").join(&records[0])).unwrap();
    let expected =
        format!("{{\"wal-archive\":1,\"expired\":[{{\"from\":\"{}\",\"to\":\"{}\"}}]}}\n", name(4), name(6));
    assert_eq!(record, expected);
    let verify = |sandbox: &Sandbox| sandbox.admin("verify", &[]).told(0, sandbox);
    assert!(verify(&sandbox).contains("to what was expired"));
    let listed = sandbox.admin("list", &[]).told(0, &sandbox);
    assert!(listed.contains(&format!("{}..{} (expired between backups)", name(4), name(6))), "{listed}");
    // A repeat has nothing to record, and a copy knows it, too.
    expire(&sandbox, &args).says(0, &["deleted 0 objects"]);
    assert_eq!(names(&sandbox.archive().join("expired")), records);
    let second = sandbox.make_archive("second");
    let copied = Run::of(sandbox.program("wal-archive").arg("copy").arg(sandbox.archive()).arg(&second));
    assert_eq!(copied.code, Some(0), "{copied:?}");
    assert_eq!(names(&second.join("expired")), records);
    // What is lost elsewhere still is.
    fs::remove_file(sandbox.object(&name(8))).unwrap();
    let told = sandbox.admin("verify", &[]).told(1, &sandbox);
    assert!(told.starts_with(&format!("missing {} in", name(8))) && !told.contains(&name(4)), "{told}");
}

#[test]
fn what_is_recorded_as_expired_and_still_there_can_be_lost() {
    let sandbox = archive();
    let second = sandbox.make_archive("second");
    let copy = || {
        let copied = Run::of(sandbox.program("wal-archive").arg("copy").arg(sandbox.archive()).arg(&second));
        assert_eq!(copied.code, Some(0), "{copied:?}");
    };
    copy();
    expire(&sandbox, &["--label", "nightly*", "--between-backups", "--yes"]).says(0, &["deleted"]);
    copy();
    let verify = || Run::of(sandbox.program("wal-archive").arg("verify").arg("--archive").arg(&second));
    let remove = |number| fs::remove_file(second.join(format!("wal_005/{}.zst", name(number)))).unwrap();
    assert_eq!(verify().code, Some(0));
    remove(4);
    verify().says(1, &["missing", &name(4)]);
    // A record of a run that failed.
    let records = || names(&second.join("expired"));
    assert!(records().is_empty(), "the second destination keeps longer: {:?}", records());
    let record = names(&sandbox.archive().join("expired")).remove(0);
    fs::create_dir(second.join("expired")).unwrap();
    fs::copy(sandbox.archive().join("expired").join(&record), second.join("expired").join(&record)).unwrap();
    verify().says(0, &["to what was expired"]);
    remove(6);
    verify().says(1, &["missing", &name(6)]);
    remove(5);
    verify().says(0, &["to what was expired"]);
}

#[test]
fn a_kept_segment_that_is_missing_is_not_recorded_as_expired() {
    let sandbox = archive();
    let list = sandbox.path("backups");
    let backup = |n: u32| format!("0/{n}00028 1 2026-11-0{n}T22:00:00Z 0/{n}00100\n");
    fs::write(&list, [2, 5, 7].map(backup).concat()).unwrap();
    // 3, 4 and 6 go; 5 is kept, and lost.
    fs::remove_file(sandbox.object(&name(5))).unwrap();
    let args = ["--backups", list.to_str().unwrap(), "--between-backups", "--yes"];
    expire(&sandbox, &args).says(0, &["delete", &name(3), &name(6), "between kept backups"]);
    let told = sandbox.admin("verify", &[]).told(1, &sandbox);
    assert!(told.starts_with(&format!("missing {} in", name(5))), "{told}");
}

#[test]
fn what_could_delete_too_much_is_refused_and_deletes_nothing() {
    let sandbox = archive();
    let list = |text: &str| {
        let path = sandbox.path("backups");
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let before = sandbox.objects();
    let refused = |args: &[&str], words: &[&str]| {
        expire(&sandbox, &[args, &["--yes"]].concat()).fails(2, words);
        assert_eq!(sandbox.objects(), before, "{args:?}");
    };
    refused(&["--keep-backups", "1"], &["no backup to keep is named"]);
    refused(&["--before", &name(5)], &["no backup to keep is named"]);
    refused(&["--label", "weekly*"], &["no backup to keep is named"]);
    refused(&["--label", "nightly*", "--keep-backups", "0"], &["0"]);
    refused(&["--label", "nightly*", "--before", "00000002.history"], &["--before"]);
    refused(&["--backups", "/nonexistent"], &["cannot read"]);
    refused(&["--backups", &list("# none\n")], &["lists no backup"]);
    refused(&["--backups", &list("0/500028 one\n")], &["line 1"]);
    refused(
        &["--backups", &list("0/F00028 1 2026-11-05T22:00:00Z\n")],
        &["of none of the named backups", "so nothing may be deleted"],
    );
    refused(&["--label", "nightly*", "--dry-run"], &["cannot be used with"]);
    // A file that cannot be understood might be the backup that matters.
    push_backup(&sandbox, 5, "nightly 3");
    let object = sandbox.object(&backup(5, "").0);
    let mut bytes = fs::read(&object).unwrap();
    bytes[20] ^= 1;
    fs::write(&object, bytes).unwrap();
    let before = sandbox.objects();
    expire(&sandbox, &["--label", "nightly*", "--yes"])
        .fails(2, &["cannot be understood", "HINT", "quarantine"]);
    assert_eq!(sandbox.objects(), before);
    // A list needs no such file.
    expire(&sandbox, &["--backups", &list("0/500028 1 2026-11-05T22:00:00Z\n"), "--yes"])
        .says(0, &["deleted"]);
}

#[test]
fn a_destination_that_does_not_answer_saves_the_others() {
    let sandbox = archive();
    let second = sandbox.make_archive("second");
    assert_eq!(
        Run::of(sandbox.program("wal-archive").arg("copy").arg(sandbox.archive()).arg(&second)).code,
        Some(0)
    );
    // The newest backup is known to one of the two only.
    fs::remove_file(second.join(format!("wal_005/{}.zst", backup(7, "").0))).unwrap();
    let both = format!("{},{}", sandbox.archive().display(), second.display());
    let expire = || {
        let args = ["expire", "--label", "nightly*", "--keep-backups", "1", "--yes"];
        Run::of(sandbox.program("wal-archive").env("WAL_ARCHIVE", &both).args(args))
    };
    let away = sandbox.path("away");
    fs::rename(&second, &away).unwrap();
    let before = sandbox.objects();
    expire().fails(2, &["cannot open the archive's root"]);
    assert_eq!(sandbox.objects(), before);
    fs::rename(&away, &second).unwrap();
    expire().says(0, &["deleted 16 objects"]);
    let left = names(&second.join("wal_005"));
    assert!(left.contains(&format!("{}.zst", name(7))) && !left.contains(&format!("{}.zst", name(6))));
    assert_eq!(left.len() + 1, sandbox.objects().len());
}

#[test]
fn backups_of_wal_g_are_named_or_nothing_is_deleted() {
    let sandbox = archive();
    let folder = sandbox.archive().join("basebackups_005");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("metadata.txt"), "not a backup").unwrap();
    crate::terminal::backup(&sandbox, 0x0080_0028);
    let keep = ["--keep-backups", "1"];
    expire(&sandbox, &keep).says(0, &["delete", &name(1)]);
    fs::write(folder.join(format!("base_{}_backup_stop_sentinel.json", name(2))), "{}").unwrap();
    let before = sandbox.objects();
    for acts in [&["--yes"][..], &[]] {
        let run = expire(&sandbox, &[&keep[..], acts].concat());
        run.fails(2, &["WAL-G has backups here, and none is named", "HINT:", "--label", "--before"]);
    }
    assert_eq!(sandbox.objects(), before);
    expire(&sandbox, &["--label", "other", "--keep-backups", "9"]).says(0, &["keep", "\"other\""]);
    expire(&sandbox, &["--before", &name(2), "--keep-backups", "1"]).says(0, &["delete", &name(1), &name(1)]);
}

#[test]
fn the_newest_backup_that_leads_to_the_newest_timeline_is_kept_whatever_came_later_on_another() {
    let sandbox = archive();
    // Timeline 2 left timeline 1 between the two nightly backups.
    sandbox.wal("00000002.history", b"1\t0/500000\tno recovery target specified\n");
    sandbox.admin("quarantine", &["00000002.history", "--force"]);
    sandbox.push("00000002.history", &[]).succeeds();
    for number in 5..10 {
        let name = format!("0000000200000000{number:08X}");
        sandbox.wal(&name, &segment(&name, MIB, CLUSTER, number));
        sandbox.push(&name, &[]).succeeds();
    }
    for rule in [["--keep-backups", "1"], ["--keep-days", "1"]] {
        expire(&sandbox, &[&["--label", "nightly*"][..], &rule].concat())
            .says(0, &["keep", "\"nightly 2\""])
            .says(0, &["keep", "\"nightly 1\"", " that lead to timeline 2"])
            .says(0, &["delete", &name(1), &name(2), "3 objects"]);
    }
    fs::remove_file(sandbox.object("00000002.history")).unwrap();
    let args = ["--label", "nightly*", "--keep-backups", "1", "--yes"];
    let lost = expire(&sandbox, &args);
    lost.fails(2, &["history file of timeline 2 is missing", "HINT:", "wal-archive quarantine --timeline 2"]);
}

#[test]
fn each_destination_keeps_backups_that_it_can_restore_alone() {
    let sandbox = archive();
    crate::terminal::backup(&sandbox, 0x0030_0028);
    let second = sandbox.make_archive("second");
    let copy = Run::of(sandbox.program("wal-archive").arg("copy").arg(sandbox.archive()).arg(&second));
    assert_eq!(copy.code, Some(0));
    let backups = |root: &std::path::Path| root.join("backups");
    let mut cp = std::process::Command::new("cp");
    let copied = cp.arg("-a").args([backups(&sandbox.archive()), backups(&second)]);
    assert!(copied.status().unwrap().success());
    crate::terminal::backup(&sandbox, 0x0070_0028);
    let both = format!("{},{}", sandbox.archive().display(), second.display());
    let args = ["expire", "--keep-backups", "1", "--yes"];
    let run = Run::of(sandbox.program("wal-archive").env("WAL_ARCHIVE", both).args(args));
    let why = format!("one of the newest 1 at \"{}\"", second.display());
    run.says(0, &["keep", "0/700028", "one of the newest 1"])
        .says(0, &["keep", "0/300028", &why])
        .says(0, &["deleted 6 objects"]);
    for root in [sandbox.archive(), second] {
        assert!(root.join(format!("wal_005/{}.zst", name(3))).exists());
        assert!(backups(&root).join("20261120T210530Z-0000000000300028-1/backup.json").exists());
    }
}

#[test]
fn a_backup_that_is_damaged_is_not_brought_back_by_its_label() {
    let sandbox = archive();
    for start in [0x0030_0028, 0x0070_0028] {
        crate::terminal::backup(&sandbox, start);
    }
    let newest = sandbox.archive().join("backups/20261120T210530Z-0000000000700028-1");
    fs::remove_file(newest.join("base-00001.tar.zst")).unwrap();
    for names in [&["--label", "*"][..], &[]] {
        let run = expire(&sandbox, &[names, &["--keep-backups", "1"]].concat());
        run.says(0, &["keep", "0/300028", "one of the newest 1"]).says(0, &["delete", &name(1), &name(2)]);
    }
}
