//! wal-fetch with a real prefetcher: what is taken from the spool and what never is, and what
//! kind of process the prefetcher is.

use crate::prefetchers::prefetchers_of;
use crate::util::{CLUSTER, MIB, Run, Sandbox, flip, hang, names, peak, rounds, segment, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, SystemTime};
use wal_archive::config::{Environment, Layers};
use wal_archive::host::data_directory::DataDirectory;
use wal_archive::object::Sha256Sum;
use wal_archive::spool::{Prefetched, Purpose, Spool};
use wal_archive::wal::{SegmentName, SystemId};

fn name(number: usize) -> String {
    format!("0000000100000000{number:08X}")
}

fn content(number: usize, size: usize) -> Vec<u8> {
    segment(&name(number), size, CLUSTER, number as u64)
}

/// The sandbox's data directory recovers, with the test itself as its server; the archive holds
/// segments from 1 on.
fn recovering(segments: usize, size: usize) -> Sandbox {
    let sandbox = Sandbox::with_segments_of(size);
    for number in 1..=segments {
        sandbox.wal(&name(number), &content(number, size));
        sandbox.push(&name(number), &[]).succeeds();
        fs::remove_file(sandbox.data().join("pg_wal").join(name(number))).unwrap();
    }
    serve(&sandbox, std::process::id());
    fs::write(sandbox.data().join("recovery.signal"), "").unwrap();
    sandbox
}

fn serve(sandbox: &Sandbox, pid: u32) {
    fs::write(sandbox.data().join("postmaster.pid"), format!("{pid}\n/data\n1700000000\n5432\n")).unwrap();
}

fn spool(sandbox: &Sandbox) -> PathBuf {
    sandbox.path("data.wal-spool")
}

/// The folders of prefetched files.
fn folders(sandbox: &Sandbox) -> Vec<PathBuf> {
    let names = names(&spool(sandbox)).into_iter().filter(|name| name.starts_with("prefetch-"));
    names.map(|name| spool(sandbox).join(name)).collect()
}

fn sealed(sandbox: &Sandbox) -> Vec<String> {
    let all = folders(sandbox).into_iter().flat_map(|folder| names(&folder));
    all.filter_map(|name| name.strip_suffix(".seal").map(str::to_owned)).collect()
}

#[track_caller]
fn wait_sealed(sandbox: &Sandbox, numbers: impl Iterator<Item = usize>) {
    let wanted: Vec<String> = numbers.map(name).collect();
    wait_until(&format!("{wanted:?} sealed"), || sealed(sandbox) == wanted);
}

/// The prefetchers of this sandbox.
fn prefetchers(sandbox: &Sandbox) -> Vec<i32> {
    prefetchers_of(&sandbox.data())
}

#[track_caller]
fn wait_gone(sandbox: &Sandbox) {
    wait_until("no prefetcher", || prefetchers(sandbox).is_empty());
}

fn kill(pid: i32, signal: Signal) {
    // Gone already: as well.
    let _ = kill_process(Pid::from_raw(pid).unwrap(), signal);
}

/// The prefetcher as a child of the test, so that its exit code is seen.
fn child(sandbox: &Sandbox, args: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wal-fetch"));
    command.current_dir(sandbox.data()).env_clear().arg("--prefetcher").arg(sandbox.data());
    command.arg("--archive").arg(sandbox.archive()).args(args).args([&name(1), "pg_wal/RECOVERYXLOG"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn silent_end(child: Child) -> Option<i32> {
    let output = child.wait_with_output().unwrap();
    assert!(output.stdout.is_empty() && output.stderr.is_empty(), "{output:?}");
    output.status.code()
}

#[test]
fn the_next_segments_are_in_the_spool_before_they_are_asked_for() {
    let sandbox = recovering(12, MIB);
    sandbox.fetch(&name(1), &[]).succeeds();
    assert!(sandbox.fetched() == content(1, MIB));
    wait_sealed(&sandbox, 2..=9);
    fs::rename(sandbox.archive(), sandbox.path("away")).unwrap();
    for number in 2..=9 {
        sandbox.fetch(&name(number), &[]).succeeds();
        let path = sandbox.data().join("pg_wal/RECOVERYXLOG");
        assert_eq!(fs::metadata(path).unwrap().mode() & 0o7777, 0o600);
        assert!(sandbox.fetched() == content(number, MIB), "{number}");
    }
    // Taken is taken: PostgreSQL may ask again, and then the archive is asked.
    sandbox.fetch_now(&name(9), &[]).fails(220, &["root"]);
    sandbox.nothing_fetched();
    fs::rename(sandbox.path("away"), sandbox.archive()).unwrap();
    for number in [9, 10, 11, 12] {
        sandbox.fetch(&name(number), &[]).succeeds();
        assert!(sandbox.fetched() == content(number, MIB), "{number}");
    }
    assert_eq!(sandbox.fetch(&name(13), &[]).code, Some(1));
}

#[test]
fn the_window_moves_with_postgresql_and_what_it_leaves_behind_is_deleted() {
    let sandbox = recovering(12, MIB);
    let fetch = |number| {
        sandbox.fetch(&name(number), &["--prefetch", "3"]).succeeds();
        assert!(sandbox.fetched() == content(number, MIB));
    };
    fetch(1);
    wait_sealed(&sandbox, 2..=4);
    fetch(2);
    wait_sealed(&sandbox, 3..=5);
    fetch(8);
    wait_sealed(&sandbox, 9..=11);
    fetch(1);
    wait_sealed(&sandbox, 2..=4);
    assert_eq!(prefetchers(&sandbox).len(), 1);
}

#[test]
fn nothing_is_prefetched_where_it_could_do_harm() {
    let off = |what: &str, change: &dyn Fn(&Sandbox), args: &[&str]| {
        let sandbox = recovering(3, MIB);
        change(&sandbox);
        sandbox.fetch(&name(1), args).succeeds();
        thread::sleep(Duration::from_millis(100));
        assert!(folders(&sandbox).is_empty() && prefetchers(&sandbox).is_empty(), "{what}");
    };
    let data = |sandbox: &Sandbox, file: &str| sandbox.data().join(file);
    off("--prefetch 0", &|_| {}, &["--prefetch", "0"]);
    off("no signal file", &|sandbox| fs::remove_file(data(sandbox, "recovery.signal")).unwrap(), &[]);
    off("no server", &|sandbox| fs::remove_file(data(sandbox, "postmaster.pid")).unwrap(), &[]);
    off("no system id", &|sandbox| fs::remove_file(data(sandbox, "global/pg_control")).unwrap(), &[]);
    off(
        "no start",
        &|sandbox| fs::write(data(sandbox, "postmaster.pid"), format!("{}\n", std::process::id())).unwrap(),
        &[],
    );
    off("the server adopts orphans", &|sandbox| serve(sandbox, 1), &[]);
    off(
        "no spool",
        &|sandbox| {
            fs::remove_dir_all(spool(sandbox)).unwrap();
            fs::write(spool(sandbox), "").unwrap();
        },
        &[],
    );
    // pg_rewind asks for the file under its own name.
    let sandbox = recovering(3, MIB);
    let mut rewind = sandbox.program("wal-fetch");
    rewind.arg("--archive").arg(sandbox.archive()).arg(name(1)).arg(format!("pg_wal/{}", name(1)));
    Run::of(&mut rewind).succeeds();
    assert!(folders(&sandbox).is_empty() && prefetchers(&sandbox).is_empty());
}

#[test]
fn a_history_or_a_miss_starts_nothing() {
    let sandbox = recovering(1, MIB);
    sandbox.wal("00000002.history", b"1\t0/200000\tx\n");
    sandbox.push("00000002.history", &[]).succeeds();
    sandbox.fetch("00000002.history", &[]).succeeds();
    assert_eq!(sandbox.fetch(&name(2), &[]).code, Some(1));
    thread::sleep(Duration::from_millis(100));
    assert!(folders(&sandbox).is_empty() && prefetchers(&sandbox).is_empty());
}

#[test]
fn junk_in_the_spool_is_never_delivered() {
    let sandbox = recovering(4, MIB);
    sandbox.fetch(&name(1), &["--prefetch", "2"]).succeeds();
    wait_sealed(&sandbox, 2..=3);
    let folder = folders(&sandbox).remove(0);
    for pid in prefetchers(&sandbox) {
        kill(pid, Signal::TERM);
    }
    wait_gone(&sandbox);
    let seal = fs::read(folder.join(format!("{}.seal", name(2)))).unwrap();
    // The right name, with a changed byte, with a neighbour's content, with nothing; sealed or not.
    let (two, three) = (folder.join(name(2)), folder.join(name(3)));
    let fetch = |number| {
        sandbox.fetch(&name(number), &["--prefetch", "2"]).succeeds();
        assert!(sandbox.fetched() == content(number, MIB));
        for pid in prefetchers(&sandbox) {
            kill(pid, Signal::KILL);
        }
        wait_gone(&sandbox);
    };
    flip(&two, 5_000_000);
    fetch(2);
    for junk in [&b"junk\n"[..], b"", &content(3, MIB)] {
        fs::write(&two, junk).unwrap();
        fetch(2);
        fs::write(&two, junk).unwrap();
        fs::write(folder.join(format!("{}.seal", name(2))), &seal).unwrap();
        fetch(2);
    }
    let _ = fs::remove_file(&three);
    fs::write(&three, content(2, MIB)).unwrap();
    fetch(3);
}

/// The place of prefetched files, for a test that is the prefetcher itself.
fn place(sandbox: &Sandbox) -> (Spool, Prefetched) {
    let spool = Spool::open(spool(sandbox)).unwrap();
    let flags = [("archive", vec![sandbox.archive().display().to_string()])].into();
    let settings = Layers::read(flags, Environment::new()).unwrap().fetch().unwrap();
    let purpose = Purpose {
        addresses: vec![sandbox.archive().display().to_string()],
        terms: settings.terms(),
        system_id: SystemId(CLUSTER),
        server: &DataDirectory::at(&sandbox.data()).unwrap().server().unwrap(),
    };
    let prefetched = spool.prefetched(&purpose).unwrap();
    prefetched.create().unwrap();
    (spool, prefetched)
}

#[test]
fn a_segment_that_is_just_being_downloaded_is_waited_for() {
    let sandbox = recovering(1, MIB);
    let (spool, prefetched) = place(&sandbox);
    let _lock = spool.be_prefetcher().unwrap().unwrap();
    let two: SegmentName = name(2).parse().unwrap();
    let bytes = content(2, MIB);
    let mut options = OpenOptions::new();
    let mut part = options.write(true).create(true).mode(0o600).open(prefetched.part(two)).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            // For longer than a download may stand still, but never without growth for nearly so long.
            for piece in bytes.chunks(MIB / 64) {
                thread::sleep(Duration::from_millis(50));
                part.write_all(piece).unwrap();
            }
            fs::rename(prefetched.part(two), prefetched.path(two)).unwrap();
            thread::sleep(Duration::from_millis(100));
            prefetched.seal(two, Sha256Sum::of(&bytes), Vec::new(), SystemTime::now()).unwrap();
        });
        // The archive does not have it.
        sandbox.fetch(&name(2), &[]).succeeds();
    });
    assert!(sandbox.fetched() == bytes);
    assert_eq!(names(prefetched.folder()), ["position"]);
}

#[test]
fn a_download_that_hangs_is_not_waited_for_long() {
    let sandbox = recovering(3, MIB);
    let away = sandbox.path("object");
    fs::rename(sandbox.object(&name(2)), &away).unwrap();
    hang(&sandbox.object(&name(2)));
    sandbox.fetch(&name(1), &[]).succeeds();
    let part = || folders(&sandbox).iter().any(|folder| folder.join(format!("{}.part", name(2))).exists());
    wait_until("the download begins", part);
    // Whatever the object is by now, this one gets no further.
    let prefetcher = prefetchers(&sandbox)[0];
    kill(prefetcher, Signal::STOP);
    wait_until("it stands still", || states(prefetcher).iter().all(|state| state == "T"));
    fs::rename(&away, sandbox.object(&name(2))).unwrap();
    // Half of an hour is what a download that grows is waited for, and the test ends.
    sandbox.fetch(&name(2), &["--timeout", "1h"]).succeeds();
    assert!(sandbox.fetched() == content(2, MIB));
    kill(prefetcher, Signal::KILL);
}

/// What each thread of a process does, as `/proc` calls it.
fn states(pid: i32) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let states = tasks.map(|task| {
        let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').next()).unwrap_or_default().to_owned()
    });
    states.collect()
}

#[test]
fn what_a_fetch_would_have_warned_of_is_said_by_whoever_takes_the_file() {
    let sandbox = recovering(3, MIB);
    let second = sandbox.path("second");
    assert!(Command::new("cp").arg("-a").arg(sandbox.archive()).arg(&second).status().unwrap().success());
    flip(&sandbox.object(&name(2)), 80_000);
    let second = second.to_str().unwrap();
    sandbox.fetch(&name(1), &["--archive", second]).succeeds();
    wait_sealed(&sandbox, 2..=3);
    fs::rename(sandbox.archive(), sandbox.path("away")).unwrap();
    fs::rename(second, sandbox.path("away, too")).unwrap();
    let run = sandbox.fetch(&name(2), &["--archive", second]);
    run.fails(0, &["warning", "damaged", "archive/wal_005/000000010000000000000002.zst"]);
    assert!(sandbox.fetched() == content(2, MIB));
    sandbox.fetch(&name(3), &["--archive", second]).succeeds();
}

#[test]
fn a_spool_on_another_file_system_serves_as_well() {
    let other = Path::new("/dev/shm");
    let sandbox = recovering(4, MIB);
    let device = |path: &Path| fs::metadata(path).map(|metadata| metadata.dev()).ok();
    if !other.is_dir() || device(other) == device(&sandbox.data()) {
        eprintln!("SKIPPED: /dev/shm is no other file system");
        return;
    }
    let base = tempfile::tempdir_in(other).unwrap();
    let shared = base.path().join("spool");
    let spool = shared.join(CLUSTER.to_string());
    let args = ["--spool-dir", shared.to_str().unwrap()];
    sandbox.fetch(&name(1), &args).succeeds();
    sandbox.fetched();
    let all_sealed = || {
        let found = names(&spool).into_iter().find(|name| name.starts_with("prefetch-"));
        found.is_some_and(|folder| {
            names(&spool.join(folder)).iter().filter(|n| n.ends_with(".seal")).count() == 3
        })
    };
    wait_until("all sealed", all_sealed);
    fs::rename(sandbox.archive(), sandbox.path("away")).unwrap();
    for number in 2..=4 {
        sandbox.fetch(&name(number), &args).succeeds();
        let path = sandbox.data().join("pg_wal/RECOVERYXLOG");
        assert_eq!(fs::metadata(path).unwrap().mode() & 0o7777, 0o600);
        assert!(sandbox.fetched() == content(number, MIB));
    }
    assert_eq!(names(&sandbox.data().join("pg_wal")), ["archive_status"], "nothing is left beside the path");
}

#[test]
fn the_prefetcher_is_nothing_to_the_server() {
    let sandbox = recovering(3, MIB);
    // With descriptors of the server's, as before PostgreSQL 16.
    let inherited = sandbox.path("inherited");
    let shell = "exec 7>\"$1\" 8<&7; shift; exec \"$0\" \"$@\"";
    let mut command = Command::new("sh");
    command.current_dir(sandbox.data()).args(["-c", shell, env!("CARGO_BIN_EXE_wal-fetch")]).arg(&inherited);
    command.arg("--archive").arg(sandbox.archive()).args([&name(1), "pg_wal/RECOVERYXLOG"]);
    Run::of(&mut command).succeeds();
    wait_sealed(&sandbox, 2..=3);
    let pid = prefetchers(&sandbox)[0];
    let open = || -> Vec<PathBuf> {
        let all = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
        let all = all.filter_map(|entry| fs::read_link(entry.path()).ok());
        all.filter(|path| path != Path::new("/dev/null") && !path.starts_with(sandbox.archive())).collect()
    };
    assert!(open().iter().all(|path| path.starts_with(spool(&sandbox))), "{:?}", open());
    wait_until("only its lock is open", || open() == [spool(&sandbox).join("prefetch.lock")]);
    assert_eq!(fs::read_link(format!("/proc/{pid}/cwd")).unwrap(), spool(&sandbox));
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<i64> =
        stat.rsplit_once(") ").unwrap().1.split(' ').skip(1).filter_map(|field| field.parse().ok()).collect();
    let [_parent, group, session, terminal] = fields[..4] else { panic!("{stat}") };
    assert_eq!((group, session, terminal), (pid.into(), pid.into(), 0), "{stat}");
    let own: i64 = 0;
    assert!(fields[15] > own, "nice: {stat}");
}

#[test]
fn the_prefetcher_ends_with_its_server() {
    type End<'a> = (&'a str, &'a dyn Fn(&Sandbox));
    let ends: [End<'_>; 4] = [
        ("stopped", &|sandbox| fs::remove_file(sandbox.data().join("postmaster.pid")).unwrap()),
        ("promoted", &|sandbox| fs::remove_file(sandbox.data().join("recovery.signal")).unwrap()),
        ("started again", &|sandbox| {
            let text = format!("{}\n/data\n1700000001\n", std::process::id());
            fs::write(sandbox.data().join("postmaster.pid"), text).unwrap();
        }),
        ("removed", &|sandbox| fs::remove_dir_all(sandbox.data()).unwrap()),
    ];
    for (what, end) in ends {
        let sandbox = recovering(3, MIB);
        sandbox.fetch(&name(1), &[]).succeeds();
        wait_sealed(&sandbox, 2..=3);
        assert_eq!(prefetchers(&sandbox).len(), 1, "{what}");
        end(&sandbox);
        wait_gone(&sandbox);
        assert!(folders(&sandbox).is_empty(), "{what}: what it brought is worth nothing any more");
    }
    // A killed server leaves its pid file.
    let sandbox = recovering(3, MIB);
    let mut server = Command::new("sleep").arg("1000").spawn().unwrap();
    serve(&sandbox, server.id());
    sandbox.fetch(&name(1), &[]).succeeds();
    wait_sealed(&sandbox, 2..=3);
    server.kill().unwrap();
    server.wait().unwrap();
    wait_gone(&sandbox);
}

#[test]
fn a_prefetcher_ends_when_its_spool_was_deleted() {
    let sandbox = recovering(10, MIB);
    sandbox.fetch(&name(1), &[]).succeeds();
    wait_sealed(&sandbox, 2..=9);
    let [first] = prefetchers(&sandbox)[..] else { panic!("one prefetcher") };
    fs::remove_dir_all(spool(&sandbox)).unwrap();
    sandbox.fetch(&name(1), &[]).succeeds();
    wait_until("the end of the first", || !prefetchers(&sandbox).contains(&first));
    wait_until("another one", || !prefetchers(&sandbox).is_empty());
}

#[test]
fn one_prefetcher_serves_a_whole_recovery_however_long_nobody_asks() {
    let sandbox = recovering(4, MIB);
    sandbox.fetch(&name(1), &["--prefetch", "2"]).succeeds();
    wait_sealed(&sandbox, 2..=3);
    let first = prefetchers(&sandbox);
    assert_eq!(first.len(), 1);
    thread::sleep(Duration::from_secs(7)); // longer than it looks for progress often
    sandbox.fetch(&name(2), &["--prefetch", "2"]).succeeds();
    wait_sealed(&sandbox, 3..=4);
    assert_eq!(prefetchers(&sandbox), first);
}

#[test]
fn a_prefetcher_makes_room_for_one_with_other_destinations() {
    let sandbox = recovering(3, MIB);
    sandbox.fetch(&name(1), &[]).succeeds();
    wait_sealed(&sandbox, 2..=3);
    let first = prefetchers(&sandbox)[0];
    let two = sandbox.path("two");
    fs::create_dir(&two).unwrap();
    let other = ["--archive", two.to_str().unwrap()];
    assert_eq!(sandbox.fetch(&name(1), &other).code, Some(0));
    wait_until("the end of the first", || !prefetchers(&sandbox).contains(&first));
    assert_eq!(sandbox.fetch(&name(1), &other).code, Some(0));
    wait_until("the next one", || prefetchers(&sandbox).len() == 1);
}

#[test]
fn the_prefetcher_ends_with_0_or_1_whatever_happens_and_says_nothing() {
    let sandbox = recovering(3, MIB);
    for signal in [Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT, Signal::USR1] {
        let child = child(&sandbox, &[]);
        let pid = i32::try_from(child.id()).unwrap();
        let cwd = format!("/proc/{pid}/cwd");
        wait_until("it works", || fs::read_link(&cwd).is_ok_and(|cwd| cwd == spool(&sandbox)));
        kill(pid, signal);
        assert_eq!(silent_end(child), Some(0), "{signal:?}");
    }
    for wrong in [
        &["--no-such"][..],
        &["--timeout", "x"],
        &["--config", "/no/such"],
        &["--spool-dir", "/no/such/spool"],
    ] {
        let code = silent_end(child(&sandbox, wrong));
        assert_eq!(code, Some(1), "{wrong:?}");
    }
    // A second one has nothing to do. The first thing that one with the lock does is to tidy up.
    let old = spool(&sandbox).join("prefetch-0123456789abcdef");
    fs::create_dir(&old).unwrap();
    let mut first = child(&sandbox, &[]);
    wait_until("it has the lock", || !old.exists());
    assert!(silent_end(child(&sandbox, &[])).is_some_and(|code| code < 2));
    assert!(first.try_wait().unwrap().is_none());
    fs::remove_file(sandbox.data().join("postmaster.pid")).unwrap();
    assert_eq!(silent_end(first), Some(0));
    assert_eq!(silent_end(child(&sandbox, &[])), Some(1), "no server");
}

#[test]
fn old_folders_and_leftovers_are_deleted_by_the_next_prefetcher() {
    let sandbox = recovering(4, MIB);
    let old = spool(&sandbox).join("prefetch-0123456789abcdef");
    fs::create_dir(&old).unwrap();
    fs::write(old.join(name(2)), content(2, MIB)).unwrap();
    sandbox.fetch(&name(1), &["--prefetch", "2"]).succeeds();
    wait_sealed(&sandbox, 2..=3);
    assert!(!old.exists());
    kill(prefetchers(&sandbox)[0], Signal::KILL);
    wait_gone(&sandbox);
    let folder = folders(&sandbox).remove(0);
    fs::write(folder.join(format!("{}.part", name(3))), "half").unwrap();
    fs::write(folder.join(".wal-archive.x.tmp"), "half").unwrap();
    fs::write(folder.join(name(9)), "junk").unwrap();
    fs::write(folder.join(name(4)), "renamed and not sealed").unwrap();
    sandbox.fetch(&name(2), &["--prefetch", "2"]).succeeds();
    wait_sealed(&sandbox, 3..=4);
    let mut expected: Vec<String> =
        [3, 4].into_iter().flat_map(|n| [name(n), format!("{}.seal", name(n))]).collect();
    expected.push("position".to_owned());
    assert_eq!(names(&folder), expected);
}

#[test]
fn a_prefetcher_killed_at_any_moment_harms_nothing() {
    let count = rounds("WAL_ARCHIVE_KILLS", 10);
    let sandbox = recovering(20, MIB);
    let mut killed = 0;
    for round in 0..count {
        for number in 1..=20 {
            sandbox.fetch(&name(number), &[]).succeeds();
            assert!(sandbox.fetched() == content(number, MIB), "round {round}, {number}");
            // At moments that differ from round to round.
            if (number + round) % 3 == 0 {
                thread::sleep(Duration::from_micros(((round * 7919 + number * 104_729) % 30_000) as u64));
                for pid in prefetchers(&sandbox) {
                    kill(pid, Signal::KILL);
                    killed += 1;
                }
            }
        }
    }
    println!("{killed} prefetchers killed");
    assert!(killed > count);
}

#[test]
fn the_prefetcher_needs_little_memory() {
    for (mebibytes, segments) in [(16, 9), (64, 5)] {
        let sandbox = recovering(segments, mebibytes * MIB);
        sandbox.fetch(&name(1), &["--prefetch", "1"]).succeeds();
        wait_until("it began", || !sealed(&sandbox).is_empty());
        kill(prefetchers(&sandbox)[0], Signal::KILL);
        wait_gone(&sandbox);
        let mut command = Command::new(env!("CARGO_BIN_EXE_wal-fetch"));
        command.current_dir(sandbox.data()).env_clear().arg("--prefetcher").arg(sandbox.data());
        command.arg("--archive").arg(sandbox.archive()).args([&name(1), "pg_wal/RECOVERYXLOG"]);
        let peak = thread::scope(|scope| {
            let peak = scope.spawn(|| peak(&mut command));
            wait_until("all brought", || sealed(&sandbox).len() == segments - 1);
            fs::remove_file(sandbox.data().join("recovery.signal")).unwrap(); // promoted: it ends
            peak.join().unwrap()
        });
        println!("{mebibytes} MiB: prefetcher {peak} KiB");
        assert!(peak < 64 << 10, "{mebibytes} MiB: {peak} KiB");
    }
}
