//! Recovery from prefetched segments, and everything that can happen to who prefetches them.

use crate::archive::Archive;
use crate::prefetchers::prefetchers_of;
use crate::recorded::Recorded;
use crate::server::{Server, lines_of};
use crate::timelines::{diverged, rejoin, remove_archived_segments, rewind};
use crate::world::{PATIENCE, World, run, wait_for};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// A count that a long campaign sets and that is short in CI.
fn rounds(variable: &str, short: usize) -> usize {
    std::env::var(variable).map_or(short, |text| text.parse().expect("a number"))
}

fn spool(server: &Server) -> PathBuf {
    server.data().with_extension("wal-spool")
}

fn files(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().into_string().unwrap()).collect()
}

/// The folders of prefetched segments.
fn folders(server: &Server) -> Vec<String> {
    files(&spool(server)).into_iter().filter(|name| name.starts_with("prefetch-")).collect()
}

/// Everything prefetched and sealed.
fn sealed(server: &Server) -> Vec<String> {
    let all = folders(server).into_iter().flat_map(|folder| files(&spool(server).join(folder)));
    all.filter_map(|name| name.strip_suffix(".seal").map(str::to_owned)).collect()
}

/// The prefetchers of this server.
fn prefetchers(server: &Server) -> Vec<i32> {
    prefetchers_of(&server.data())
}

fn kill_prefetchers(server: &Server) -> usize {
    let all = prefetchers(server);
    all.iter().filter(|pid| kill_process(Pid::from_raw(**pid).unwrap(), Signal::KILL).is_ok()).count()
}

#[track_caller]
fn assert_ends(server: &Server, what: &str) {
    let ended = wait_for(|| prefetchers(server).is_empty().then_some(()));
    assert!(ended.is_some(), "{what}: the prefetcher goes on");
}

#[test]
fn recovery_goes_on_from_the_spool_while_the_archive_is_gone() {
    let Some(world) = World::open() else { return };
    let archive = Archive::new(&world, "archive");
    let recorded = Recorded::new(&world, &archive, 12);
    let mut server = recorded.recovery(&world, "server", "");
    let (away, back) = archive.outage();
    let body = format!(
        "case $1 in
         {third}) {fetch} $1 $2; answer=$?
            for name in {ahead}; do
              for i in $(seq 1200); do [ -e {spool}/prefetch-*/$name.seal ] && break; sleep 0.1; done
            done
            {away}; exit $answer;;
         {ninth}) {back};;
         esac
         exec {fetch} $1 $2",
        third = recorded.segment(3),
        ahead = recorded.segments[3..8].join(" "),
        ninth = recorded.segment(9),
        fetch = archive.fetch(""),
        spool = spool(&server).display(),
    );
    server.set("restore_command", format!("{} %f %p", world.script("restore", &body).display()));
    server.launch();
    server.wait_promoted();
    assert_eq!(server.ledger(), lines_of(1..=12));
    let log = server.run_log();
    for batch in 4..=8 {
        let restored = format!("restored log file \"{}\" from archive", recorded.segment(batch));
        assert!(log.contains(&restored), "{}", server.story());
    }
    assert!(!log.contains("wal-fetch:"), "{}", server.story());
    assert_ends(&server, "promoted");
    assert!(folders(&server).is_empty());
}

#[test]
fn a_standbys_prefetcher_has_nothing_of_the_servers_and_ends_with_it() {
    let Some(world) = World::open() else { return };
    let archive = Archive::new(&world, "archive");
    let (mut primary, recorded) = Recorded::with_primary(&world, &archive, 3);
    let mut standby = recorded.standby(&world, "standby", &archive.fetch_command());
    standby.start();
    standby.wait_ledger(1..=3);
    for round in 0..2 {
        primary.write(4 + round);
        primary.archive_segment();
        standby.wait_ledger(1..=4 + round);
        // The segment was no hit, and started one that finds no next one and stays for a while.
        let pid = wait_for(|| prefetchers(&standby).first().copied()).expect("a prefetcher");
        let own = |path: &PathBuf| {
            path == Path::new("/dev/null")
                || path.starts_with(spool(&standby))
                || path.starts_with(archive.root())
        };
        let opened = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
        let opened: Vec<PathBuf> = opened.filter_map(|entry| fs::read_link(entry.path()).ok()).collect();
        assert!(opened.iter().all(own) && opened.len() >= 3, "{opened:?}");
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let session = stat.rsplit_once(") ").unwrap().1.split(' ').nth(3).unwrap();
        assert_eq!(session, pid.to_string(), "{stat}");
        match round {
            0 => {
                standby.stop();
                assert_ends(&standby, "stopped");
                standby.start();
            }
            _ => {
                standby.psql("select pg_promote()");
                standby.wait_promoted();
                assert_ends(&standby, "promoted");
            }
        }
    }
    assert!(!standby.run_log().contains("wal-fetch:"), "{}", standby.story());
}

#[test]
fn a_prefetcher_killed_at_any_moment_costs_no_row() {
    let Some(world) = World::open() else { return };
    let archive = Archive::new(&world, "archive");
    let recorded = Recorded::new(&world, &archive, 20);
    let wanted = rounds("WAL_ARCHIVE_KILLS", 8);
    let (mut killed, mut recoveries) = (0, 0);
    while killed < wanted {
        let mut server = recorded.recovery(&world, &format!("server{recoveries}"), &archive.fetch_command());
        server.launch();
        let start = Instant::now();
        while server.data().join("recovery.signal").exists() {
            assert!(server.is_running() && start.elapsed() < PATIENCE, "{}", server.story());
            let count = kill_prefetchers(&server);
            killed += count;
            // Moments that differ from kill to kill.
            thread::sleep(Duration::from_micros(((killed * 7919 + recoveries * 104_729) % 40_000) as u64));
        }
        server.wait_promoted();
        assert_eq!(server.ledger(), lines_of(1..=20), "{}", server.story());
        assert!(!server.run_log().contains("wal-fetch:"), "{}", server.story());
        server.destroy();
        recoveries += 1;
    }
    println!("{killed} prefetchers killed in {recoveries} recoveries");
}

#[test]
fn a_standby_killed_at_any_moment_loses_no_row() {
    let Some(world) = World::open() else { return };
    let archive = Archive::new(&world, "archive");
    let (mut primary, recorded) = Recorded::with_primary(&world, &archive, 8);
    let mut standby = recorded.standby(&world, "standby", &archive.fetch_command());
    standby.launch();
    let count = rounds("WAL_ARCHIVE_STANDBY_KILLS", 4) as u32;
    for round in 0..count {
        primary.write(9 + round);
        primary.archive_segment();
        thread::sleep(Duration::from_millis((u64::from(round) * 379) % 1500));
        assert!(standby.is_running(), "{}", standby.story());
        standby.kill();
        standby.start_after_crash();
    }
    standby.wait_ledger(1..=8 + count);
    assert!(!standby.run_log().contains("wal-fetch: error"), "{}", standby.story());
    println!("{count} kills");
}

#[test]
fn a_second_rehearsal_at_the_same_path_shares_nothing_with_the_first() {
    let Some(world) = World::open() else { return };
    let archive = Archive::new(&world, "archive");
    let recorded = Recorded::new(&world, &archive, 12);
    // The first one stops in the middle, with segments in its spool.
    let held = format!("[ $1 = {} ] && sleep 1000; exec {} $1 $2", recorded.segment(4), archive.fetch(""));
    let command = format!("{} %f %p", world.script("held", &held).display());
    let mut first = recorded.recovery(&world, "copy", &command);
    first.launch();
    first.wait_until("has prefetched", |server| sealed(server).len() >= 8);
    assert_eq!(kill_prefetchers(&first), 1);
    let left = folders(&first);
    assert_eq!(left.len(), 1);
    first.destroy();

    let junk = format!(
        "for file in {}/{}/0*[0-9A-F]; do echo junk > $file; done",
        world.path("copy.wal-spool").display(),
        left[0]
    );
    run(world.command("sh").args(["-c", &junk]));
    fs::remove_dir_all(world.path("copy.run")).unwrap();
    let mut second = recorded.recovery(&world, "copy", &archive.fetch_command());
    second.launch();
    second.wait_promoted();
    assert_eq!(second.ledger(), lines_of(1..=12));
    assert!(!second.run_log().contains("wal-fetch:"), "{}", second.story());
    assert!(!folders(&second).contains(&left[0]), "what the first left is deleted");
}

#[test]
fn junk_in_the_spool_is_never_replayed() {
    let Some(world) = World::open() else { return };
    let archive = Archive::new(&world, "archive");
    let recorded = Recorded::new(&world, &archive, 10);
    let mut server = recorded.recovery(&world, "server", "");
    // Every second hit is spoiled, its seal left alone; one of them is waited for.
    let is_spoiled = |name: &&String| name.ends_with(['0', '2', '4', '6', '8', 'A', 'C', 'E']);
    let body = format!(
        "if [ $1 = {awaited} ]; then
           for i in $(seq 1200); do [ -e {spool}/prefetch-*/$1.seal ] && break; sleep 0.1; done
         fi
         for file in {spool}/prefetch-*/$1; do
           case $1 in *[02468ACE]) [ -e $file.seal ] && printf junk | dd of=$file conv=notrunc bs=1 seek=70000 2>/dev/null && touch {spoiled};; esac
         done
         exec {fetch} $1 $2",
        awaited = recorded.segments.iter().skip(2).find(is_spoiled).unwrap(),
        spool = spool(&server).display(),
        spoiled = world.path("spoiled").display(),
        fetch = archive.fetch(""),
    );
    server.set("restore_command", format!("sleep 0.2; {} %f %p", world.script("spoil", &body).display()));
    server.launch();
    server.wait_promoted();
    assert!(world.path("spoiled").exists(), "nothing was prefetched");
    assert_eq!(server.ledger(), lines_of(1..=10), "{}", server.story());
}

#[test]
fn pg_rewind_works_beside_the_prefetcher_of_a_running_standby() {
    let Some(world) = World::open() else { return };
    let archive = Archive::new(&world, "archive");
    let (mut old, mut new, backup) = diverged(&world, &archive);
    let mut follower = Server::restore(&world, &backup, "follower");
    follower.keep_to_itself();
    follower.request("standby.signal");
    follower.launch();
    follower.wait_ledger([1, 2]);
    assert!(remove_archived_segments(&old, &archive) > 0);
    rewind(&world, &old, &new);
    assert!(folders(&old).is_empty() && prefetchers(&old).is_empty(), "pg_rewind prefetches nothing");
    rejoin(&mut old, &mut new);
    follower.wait_ledger([1, 2, 5]);
}

#[test]
fn a_server_that_is_the_first_process_of_its_container_is_never_restarted_by_us() {
    let Some(world) = World::open_with_mounts() else { return };
    let archive = Archive::new(&world, "archive");
    let recorded = Recorded::new(&world, &archive, 12);
    let server = recorded.recovery(&world, "server", &archive.fetch_command());
    let log = world.path("container.log");
    let account = world.account().expect("root");
    let postgres = world.command("postgres").get_program().to_owned();
    let mut container = Command::new("unshare");
    container.args(["--pid", "--fork", "--mount-proc", "--kill-child", "setpriv"]);
    container.args([format!("--reuid={}", account.user), format!("--regid={}", account.group)]);
    container.arg("--clear-groups").arg(postgres).arg("-D").arg(server.data());
    container.arg("-k").arg(world.path("server.run")).current_dir(world.root());
    container.stdin(Stdio::null()).stdout(File::create(&log).unwrap()).stderr(File::create(&log).unwrap());
    let mut container = container.spawn().unwrap();
    let told = || fs::read_to_string(&log).unwrap();
    let promoted = wait_for(|| (server.try_psql("select pg_is_in_recovery()").ok()? == "f").then_some(()));
    let first_process = fs::read_to_string(server.data().join("postmaster.pid")).unwrap();
    let ledger = server.try_psql("select 1").map(|_| server.ledger());
    // Time for whatever was left behind to end.
    thread::sleep(Duration::from_secs(1));
    let alive = server.try_psql("select 1");
    container.kill().unwrap();
    container.wait().unwrap();
    assert!(promoted.is_some() && alive.is_ok(), "{}", told());
    assert!(first_process.starts_with("1\n"), "{first_process}");
    assert_eq!(ledger, Ok(lines_of(1..=12)), "{}", told());
    assert!(!told().contains("reinitializing") && !told().contains("terminating any other"), "{}", told());
    assert!(folders(&server).is_empty(), "nothing is prefetched there");
}
