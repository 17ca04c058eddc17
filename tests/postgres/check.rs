//! `wal-archive check` asks a real server.

use crate::archive::Archive;
use crate::server::Server;
use crate::world::World;
use std::process::Command;

/// A server that archives into an archive that holds something.
fn archiving<'w>(world: &'w World, archive: &Archive<'w>) -> Server<'w> {
    let mut primary = Server::archiving(world, "primary", archive);
    primary.create_ledger();
    primary.archive_segment();
    primary
}

fn check(world: &World, archive: &Archive, server: &Server, args: &[&str]) -> (Option<i32>, String) {
    let mut command: Command = world.command(world.program("wal-archive").to_str().unwrap());
    command.arg("check").arg("--archive").arg(archive.root()).arg("--pgdata").arg(server.data());
    command.args(["--free-warning", "1MiB", "--free-critical", "1MiB", "--connection", &server.connection()]);
    let output = command.args(args).output().unwrap();
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}

#[track_caller]
fn says((code, text): (Option<i32>, String), expected: i32, words: &[&str]) {
    assert_eq!(code, Some(expected), "{text}");
    let told = text.lines().skip(1).any(|line| words.iter().all(|word| line.contains(word)));
    assert!(told, "expected {words:?}: {text}");
}

#[test]
fn an_idle_server_that_archives_is_ok_and_a_switched_segment_arrives() {
    let Some(world) = World::open() else { return };
    let archive = Archive::new(&world, "archive");
    let primary = archiving(&world, &archive);
    says(check(&world, &archive, &primary, &[]), 0, &["OK: ", "files archived", "0 failures"]);
    says(check(&world, &archive, &primary, &[]), 0, &["OK: nothing waits to be archived"]);
    let before = archive.names().len();
    // Twice: the second finds a server that wrote nothing since the first.
    for round in 1..=2 {
        says(check(&world, &archive, &primary, &["--switch"]), 0, &["OK: ", "arrived at"]);
        assert_eq!(archive.names().len(), before + round);
    }
}

#[test]
fn the_last_step_of_a_set_up_is_ok_on_a_server_that_archived_nothing_before() {
    let Some(world) = World::open() else { return };
    let archive = Archive::new(&world, "archive");
    let primary = Server::archiving(&world, "primary", &archive);
    let told = check(&world, &archive, &primary, &["--switch"]);
    assert!(!told.1.contains("WARNING"), "{}", told.1);
    says(told, 0, &["OK: ", "arrived at"]);
}

#[test]
fn a_server_asked_from_afar_tells_what_waits_even_where_its_archiver_dies() {
    let Some(world) = World::open() else { return };
    let archive = Archive::new(&world, "archive");
    let mut primary = archiving(&world, &archive);
    // Above 125: the archiver ends with it, and PostgreSQL counts no failure.
    primary.set("archive_command", "exit 130");
    primary.write(1);
    let stuck = primary.switch_segment();
    primary.wait_until("has a backlog", |server| server.status_files(".ready") == [stuck.clone()]);
    let mut command: Command = world.command(world.program("wal-archive").to_str().unwrap());
    command.arg("check").arg("--archive").arg(archive.root()).args([
        "--free-warning",
        "1MiB",
        "--free-critical",
        "1MiB",
    ]);
    command.args(["--age-critical", "1ms", "--connection", &primary.connection()]);
    let output = command.output().unwrap();
    let told = (output.status.code(), String::from_utf8(output.stdout).unwrap());
    says(told.clone(), 2, &["CRITICAL: 1 file waits", "1.0 MiB", &stuck]);
    says(told, 2, &["OK: ", "0 failures"]);
}

#[test]
fn a_failing_archive_command_is_critical() {
    let Some(world) = World::open() else { return };
    let archive = Archive::new(&world, "archive");
    let mut primary = archiving(&world, &archive);
    std::fs::rename(archive.root(), archive.elsewhere()).unwrap();
    primary.write(1);
    let stuck = primary.switch_segment();
    primary.wait_for_log("archive command failed with exit code 13", 1);
    let told = check(&world, &archive, &primary, &["--age-warning", "1ms", "--age-critical", "1ms"]);
    says(told.clone(), 2, &["CRITICAL: archive_command fails", &stuck, "HINT:"]);
    says(told.clone(), 2, &["CRITICAL: 1 file waits", &stuck]);
    says(told, 2, &["CRITICAL: cannot open the archive's root"]);
    archive.come_back();
}

#[test]
fn a_segment_that_does_not_arrive_is_critical() {
    let Some(world) = World::open() else { return };
    let archive = Archive::new(&world, "archive");
    let primary = archiving(&world, &archive);
    // It says that it archived, and did not.
    primary.set("archive_command", "/bin/true");
    let told = check(&world, &archive, &primary, &["--switch", "--timeout", "10s"]);
    says(told.clone(), 2, &["CRITICAL: ", "did not arrive at", "HINT:"]);
    says(told, 2, &["WARNING: archive_command is \"/bin/true\": it does not call wal-push"]);
}

#[test]
fn wal_that_the_archive_command_lost_is_critical() {
    let Some(world) = World::open() else { return };
    let archive = Archive::new(&world, "archive");
    let mut primary = archiving(&world, &archive);
    let push = archive.push_command();
    primary.set("archive_command", "/bin/true");
    primary.write(1);
    let lost = primary.switch_segment();
    primary.wait_until("takes it for archived", |server| server.status_files(".done").contains(&lost));
    primary.set("archive_command", &push);
    says(check(&world, &archive, &primary, &[]), 2, &["CRITICAL: PostgreSQL takes", &lost, "HINT:"]);
    // Asked from afar, only the last one is known: until the next is archived.
    let mut command: Command = world.command(world.program("wal-archive").to_str().unwrap());
    command.args(["check", "--free-warning", "1MiB", "--free-critical", "1MiB", "--archive"]);
    let output = command.arg(archive.root()).args(["--connection", &primary.connection()]).output().unwrap();
    let told = (output.status.code(), String::from_utf8(output.stdout).unwrap());
    says(told, 2, &["CRITICAL: PostgreSQL takes", &lost, "HINT:"]);
    // What is archived from then on does not hide it.
    primary.archive_segment();
    says(check(&world, &archive, &primary, &[]), 2, &["CRITICAL: PostgreSQL takes", &lost]);
}

#[test]
fn commands_whose_code_lies_are_critical() {
    let Some(world) = World::open() else { return };
    let archive = Archive::new(&world, "archive");
    let primary = archiving(&world, &archive);
    primary.set("restore_command", format!("timeout 60 {}", archive.fetch_command()));
    let reloaded = |name: &str, part: &str| {
        primary.try_psql(&format!("select 1 / (current_setting('{name}') like '%{part}%')::int")).is_ok()
    };
    assert!(crate::world::wait_for(|| reloaded("restore_command", "timeout").then_some(())).is_some());
    says(check(&world, &archive, &primary, &[]), 2, &["CRITICAL: restore_command", "124 or 137", "HINT:"]);
    primary.set("restore_command", archive.fetch_command());
    primary.set("archive_command", format!("{} || true", archive.push_command()));
    assert!(crate::world::wait_for(|| reloaded("archive_command", "true").then_some(())).is_some());
    says(
        check(&world, &archive, &primary, &[]),
        2,
        &["CRITICAL: archive_command", "a code of its own", "HINT:"],
    );
}

#[test]
fn a_server_that_does_not_answer_or_gives_no_rights_is_unknown() {
    let Some(world) = World::open() else { return };
    let archive = Archive::new(&world, "archive");
    let mut primary = archiving(&world, &archive);
    primary.psql("create role monitor login");
    let as_monitor = primary.connection().replace("user=postgres", "user=monitor");
    says(check(&world, &archive, &primary, &["--connection", &as_monitor]), 0, &["files archived"]);
    let told = check(&world, &archive, &primary, &["--connection", &as_monitor, "--switch"]);
    says(told, 3, &["UNKNOWN: ", "permission denied", "HINT:", "EXECUTE"]);
    primary.stop();
    says(check(&world, &archive, &primary, &[]), 3, &["UNKNOWN: cannot ask the server", "HINT:"]);
}
