//! Histories first: nothing of a timeline is archived before its history is.

use crate::util::{CLUSTER, MIB, Run, Sandbox, flip, names, segment};
use std::fs;
use std::path::Path;
use std::time::Duration;

const ONE: &str = "000000010000000000000001";
const OF_TWO: &str = "000000020000000000000002";
const NEXT_OF_TWO: &str = "000000020000000000000003";
const OF_THREE: &str = "000000030000000000000004";
const HISTORY: &[u8] = b"1\t0/200300\tno recovery target specified\n";
const OTHER: &[u8] = b"1\t0/200400\tno recovery target specified\n";

/// A server that was promoted while archiving was off: its history has no status file.
fn promoted() -> Sandbox {
    promoted_in(Sandbox::new())
}

fn promoted_in(sandbox: Sandbox) -> Sandbox {
    sandbox.segment(ONE);
    sandbox.segment(OF_TWO);
    sandbox.wal("00000002.history", HISTORY);
    sandbox
}

fn objects(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| format!("{name}.zst")).collect()
}

/// Another server archives to the same place.
fn push_of_another(sandbox: &Sandbox, name: &str, content: &[u8]) -> Run {
    let other = sandbox.make_data_directory("other", CLUSTER);
    fs::write(other.join("pg_wal").join(ONE), segment(ONE, MIB, CLUSTER, 1)).unwrap();
    fs::write(other.join("pg_wal").join(name), content).unwrap();
    let mut push = sandbox.program("wal-push");
    push.current_dir(&other).arg("--archive").arg(sandbox.archive());
    Run::of(push.arg(format!("pg_wal/{name}")))
}

#[test]
fn the_first_file_of_a_timeline_brings_its_history() {
    let backup = format!("{OF_TWO}.00000028.backup");
    for name in [OF_TWO.to_owned(), format!("{OF_TWO}.partial"), backup] {
        let sandbox = promoted();
        let content = if name.ends_with("backup") { Vec::new() } else { segment(OF_TWO, MIB, CLUSTER, 1) };
        sandbox.wal(&name, &content);
        assert_eq!(sandbox.push(&name, &[]).code, Some(0));
        assert_eq!(sandbox.objects(), objects(&["00000002.history", &name]));
        sandbox.fetch("00000002.history", &[]).succeeds();
        assert_eq!(sandbox.fetched(), HISTORY);
    }
    let sandbox = promoted();
    sandbox.push(ONE, &[]).succeeds();
    assert_eq!(sandbox.objects(), objects(&[ONE]), "timeline 1 needs none");
    for spool in ["/proc/none", sandbox.path("spool").to_str().unwrap()] {
        sandbox.push(OF_TWO, &["--spool-dir", spool]).succeeds();
        sandbox.push("00000002.history", &["--spool-dir", spool]).succeeds();
    }
}

#[test]
fn a_history_that_is_gone_from_a_directory_is_brought_again() {
    let sandbox = promoted();
    sandbox.push(OF_TWO, &[]).succeeds();
    fs::remove_file(sandbox.object("00000002.history")).unwrap();
    sandbox.segment(NEXT_OF_TWO);
    sandbox.push(NEXT_OF_TWO, &[]).succeeds();
    assert_eq!(sandbox.objects(), objects(&["00000002.history", OF_TWO, NEXT_OF_TWO]));
}

#[test]
fn the_histories_of_ancestors_come_with_that_of_their_descendant() {
    let sandbox = promoted();
    sandbox.wal("00000003.history", b"1\t0/200300\tx\n2\t0/400000\ty\n");
    sandbox.segment(OF_THREE);
    sandbox.push(OF_THREE, &[]).succeeds();
    assert_eq!(sandbox.objects(), objects(&["00000002.history", "00000003.history", OF_THREE]));
}

#[test]
fn a_history_that_conflicts_keeps_out_everything_of_its_timeline() {
    let sandbox = promoted();
    push_of_another(&sandbox, "00000002.history", OTHER).succeeds();
    let words = ["00000002.history", "different content", "nothing of timeline 2", "HINT:"];
    let backup = format!("{OF_TWO}.00000028.backup");
    let partial = format!("{OF_TWO}.partial");
    sandbox.wal(&backup, b"");
    sandbox.wal(&partial, &segment(OF_TWO, MIB, CLUSTER, 1));
    for name in [OF_TWO, &backup, &partial] {
        sandbox.push(name, &[]).fails(12, &words);
    }
    sandbox.push("00000002.history", &[]).fails(12, &["different content"]);
    assert_eq!(sandbox.objects(), objects(&["00000002.history"]));
    sandbox.push(ONE, &[]).succeeds();
}

#[test]
fn a_push_that_looks_ahead_stores_nothing_of_a_timeline_whose_history_conflicts() {
    let sandbox = promoted();
    push_of_another(&sandbox, "00000002.history", OTHER).succeeds();
    for name in [ONE, OF_TWO] {
        fs::write(sandbox.data().join(format!("pg_wal/archive_status/{name}.ready")), "").unwrap();
    }
    std::thread::sleep(Duration::from_millis(50)); // a file that has just changed is left to its own call
    sandbox.push(ONE, &[]).succeeds();
    assert_eq!(sandbox.objects(), objects(&[ONE, "00000002.history"]));
    sandbox.push(OF_TWO, &[]).fails(12, &["00000002.history", "different content"]);
}

#[test]
fn a_history_that_conflicts_at_one_destination_is_stored_at_none() {
    let sandbox = promoted();
    push_of_another(&sandbox, "00000002.history", OTHER).succeeds();
    let second = sandbox.make_archive("second");
    sandbox.push(OF_TWO, &["--archive", second.to_str().unwrap()]).fails(12, &["00000002.history"]);
    assert!(!second.join("wal_005").exists(), "of two servers");
    // It would come with that of a descendant, too.
    sandbox.wal("00000003.history", b"1\t0/200300\tx\n2\t0/400000\ty\n");
    sandbox.segment(OF_THREE);
    for name in ["00000003.history", OF_THREE] {
        let run = sandbox.push(name, &["--archive", second.to_str().unwrap()]);
        run.fails(12, &["00000002.history", "different content"]);
        assert!(!second.join("wal_005").exists(), "{name}");
    }
}

#[test]
fn where_pg_wal_has_no_history_the_archives_own_serves_and_without_any_the_file_is_stored_and_told_of() {
    let sandbox = promoted();
    fs::remove_file(sandbox.data().join("pg_wal/00000002.history")).unwrap();
    // pg_resetwal -l sets a timeline that has no history anywhere.
    for _ in 0..2 {
        let words = ["warning", "00000002.history", "neither in", OF_TWO];
        sandbox.push(OF_TWO, &[]).fails(0, &words);
    }
    assert_eq!(sandbox.objects(), objects(&[OF_TWO]));
    let sandbox = promoted();
    sandbox.push("00000002.history", &[]).succeeds();
    fs::remove_file(sandbox.data().join("pg_wal/00000002.history")).unwrap();
    for spool in [&[][..], &["--spool-dir", "/proc/none"]] {
        sandbox.push(OF_TWO, spool).succeeds();
    }
    // As somebody put it there by hand.
    let sandbox = promoted();
    let history = sandbox.data().join("pg_wal/00000002.history");
    fs::create_dir_all(sandbox.archive().join("wal_005")).unwrap();
    fs::rename(history, sandbox.archive().join("wal_005/00000002.history")).unwrap();
    sandbox.push(OF_TWO, &[]).succeeds();
}

#[test]
fn a_history_is_refused_where_another_servers_files_of_its_timeline_stand_without_one() {
    let sandbox = promoted();
    // The archive lost its history; this server chose the id a second time.
    let lost = |sandbox: &Sandbox, seed| {
        let content = segment(OF_TWO, MIB, CLUSTER, seed);
        assert_eq!(push_of_another(sandbox, OF_TWO, &content).code, Some(0));
    };
    lost(&sandbox, 5);
    let words = ["files of timeline 2", OF_TWO, "no history of it", "HINT:", "wal-archive"];
    sandbox.push("00000002.history", &[]).fails(12, &words);
    sandbox.segment(NEXT_OF_TWO);
    sandbox.push(NEXT_OF_TWO, &[]).fails(12, &words);
    assert_eq!(sandbox.objects(), objects(&[OF_TWO]));
    // Whoever knows that they are this server's own says so by hand.
    let by_hand = sandbox.archive().join("wal_005/00000002.history");
    fs::copy(sandbox.data().join("pg_wal/00000002.history"), by_hand).unwrap();
    sandbox.push(NEXT_OF_TWO, &[]).succeeds();
    let (history, two) = ("00000002.history".to_owned(), format!("{OF_TWO}.zst"));
    let next = format!("{NEXT_OF_TWO}.zst");
    assert_eq!(sandbox.objects(), [history.clone(), format!("{history}.zst"), two, next]);

    // The same files are in its own pg_wal: only the history is lost.
    let sandbox = promoted();
    lost(&sandbox, 1);
    sandbox.push("00000002.history", &[]).succeeds();
    assert_eq!(sandbox.objects(), objects(&["00000002.history", OF_TWO]));
    // Or one of them stands there beside another content.
    let sandbox = promoted();
    let (history, partial) = (sandbox.data().join("pg_wal/00000002.history"), format!("{OF_TWO}.partial"));
    let text = fs::read(&history).unwrap();
    fs::remove_file(&history).unwrap();
    for seed in [5, 1] {
        sandbox.wal(&partial, &segment(OF_TWO, MIB, CLUSTER, seed));
        assert_eq!(sandbox.push(&partial, &[]).code, Some(0));
    }
    fs::remove_file(sandbox.object(&partial)).unwrap();
    fs::write(&history, text).unwrap();
    sandbox.push("00000002.history", &[]).succeeds();
}

#[test]
fn a_damaged_history_that_was_moved_aside_is_replaced_by_that_of_pg_wal() {
    let sandbox = promoted();
    sandbox.push(OF_TWO, &[]).succeeds();
    flip(&sandbox.object("00000002.history"), 100);
    fs::remove_file(sandbox.data().join("pg_wal").join(OF_TWO)).unwrap();
    sandbox.segment(NEXT_OF_TWO);
    let run = sandbox.push(NEXT_OF_TWO, &[]);
    run.fails(12, &["damaged", "HINT:", "wal-archive quarantine 00000002.history"]);
    assert_eq!(sandbox.admin("quarantine", &["00000002.history"]).code, Some(0));
    sandbox.push(NEXT_OF_TWO, &[]).succeeds();
    assert_eq!(sandbox.objects(), objects(&["00000002.history", OF_TWO, NEXT_OF_TWO]));
}

#[test]
fn a_history_that_was_moved_aside_and_does_not_tell_what_it_was_gives_its_timeline_to_nobody_else() {
    let sandbox = promoted();
    sandbox.push(OF_TWO, &[]).succeeds();
    let object = sandbox.object("00000002.history");
    let end = fs::metadata(&object).unwrap().len() as usize;
    flip(&object, end * 8 - 100);
    assert_eq!(sandbox.admin("quarantine", &["00000002.history"]).code, Some(0));
    let words = ["files of timeline 2", "none of them is this server's"];
    push_of_another(&sandbox, "00000002.history", OTHER).fails(12, &words);
    // Whose they are, holds one of them.
    sandbox.segment(NEXT_OF_TWO);
    sandbox.push(NEXT_OF_TWO, &[]).succeeds();
    sandbox.fetch("00000002.history", &[]).succeeds();
    assert_eq!(sandbox.fetched(), HISTORY);
}

#[test]
fn other_tools_histories_count_in_an_archive_that_they_wrote_to() {
    let sandbox = promoted_in(Sandbox::without_archive());
    let plain = |name: &str, content: &[u8]| fs::write(sandbox.archive().join(name), content).unwrap();
    plain(ONE, &segment(ONE, MIB, CLUSTER, 1));
    plain("00000002.history", HISTORY);
    sandbox.push(OF_TWO, &[]).succeeds();
    assert_eq!(sandbox.objects(), objects(&[OF_TWO]));
    sandbox.wal("00000002.history", OTHER);
    sandbox.segment(NEXT_OF_TWO);
    sandbox.push(NEXT_OF_TWO, &[]).fails(12, &["00000002.history", "different content"]);
    assert!(!Path::new(&sandbox.object(NEXT_OF_TWO)).exists());
    // Nor does another destination store what is another server's here.
    let second = sandbox.make_archive("second");
    sandbox.wal(ONE, &segment(ONE, MIB, CLUSTER, 9));
    for name in ["00000002.history", NEXT_OF_TWO, ONE] {
        let run = sandbox.push(name, &["--archive", second.to_str().unwrap()]);
        run.fails(12, &["different content", sandbox.archive().to_str().unwrap()]);
        assert!(!second.join("wal_005").exists(), "{name}");
    }
}

#[test]
fn a_history_put_by_hand_tells_whose_the_timeline_is() {
    let sandbox = promoted();
    let theirs = segment(OF_TWO, MIB, CLUSTER, 5);
    assert_eq!(push_of_another(&sandbox, OF_TWO, &theirs).code, Some(0));
    let by_hand = sandbox.archive().join("wal_005/00000002.history");
    fs::write(&by_hand, OTHER).unwrap();
    // To a descendant, too, its history brings those of its ancestors.
    sandbox.wal("00000003.history", b"1\t0/200300\tx\n2\t0/400000\ty\n");
    for name in ["00000002.history", OF_TWO, "00000003.history"] {
        let run = sandbox.push(name, &[]);
        run.fails(12, &["wal_005/00000002.history\"", "different content", "HINT:"]);
    }
    let second = sandbox.make_archive("second");
    let run = sandbox.push("00000002.history", &["--archive", second.to_str().unwrap()]);
    run.fails(12, &["different content"]);
    assert!(!second.join("wal_005").exists());
    assert_eq!(sandbox.objects(), ["00000002.history".to_owned(), format!("{OF_TWO}.zst")]);
    // What another archive holds of it does not come here, either.
    let mut push = sandbox.program("wal-push");
    Run::of(push.arg("--archive").arg(&second).arg(sandbox.data().join("pg_wal/00000002.history")))
        .succeeds();
    let copy = || Run::of(sandbox.program("wal-archive").arg("copy").args([&second, &sandbox.archive()]));
    copy().says(1, &["00000002.history", "differs"]);
    assert_eq!(sandbox.objects().len(), 2);
    // Its own one is no conflict, whose bytes it may be in another encoding.
    fs::write(&by_hand, HISTORY).unwrap();
    assert_eq!(copy().code, Some(0));
    sandbox.push("00000002.history", &[]).succeeds();
}

#[test]
fn copy_brings_nothing_of_a_timeline_whose_history_conflicts_at_the_destination() {
    let sandbox = promoted();
    for name in ["00000002.history", ONE, OF_TWO] {
        sandbox.push(name, &[]).succeeds();
    }
    let partial = format!("{NEXT_OF_TWO}.partial");
    sandbox.wal(&partial, &segment(NEXT_OF_TWO, MIB, CLUSTER, 1));
    sandbox.push(&partial, &[]).succeeds();
    // The other site was promoted, too.
    let to = sandbox.make_archive("other-site");
    let theirs = sandbox.wal("00000002.history", OTHER);
    let mut push = sandbox.program("wal-push");
    Run::of(push.arg("--archive").arg(&to).arg(theirs)).succeeds();
    let copy = |args: &[&str]| {
        let mut command = sandbox.program("wal-archive");
        Run::of(command.arg("copy").args(args).arg(sandbox.archive()).arg(&to))
    };
    for args in [&[][..], &["--repair"]] {
        let words = ["conflict", "00000002.history", "nothing of timeline 2"];
        copy(args).says(1, &words).says(1, &["held back  2"]);
        assert_eq!(names(&to.join("wal_005")), objects(&[ONE, "00000002.history"]));
    }
    let json = copy(&["--json"]);
    assert!(json.code == Some(1) && json.stdout.contains("\"held_back\":2"), "{json:?}");
    // Which of both is right is not for a program to say.
    std::fs::remove_file(to.join("wal_005/00000002.history.zst")).unwrap();
    assert_eq!(copy(&[]).code, Some(0));
    assert_eq!(names(&to.join("wal_005")), sandbox.objects());
}
