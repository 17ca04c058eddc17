//! A push that looks ahead: what it stores, what its marks are believed for, and what never counts.

use crate::util::{CLUSTER, MIB, Run, Sandbox, flip, hang, names, noise, segment, wait_until};
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

fn name(number: u32) -> String {
    format!("0000000100000000{number:08X}")
}

/// Segments `1..=count` in pg_wal, all of them waiting to be archived, and finished a while ago.
fn backlog(count: u32) -> Sandbox {
    let sandbox = Sandbox::new();
    for number in 1..=count {
        waiting(&sandbox, &name(number));
    }
    settle();
    sandbox
}

fn waiting(sandbox: &Sandbox, name: &str) {
    sandbox.wal(name, &segment(&name[..24], MIB, CLUSTER, 7));
    ready(sandbox, name);
}

fn ready(sandbox: &Sandbox, name: &str) {
    fs::write(sandbox.data().join("pg_wal/archive_status").join(format!("{name}.ready")), "").unwrap();
}

/// A file that changed in this very moment is left to its own call.
fn settle() {
    std::thread::sleep(Duration::from_millis(50));
}

fn objects(numbers: impl IntoIterator<Item = u32>) -> Vec<String> {
    numbers.into_iter().map(|number| format!("{}.zst", name(number))).collect()
}

fn marks(sandbox: &Sandbox) -> Vec<PathBuf> {
    let folder = sandbox.path("data.wal-spool/marks");
    names(&folder).into_iter().map(|name| folder.join(name)).collect()
}

/// Takes the object away: whoever pushes makes it anew.
fn lose(sandbox: &Sandbox, number: u32) {
    fs::remove_file(sandbox.object(&name(number))).unwrap();
}

#[test]
fn one_call_stores_what_waits_and_the_next_calls_only_use_up_its_marks() {
    let sandbox = backlog(5);
    sandbox.push(&name(1), &[]).succeeds();
    assert_eq!(sandbox.objects(), objects(1..=5));
    assert_eq!(marks(&sandbox).len(), 4);
    // A call that read the file itself would fail now.
    let control = sandbox.data().join("global/pg_control");
    let content = fs::read(&control).unwrap();
    fs::write(&control, "cut").unwrap();
    (2..=5).for_each(|number| sandbox.push(&name(number), &[]).succeeds());
    assert!(marks(&sandbox).is_empty());
    sandbox.push(&name(3), &[]).fails(10, &["pg_control"]);
    fs::write(&control, content).unwrap();
    (2..=5).for_each(|number| {
        sandbox.fetch(&name(number), &[]).succeeds();
        assert!(sandbox.fetched() == segment(&name(number), MIB, CLUSTER, 7));
    });
    let status = names(&sandbox.data().join("pg_wal/archive_status"));
    assert_eq!(status, (1..=5).map(|number| format!("{}.ready", name(number))).collect::<Vec<_>>());
}

#[test]
fn the_window_is_filled_in_the_order_of_the_archiver_and_not_beyond() {
    let sandbox = backlog(7);
    fs::write(sandbox.data().join("pg_wal/00000002.history"), "1\t0/2000000\tx\n").unwrap();
    ready(&sandbox, "00000002.history");
    waiting(&sandbox, "000000020000000000000001");
    settle();
    sandbox.push(&name(1), &["--look-ahead", "2"]).succeeds();
    assert_eq!(sandbox.objects(), objects(1..=3));
    // The next window begins behind what has a mark, and ends where the next segment does not wait.
    fs::remove_file(sandbox.data().join("pg_wal/archive_status").join(format!("{}.ready", name(6)))).unwrap();
    lose(&sandbox, 1);
    sandbox.push(&name(1), &["--look-ahead", "9"]).succeeds();
    assert_eq!(sandbox.objects(), objects(1..=5));
    // Another timeline is begun by its own files.
    sandbox.push("00000002.history", &[]).succeeds();
    assert!(!sandbox.object("000000020000000000000001").exists());
}

/// PostgreSQL would not ask for the later ones before the first of them is archived.
#[test]
fn nothing_is_looked_ahead_behind_a_file_that_is_refused_or_was_there_already() {
    let sandbox = backlog(3);
    let own = |number| segment(&name(number), MIB, CLUSTER, 7);
    sandbox.wal(&name(1), &segment(&name(1), MIB, CLUSTER, 8));
    sandbox.push(&name(1), &["--look-ahead", "0"]).succeeds();
    sandbox.wal(&name(1), &own(1));
    settle();
    sandbox.push(&name(1), &[]).fails(12, &["different content"]);
    assert_eq!(sandbox.objects(), objects([1]));
    sandbox.wal(&name(1), &segment(&name(1), MIB, CLUSTER, 8));
    settle();
    sandbox.push(&name(1), &[]).succeeds();
    assert_eq!(sandbox.objects(), objects([1]));
    sandbox.push(&name(2), &[]).succeeds();
    assert_eq!(sandbox.objects(), objects(1..=3));
}

#[test]
fn nothing_is_looked_ahead_where_it_is_switched_off_or_postgresql_does_not_wait() {
    for args in [["--look-ahead", "0"], ["--jobs", "1"], ["--spool-dir", "/proc/none"]] {
        let sandbox = backlog(3);
        sandbox.push(&name(1), &args).succeeds();
        assert_eq!(sandbox.objects(), objects([1]), "{args:?}");
    }
    let sandbox = backlog(3);
    fs::remove_file(sandbox.data().join("pg_wal/archive_status").join(format!("{}.ready", name(1)))).unwrap();
    sandbox.push(&name(1), &[]).succeeds();
    assert_eq!(sandbox.objects(), objects([1]), "an administrator pushes one file");
}

#[test]
fn a_file_that_cannot_be_stored_is_left_to_its_own_call_and_holds_nothing_up() {
    let sandbox = backlog(5);
    sandbox.wal(&name(2), b"a stump");
    fs::remove_file(sandbox.data().join("pg_wal").join(name(3))).unwrap();
    let other = segment(&name(4), MIB, CLUSTER, 8);
    sandbox.wal(&name(4), &other);
    sandbox.push(&name(4), &["--look-ahead", "0"]).succeeds();
    sandbox.wal(&name(4), &segment(&name(4), MIB, CLUSTER, 7));
    settle();
    sandbox.push(&name(1), &[]).succeeds();
    assert_eq!(sandbox.objects(), objects([1, 4, 5]));
    assert_eq!(marks(&sandbox).len(), 1);
    sandbox.push(&name(2), &[]).fails(11, &[&name(2), "has only 7 bytes"]);
    sandbox.push(&name(3), &[]).fails(10, &[&name(3)]);
    sandbox.push(&name(4), &[]).fails(12, &["different content", &name(4)]);
}

#[test]
fn the_failure_of_the_file_asked_for_is_reported_though_others_could_be_stored() {
    let sandbox = backlog(3);
    sandbox.wal(&name(1), b"a stump");
    sandbox.push(&name(1), &[]).fails(11, &[&name(1)]);
}

#[test]
fn a_mark_is_not_believed_for_a_changed_file_or_other_destinations() {
    let sandbox = backlog(4);
    sandbox.push(&name(1), &[]).succeeds();
    assert_eq!(sandbox.objects(), objects(1..=4));
    lose(&sandbox, 2);
    sandbox.wal(&name(2), &segment(&name(2), MIB, CLUSTER, 9));
    sandbox.push(&name(2), &["--look-ahead", "0"]).succeeds();
    sandbox.fetch(&name(2), &[]).succeeds();
    assert!(sandbox.fetched() == segment(&name(2), MIB, CLUSTER, 9));
    let second = sandbox.make_archive("second");
    sandbox.push(&name(3), &["--archive", second.to_str().unwrap(), "--look-ahead", "0"]).succeeds();
    assert!(second.join("wal_005").join(format!("{}.zst", name(3))).exists());
}

#[test]
fn a_mark_whose_object_was_removed_or_damaged_or_moved_aside_is_not_believed() {
    let sandbox = backlog(4);
    sandbox.push(&name(1), &[]).succeeds();
    assert_eq!(marks(&sandbox).len(), 3);
    lose(&sandbox, 2);
    let object = sandbox.object(&name(3));
    flip(&object, (fs::metadata(&object).unwrap().len() as usize - 300) * 8);
    let run = sandbox.admin("quarantine", &[&name(3)]);
    assert!(run.code == Some(0) && !object.exists(), "{run:?}");
    let object = sandbox.object(&name(4));
    flip(&object, (fs::metadata(&object).unwrap().len() as usize - 300) * 8);
    sandbox.push(&name(4), &["--look-ahead", "0"]).fails(12, &["damaged"]);
    for number in [2, 3] {
        sandbox.push(&name(number), &["--look-ahead", "0"]).succeeds();
        sandbox.fetch(&name(number), &[]).succeeds();
        assert!(sandbox.fetched() == segment(&name(number), MIB, CLUSTER, 7));
    }
}

#[test]
fn a_mark_is_not_believed_where_another_directory_took_the_place_of_the_archive() {
    let sandbox = backlog(4);
    let second = sandbox.make_archive("second");
    let both = ["--archive", second.to_str().unwrap(), "--look-ahead", "0"];
    sandbox.push(&name(1), &both).succeeds();
    sandbox.push(&name(2), &both[..2]).succeeds();
    assert_eq!(marks(&sandbox).len(), 2);
    // What an unmounted disk looks like: the bare mount point.
    fs::rename(&second, sandbox.path("disk")).unwrap();
    fs::create_dir(&second).unwrap();
    sandbox.push(&name(3), &both).fails(13, &["second"]);
    assert!(names(&second).is_empty());
    // An older copy of the archive, which lacks the object.
    fs::remove_dir(&second).unwrap();
    assert!(
        Command::new("cp").arg("-a").args([sandbox.path("disk"), second.clone()]).status().unwrap().success()
    );
    fs::remove_file(second.join("wal_005").join(format!("{}.zst", name(4)))).unwrap();
    sandbox.push(&name(4), &both).succeeds();
    assert!(second.join("wal_005").join(format!("{}.zst", name(4))).exists());
}

#[test]
fn a_mark_without_all_destinations_is_never_left() {
    let sandbox = backlog(3);
    let second = sandbox.make_archive("second");
    fs::create_dir(second.join("wal_005")).unwrap();
    let both = ["--archive", second.to_str().unwrap()];
    // One of the looked-ahead files cannot be stored in the second destination.
    fs::write(second.join("wal_005").join(format!("{}.zst", name(2))), "damaged").unwrap();
    sandbox.push(&name(1), &both).succeeds();
    assert!(sandbox.object(&name(2)).exists());
    let marked = marks(&sandbox);
    assert!(marked.iter().all(|mark| !mark.to_str().unwrap().contains(&name(2))), "{marked:?}");
    sandbox.push(&name(2), &both).fails(12, &["damaged", "second"]);
}

#[test]
fn a_cloned_data_directory_with_its_spool_skips_no_push() {
    let sandbox = backlog(4);
    sandbox.push(&name(1), &[]).succeeds();
    assert_eq!(marks(&sandbox).len(), 3);
    for pair in [["data", "clone"], ["data.wal-spool", "clone.wal-spool"]] {
        let [from, to] = pair.map(|name| sandbox.path(name));
        assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
    }
    (2..=4).for_each(|number| lose(&sandbox, number));
    for number in 2..=4 {
        let mut push = sandbox.program("wal-push");
        push.current_dir(sandbox.path("clone")).arg("--archive").arg(sandbox.archive());
        Run::of(push.args(["--look-ahead", "0"]).arg(format!("pg_wal/{}", name(number)))).succeeds();
        assert!(sandbox.object(&name(number)).exists(), "the push of {number} was skipped");
    }
}

#[test]
fn two_clusters_that_share_a_spool_keep_their_marks_apart() {
    let sandbox = backlog(3);
    let (data, archive) = (sandbox.make_data_directory("other", 77), sandbox.path("others"));
    fs::create_dir(&archive).unwrap();
    let mut init = sandbox.program("wal-archive");
    init.args(["init", "--system-id", "77", "--segment-size", "1MB"]).arg(&archive);
    assert_eq!(Run::of(&mut init).code, Some(0));
    for number in 1..=3 {
        let content = segment(&name(number), MIB, 77, 5);
        fs::write(data.join("pg_wal").join(name(number)), content).unwrap();
        fs::write(data.join("pg_wal/archive_status").join(format!("{}.ready", name(number))), "").unwrap();
    }
    settle();
    let spool = sandbox.path("shared");
    let spool = ["--spool-dir", spool.to_str().unwrap()];
    sandbox.push(&name(1), &spool).succeeds();
    for number in 1..=3 {
        let mut push = sandbox.program("wal-push");
        push.current_dir(&data).args(spool).arg("--archive").arg(&archive);
        Run::of(push.arg(format!("pg_wal/{}", name(number)))).succeeds();
        assert!(archive.join("wal_005").join(format!("{}.zst", name(number))).exists());
    }
    // The first cluster's marks are still there, and good.
    let left = || names(&sandbox.path("shared").join(CLUSTER.to_string()).join("marks")).len();
    assert_eq!(left(), 2);
    sandbox.push(&name(2), &spool).succeeds();
    assert_eq!(left(), 1);
}

#[test]
fn what_hangs_beyond_the_file_asked_for_is_dropped_in_the_end() {
    let sandbox = backlog(2);
    fs::create_dir(sandbox.archive().join("wal_005")).unwrap();
    hang(&sandbox.object(&name(2)));
    // It hangs for ever, and the call ends.
    sandbox.push(&name(1), &["--timeout", "5s"]).succeeds();
    assert!(marks(&sandbox).is_empty());
}

#[test]
fn files_that_hang_while_they_are_stored_do_not_keep_others_from_being_compressed_and_stored() {
    let sandbox = backlog(40);
    fs::create_dir(sandbox.archive().join("wal_005")).unwrap();
    (2..=5).for_each(|number| hang(&sandbox.object(&name(number))));
    // A busy machine may leave some of them to the next call, of a file that nobody has stored yet.
    let mut calls = [1].into_iter().chain((30..=40).rev());
    let mut start = || {
        let mut push = sandbox.program("wal-push");
        push.arg("--archive").arg(sandbox.archive()).args(["--jobs", "2"]);
        push.arg(format!("pg_wal/{}", name(calls.next().expect("a file that waits")))).spawn().unwrap()
    };
    let mut push = start();
    let stored =
        |number: u32| marks(&sandbox).iter().any(|mark| mark.to_string_lossy().contains(&name(number)));
    wait_until("the others stored", || {
        if push.try_wait().unwrap().is_some() {
            push = start();
        }
        (6..=8).all(stored)
    });
    let _ = push.kill(); // it may have ended
    push.wait().unwrap();
    assert!(!(2..=5).any(stored), "{:?}", marks(&sandbox));
}

#[test]
fn memory_stays_bounded_however_little_the_files_compress() {
    let sandbox = Sandbox::with_segments_of(16 * MIB);
    for number in 1..=33 {
        let mut content = noise(u64::from(number), 16 * MIB);
        content[..40].copy_from_slice(&segment(&name(number), 16 * MIB, CLUSTER, 1)[..40]);
        sandbox.wal(&name(number), &content);
        ready(&sandbox, &name(number));
    }
    settle();
    let peak = crate::util::peak(
        sandbox
            .program("wal-push")
            .arg("--archive")
            .arg(sandbox.archive())
            .arg(format!("pg_wal/{}", name(1))),
    );
    println!("33 segments of 16 MiB that do not compress: {peak} KiB");
    // A slow machine leaves the last ones to the next call; these alone are more than the bound.
    assert!(sandbox.objects().len() > 12, "{:?}", sandbox.objects());
    assert!(peak < 96 << 10, "{peak} KiB");
}
