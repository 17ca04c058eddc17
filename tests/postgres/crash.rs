//! The server killed while it archives: what was committed is archived in the end.

use crate::archive::Archive;
use crate::recorded::Recorded;
use crate::server::{Server, lines_of};
use crate::world::World;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Stdio};

const ROUNDS: u32 = 3;
const WRITERS: u32 = 3;

#[test]
fn a_server_killed_while_it_archives_loses_no_segment_and_no_committed_row() {
    let Some(world) = World::open() else { return };
    let archive = Archive::new(&world, "archive");
    let mut primary = Server::archiving(&world, "primary", &archive);
    primary.psql("create table acknowledged(id bigserial primary key, text text)");
    let backup = primary.base_backup("backup");
    let statements = world.path("statements.sql");
    let insert = "insert into acknowledged(text) values (repeat(md5(random()::text), 32)) returning id;\n";
    fs::write(&statements, insert.repeat(50_000)).unwrap();

    let mut acknowledged = BTreeSet::new();
    for round in 0..ROUNDS {
        let receipts: Vec<_> =
            (0..WRITERS).map(|writer| world.path(&format!("receipts.{round}.{writer}"))).collect();
        let writers: Vec<Child> = receipts.iter().map(|path| write(&primary, &statements, path)).collect();
        let before = archive.object_count();
        primary.wait_until("archived under load", |_| archive.object_count() >= before + 4);
        primary.kill();
        for mut writer in writers {
            writer.wait().unwrap();
        }
        for path in receipts {
            acknowledged.extend(complete_lines(&path));
        }
        primary.start_after_crash();
    }
    assert!(acknowledged.len() > 100, "only {} rows", acknowledged.len());
    let committed = ids(&primary);
    assert!(committed.is_superset(&acknowledged), "PostgreSQL itself lost rows");
    primary.stop();
    assert_eq!(primary.status_files(".ready"), [""; 0], "{}", primary.story());
    archive.assert_sound(1);

    let restored = Server::recovered(&world, &backup, "restored", archive.fetch_command());
    assert_eq!(ids(&restored), committed);
}

#[test]
fn a_server_killed_while_its_recovery_waits_for_the_archive_recovers_when_started_again() {
    let Some(world) = World::open() else { return };
    let archive = Archive::new(&world, "archive");
    let recorded = Recorded::new(&world, &archive, 3);
    let moment = "[ \"$1\" = 00000002.history ]";
    let command = world.interposed("cut.sh", moment, &archive.outage().0, &archive.fetch("--timeout 1h"));
    let mut restored = recorded.recovery(&world, "restored", &command);
    restored.launch();
    restored.wait_for_log("\"00000002.history\" is asked for again", 1);
    restored.kill();

    // The startup process and its wal-fetch outlive the postmaster until there is an answer.
    archive.come_back();
    restored.start_after_crash();
    restored.wait_promoted();
    assert_eq!(restored.ledger(), lines_of(1..=3));
    assert_eq!(restored.timeline(), 2);
}

/// A client that commits row after row and notes each number it was told.
pub fn write(server: &Server, statements: &Path, receipts: &Path) -> Child {
    let mut psql = server.client("psql");
    psql.args(["-XAtq", "-d", "postgres"]).stdin(File::open(statements).unwrap());
    psql.stdout(File::create(receipts).unwrap()).stderr(Stdio::null());
    psql.spawn().expect("a client")
}

pub fn complete_lines(receipts: &Path) -> BTreeSet<u64> {
    let text = fs::read_to_string(receipts).unwrap();
    let complete = text.rfind('\n').map_or("", |end| &text[..end]);
    complete.lines().map(|line| line.parse().expect("an id")).collect()
}

pub fn ids(server: &Server) -> BTreeSet<u64> {
    let listed = server.psql("select id from acknowledged");
    listed.lines().map(|line| line.parse().expect("an id")).collect()
}
