//! `kill -9` at any moment: never a visible incomplete object, and the repeat succeeds.

use crate::util::{CLUSTER, MIB, Sandbox, noise, rounds, segment};
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::time::{Duration, Instant};

#[test]
fn a_killed_push_leaves_a_whole_object_or_none_and_the_repeat_succeeds() {
    let sandbox = Sandbox::with_segments_of(16 * MIB);
    let kills = rounds("WAL_ARCHIVE_KILLS", 40);
    // How long a push takes, so that the kills spread over all of it, however fast the machine is just now.
    let first = "000000010000000000000000";
    sandbox.wal(first, &segment(first, 16 * MIB, CLUSTER, 0));
    let start = Instant::now();
    sandbox.push(first, &[]).succeeds();
    let mut whole = start.elapsed();
    let (mut interrupted, mut published, mut temporary) = (0, 0, 0);
    for kill in 1..=kills {
        let name = format!("00000001{:08X}{:08X}", kill / 256, kill % 256);
        let content = segment(&name, 16 * MIB, CLUSTER, kill as u64);
        let path = sandbox.wal(&name, &content);
        let random = noise(kill as u64, 8).iter().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
        let moment = whole.mul_f64(1.1 * (random % 10_000) as f64 / 10_000.0);
        let mut child = sandbox
            .program("wal-push")
            .arg("--archive")
            .arg(sandbox.archive())
            .arg(format!("pg_wal/{name}"))
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(moment);
        child.kill().unwrap(); // SIGKILL; the shell has replaced itself by the program
        let hit = child.wait().unwrap().signal() == Some(9);
        whole = if hit { whole.mul_f64(1.1) } else { moment };
        interrupted += usize::from(hit);
        temporary += sandbox.objects().iter().filter(|object| object.starts_with('.')).count();
        if sandbox.object(&name).exists() {
            published += 1;
            sandbox.fetch(&name, &[]).succeeds();
            assert!(
                sandbox.fetched() == content,
                "kill {kill} after {moment:?}: an incomplete object is visible"
            );
        }
        sandbox.push(&name, &[]).succeeds();
        sandbox.fetch(&name, &[]).succeeds();
        assert!(sandbox.fetched() == content);
        for leftover in sandbox.objects().iter().filter(|object| object.starts_with('.')) {
            assert!(leftover.starts_with(".wal-archive."), "what is left is hidden and known: {leftover}");
            fs::remove_file(sandbox.archive().join("wal_005").join(leftover)).unwrap();
        }
        fs::remove_file(sandbox.object(&name)).unwrap();
        fs::remove_file(path).unwrap();
    }
    println!(
        "{kills} kills: {interrupted} hit a living push, {published} after publication, {temporary} left a hidden file"
    );
    assert!(interrupted > kills / 3, "only {interrupted} of {kills} kills hit");
}

#[test]
fn a_killed_fetch_leaves_a_whole_file_or_none() {
    let sandbox = Sandbox::with_segments_of(16 * MIB);
    let name = "000000010000000000000001";
    let content = segment(name, 16 * MIB, CLUSTER, 1);
    sandbox.wal(name, &content);
    sandbox.push(name, &[]).succeeds();
    fs::remove_file(sandbox.data().join("pg_wal").join(name)).unwrap();
    let target = sandbox.data().join("pg_wal/RECOVERYXLOG");
    for kill in 0..rounds("WAL_ARCHIVE_KILLS", 40) {
        let mut child = sandbox
            .program("wal-fetch")
            .arg("--archive")
            .arg(sandbox.archive())
            .args([name, "pg_wal/RECOVERYXLOG"])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_micros(1500 * (kill as u64 % 60)));
        child.kill().unwrap();
        child.wait().unwrap();
        if target.exists() {
            assert!(sandbox.fetched() == content, "kill {kill}");
        }
    }
    sandbox.fetch(name, &[]).succeeds();
    assert!(sandbox.fetched() == content);
    sandbox.nothing_fetched();
}
