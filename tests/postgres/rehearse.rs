//! `wal-archive rehearse`: what it recovers is what the server had, what is wrong is said, and nothing of it
//! is left, acts or is seen by anybody.

use crate::archive::{Archive, Spot};
use crate::backup::{assert_done, backups, id, take_backup, wal_archive};
use crate::json_page::assert_as_documented;
use crate::outage::Mount;
use crate::server::Server;
use crate::verify::LAST_COMMIT;
use crate::world::{World, run, skip, told, wait_for};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Where rehearsals are done.
struct Stage<'w> {
    world: &'w World,
    archive: &'w Archive<'w>,
    scratch: PathBuf,
    /// Where the server is of another major than the clients that are installed.
    programs: Option<PathBuf>,
}

impl<'w> Stage<'w> {
    fn new(world: &'w World, archive: &'w Archive<'w>) -> Self {
        Stage { world, archive, scratch: world.make_directory("scratch"), programs: world.mixed_programs() }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = wal_archive(self.world, &[self.archive], &["rehearse"]);
        command.args(args);
        if !args.contains(&"--scratch") {
            command.arg("--scratch").arg(&self.scratch);
        }
        if let (Some(programs), false) = (&self.programs, args.contains(&"--pg-bindir")) {
            command.arg("--pg-bindir").arg(programs);
        }
        command
    }

    /// Ends with that code and leaves nothing.
    fn ends(&self, code: i32, args: &[&str]) -> Output {
        let mut command = self.command(args);
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{}", told(&command, &output));
        self.assert_nothing_left();
        output
    }

    /// A finding of that kind, with these words, and evidence of it.
    fn finds(&self, args: &[&str], kind: &str, words: &str) -> Value {
        let evidence = self.evidence().len();
        let output = self.ends(1, &[args, &["--json"]].concat());
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let findings = report["findings"].as_array().unwrap();
        let found = findings.iter().find(|finding| finding["kind"] == kind);
        let found = found.unwrap_or_else(|| panic!("no finding of {kind}: {report}"));
        assert!(found["reason"].as_str().unwrap().contains(words), "{words:?} is not in {found}");
        assert_eq!((&report["verdict"], self.evidence().len()), (&"findings".into(), evidence + 1));
        report
    }

    /// Cannot be done, with these words on stderr.
    fn cannot(&self, args: &[&str], words: &str) {
        let evidence = self.evidence().len();
        let output = self.ends(2, args);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains(words), "{words:?} is not in {said}");
        assert_eq!(self.evidence().len(), evidence, "it is no evidence of anything");
    }

    fn evidence(&self) -> Vec<PathBuf> {
        let folder = fs::read_dir(self.archive.root().join("rehearsals"));
        let mut found: Vec<_> =
            folder.map_or(Vec::new(), |folder| folder.map(|entry| entry.unwrap().path()).collect());
        found.sort();
        found
    }

    fn assert_nothing_left(&self) {
        let left: Vec<_> = fs::read_dir(&self.scratch).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(left.is_empty(), "{left:?}");
        assert_eq!(self.processes(), [""; 0]);
    }

    /// Processes that work in the scratch directory.
    fn processes(&self) -> Vec<String> {
        let all = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
        let there =
            |path: &PathBuf| fs::read_link(path.join("cwd")).is_ok_and(|at| at.starts_with(&self.scratch));
        all.filter(there).map(|path| fs::read_to_string(path.join("cmdline")).unwrap_or_default()).collect()
    }

    /// Begun, and waited for until its server runs and asks for what it cannot get.
    fn begun(&self, args: &[&str]) -> std::process::Child {
        let child = self.command(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let program = self.world.program("wal-fetch").display().to_string();
        let waits = || self.processes().iter().any(|line| line.starts_with(&program)).then_some(());
        wait_for(waits).expect("a server that recovers");
        child
    }
}

/// A cluster whose backup is in the archive, and some transactions behind it.
fn backed_up<'w>(world: &'w World, archive: &Archive<'w>, settings: &[(&str, &str)]) -> Server<'w> {
    let mut primary = Server::init(world, "primary");
    archive.init(&primary);
    primary.set("archive_command", archive.push_command());
    settings.iter().for_each(|(name, value)| primary.set(name, value));
    primary.start();
    primary.create_ledger();
    primary.write(1);
    primary
}

/// Where the segments end that a switch at this address has finished.
fn boundary(distance: &str) -> String {
    let end = distance.parse::<u64>().unwrap().next_multiple_of(1 << 20);
    format!("{:X}/{:X}", end >> 32, end & 0xFFFF_FFFF)
}

#[test]
fn a_sound_archive_is_recovered_to_what_the_server_had_and_others_are_told() {
    let Some(world) = World::open() else { return };
    let archive = Archive::new(&world, "archive");
    let stage = Stage::new(&world, &archive);
    let settings = [("track_commit_timestamp", "on"), ("max_prepared_transactions", "4")];
    let mut primary = backed_up(&world, &archive, &settings);
    let fast = world.make_directory("fast");
    primary.psql(&format!("create tablespace fast location '{}'", fast.display()));
    primary.psql("alter table ledger set tablespace fast");
    assert_done(&take_backup(&world, &primary, &[&archive], &["--label", "nightly"]));
    primary.write(2);
    primary.archive_segment();
    primary.write(3);
    let moment = primary.psql("select to_char(now() at time zone 'utc', 'YYYY-MM-DD HH24:MI:SS.US+00')");
    primary.psql("begin; insert into ledger values (4, 1, 'x'); prepare transaction 'kept'");
    primary.write(4);
    let commit = primary.psql(LAST_COMMIT);
    let end = boundary(&primary.psql("select pg_switch_wal() - '0/0'"));
    primary.wait_archived();
    let names = archive.names();
    primary.stop();
    for leftover in archive.names().difference(&names) {
        fs::remove_file(archive.object(leftover)).unwrap();
    }
    let list = |args: &[&str]| run(wal_archive(&world, &[&archive], &["list"]).args(args));
    assert!(!list(&[]).contains("rehearsal"));
    let checks = world.path("checks.sql");
    let statements = "-- the ledger\nselect count(*) = 2000 from ledger;\nselect * from ledger where batch > 4;\n\
        \\c template1\nselect true;\n";
    fs::write(&checks, statements).unwrap();
    let prometheus = world.path("rehearsal.prom");
    // Of 13 it checks no tables.
    let amcheck = if world.major() >= 14 { &["--amcheck"][..] } else { &[] };
    let args = [&["--json", "--name", "main", "--sql", checks.to_str().unwrap()], amcheck].concat();
    let output = stage.ends(0, &[&args[..], &["--prometheus", prometheus.to_str().unwrap()]].concat());

    assert_as_documented("rehearse", &[std::str::from_utf8(&output.stdout).unwrap()]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let verified = run(&mut wal_archive(&world, &[&archive], &["verify", "--records", "--json"]));
    let verified: Value = serde_json::from_str(&verified).unwrap();
    let way = &verified["recoverable"][0];
    assert_eq!((&report["end_lsn"], &report["last_commit"]), (&way["end"], &way["last_commit"]));
    assert_eq!((&report["end_lsn"], &report["last_commit"]), (&end.into(), &commit.into()));
    assert_eq!(
        (&report["verdict"], &report["timeline"], &report["version"]),
        (&"sound".into(), &1.into(), &2.into())
    );
    assert_eq!(report["backup"], id(&backups(&archive)[0]).as_str());
    assert_eq!(report["findings"], serde_json::json!([]));
    let checked = report["checked"].to_string();
    assert!(
        checked.contains("\"pg_amcheck\"") == (world.major() >= 14) && checked.contains("\"3 statements of "),
        "{report}"
    );
    assert_eq!(checked.contains("\"pg_verifybackup\""), stage.programs.is_none(), "{report}");
    for phase in ["restore_seconds", "replay_seconds", "ready_seconds"] {
        assert!(report["phases"][phase].as_f64().unwrap() > 0.0, "{report}");
    }
    assert!(
        report["data_lost_seconds"].as_f64().unwrap() > 0.0
            && report["replayed_bytes"].as_u64().unwrap() > 1 << 20
    );
    let metrics = fs::read_to_string(&prometheus).unwrap();
    assert!(metrics.contains("\nwal_archive_rehearsal_state{cluster=\"main\"} 0\n"), "{metrics}");

    // The evidence, and who reads it.
    let evidence = stage.evidence();
    assert_eq!(report["evidence"], serde_json::json!([evidence[0]]));
    let record: Value = serde_json::from_slice(&fs::read(&evidence[0]).unwrap()).unwrap();
    assert_eq!((&record["wal-archive"], &record["end_lsn"]), (&1.into(), &report["end_lsn"]));
    let shown = list(&[]);
    assert!(
        shown.contains("\nlast rehearsal ") && shown.contains(report["end_lsn"].as_str().unwrap()),
        "{shown}"
    );
    let listed = list(&["--json"]);
    let listed: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed["destinations"][0]["last_rehearsal"]["verdict"], "sound");
    let check = |age: &str| {
        let mut check =
            wal_archive(&world, &[&archive], &["check", "--rehearsal-warning", age, "--free-warning", "0%"]);
        let output = check.args(["--free-critical", "0%"]).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (code, text) = check("8d");
    assert!(code == Some(0) && text.contains("rehearsal_age_seconds"), "{text}");
    let (code, text) = check("1ms");
    assert!(code == Some(1) && text.contains("the last rehearsal of"), "{text}");

    // To a time; another tool's backup. No other command minds the records.
    let output = stage.ends(0, &["--target-time", &moment, "--json", "--no-evidence"]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(
        report["last_commit"].as_str().unwrap().replace(['T', 'Z'], " ").trim()
            <= moment.trim_end_matches("+00"),
        "{report}"
    );
    assert_eq!(report["evidence"], serde_json::json!([]));
    run(&mut wal_archive(&world, &[&archive], &["expire", "--keep-backups", "1", "--yes"]));
    run(&mut wal_archive(&world, &[&archive], &["verify", "--backups"]));
    let copy = world.make_directory("copy");
    let program = world.program("wal-archive");
    let program = program.to_str().unwrap();
    run(world.command(program).args(["init", "--pgdata"]).arg(primary.data()).arg(&copy));
    run(world.command(program).arg("copy").arg(archive.root()).arg(&copy));
}

#[test]
fn what_is_wrong_is_said_and_what_cannot_be_done_is_none_of_it() {
    let Some(world) = World::open() else { return };
    let archive = Archive::new(&world, "archive");
    let stage = Stage::new(&world, &archive);
    let mut primary = backed_up(&world, &archive, &[]);
    assert_done(&take_backup(&world, &primary, &[&archive], &[]));
    primary.base_backup("base");
    primary.write(2);
    let hole = primary.archive_segment();
    primary.write(3);
    primary.archive_segment();
    let file = primary.data().join(primary.psql("select pg_relation_filepath('ledger')"));
    let has_checksums = primary.psql("show data_checksums") == "on";
    primary.stop();
    let by_hand = format!("cp -a {}/. \"$DIR\"", world.path("base").display());
    let by_hand = ["--base-command", by_hand.as_str()];

    // Statements.
    let checks = world.path("checks.sql");
    fs::write(&checks, "select true;\nselect count(*) = 7\n  from ledger;\n").unwrap();
    let sql = ["--sql", checks.to_str().unwrap()];
    let report = stage.finds(&sql, "sql", "returned something else than t: select count(*) = 7 from ledger;");
    assert!(report["findings"][0]["reason"].as_str().unwrap().starts_with("statement 2 of "), "{report}");
    let secret = |path: &Path| !fs::read_to_string(path).unwrap().contains("\"f\"");
    assert!(stage.evidence().iter().all(|path| secret(path)));
    fs::write(&checks, "select 1/0;\n").unwrap();
    stage.finds(&sql, "sql", "division by zero");

    // What it cannot do.
    stage.cannot(&["--pg-bindir", "/usr"], "the programs of PostgreSQL");
    stage.cannot(&["--timeout", "1ms"], "took longer than 1ms");
    stage.cannot(&["--base-command", "sleep 600", "--timeout", "300ms"], "took longer than 300ms");
    stage.cannot(&["--base-command", "echo no tape >&2; exit 3"], "no tape");
    stage.cannot(&["--base-command", "true"], "the command left no base backup in $DIR");
    let original = format!("cp -a {}/. \"$DIR\"", primary.data().display());
    stage.cannot(&["--base-command", &original], "\"backup_label\"");
    let outside = format!("{}; ln -s /tmp \"$DIR/pg_tblspc/1\"", by_hand[1]);
    stage.cannot(&["--base-command", &outside], "outside of the scratch directory");
    stage.cannot(&["--amcheck", "--role", "nobody"], "role \"nobody\" does not exist");
    if world.account().is_some() {
        let small = world.make_directory("small");
        let _mount = Mount::tmpfs(&small, "8m", &world);
        stage.cannot(&["--scratch", small.to_str().unwrap()], "and the rehearsal needs");
        assert_eq!(fs::read_dir(&small).unwrap().count(), 0);
        let output = Command::new(world.program("wal-archive"))
            .args(["rehearse", "--archive"])
            .arg(archive.root())
            .output();
        let output = output.unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert!(String::from_utf8_lossy(&output.stderr).contains("root runs no server"), "{output:?}");
    }

    // Another tool's backup; a damaged segment; a hole, which that recovery waits for.
    stage.ends(0, &by_hand);
    archive.flip_bit(&hole, Spot::MiddleOfFrame);
    let words = format!("recovery asked for \"{hole}\", and wal-fetch ended with 221");
    stage.finds(&[], "restore-command", &words);
    archive.flip_bit(&hole, Spot::MiddleOfFrame);
    archive.take_out(&hole);
    stage.finds(&[], "refused", &format!("\"{hole}\" is not in the archive"));
    let mut told_to_end = stage.begun(&by_hand);
    kill_process(Pid::from_child(&told_to_end), Signal::TERM).unwrap();
    assert_eq!(told_to_end.wait().unwrap().code(), Some(2));
    stage.assert_nothing_left();
    let mut killed = stage.begun(&by_hand);
    killed.kill().unwrap();
    killed.wait().unwrap();
    archive.put_back(&hole);
    assert_eq!(fs::read_dir(&stage.scratch).unwrap().count(), 1, "the next one has nothing to clean up");
    let output = stage.ends(0, &["--no-evidence"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("which a killed rehearsal left"), "{output:?}");

    // A page that was damaged before the backup was taken.
    if !has_checksums {
        run(world.command("pg_checksums").args(["--enable", "-D"]).arg(primary.data()));
    }
    OpenOptions::new().write(true).open(file).unwrap().write_all_at(&[0xFF; 64], 8192 + 24).unwrap();
    primary.start();
    let output = take_backup(&world, &primary, &[&archive], &[]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    primary.archive_segment();
    primary.stop();
    let report = stage.finds(&["--amcheck"], "amcheck", "pg_amcheck found damage");
    assert_eq!(report["findings"][1]["kind"], "checksums", "{report}");
}

#[test]
fn a_rehearsal_is_no_evidence_at_a_destination_that_does_not_hold_the_backup() {
    let Some(world) = World::open() else { return };
    let (archive, other) = (Archive::new(&world, "archive"), Archive::new(&world, "other"));
    let stage = Stage::new(&world, &archive);
    let push = format!("{} %p", archive.push(&format!("--archive {}", other.root().display())));
    let mut primary = Server::archiving_by(&world, "primary", &[&archive, &other], push);
    primary.create_ledger();
    assert_done(&take_backup(&world, &primary, &[&archive], &[]));
    primary.base_backup("base");
    primary.write(2);
    primary.archive_segment();
    primary.wait_archived();
    primary.stop();
    let both = ["--json", "--archive", other.root().to_str().unwrap()];
    let evidence = |args: &[&str]| -> Vec<String> {
        let output = stage.ends(0, &[&both, args].concat());
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let places = report["evidence"].as_array().unwrap().iter();
        places.map(|at| at.as_str().unwrap().split("/rehearsals/").next().unwrap().to_owned()).collect()
    };
    let [here, there] = [&archive, &other].map(|one| one.root().display().to_string());
    assert_eq!(evidence(&[]), std::slice::from_ref(&here));
    let check = wal_archive(&world, &[&other], &["check", "--rehearsal-warning", "7d"]).output().unwrap();
    let said = String::from_utf8_lossy(&check.stdout).into_owned();
    assert!(said.contains("no rehearsal of"), "{said}");
    // Of another tool's backup only the WAL is an archive's.
    let by_hand = format!("cp -a {}/. \"$DIR\"", world.path("base").display());
    assert_eq!(evidence(&["--base-command", &by_hand]), [here, there]);
}

#[test]
fn a_cluster_with_segments_of_64_mib_is_rehearsed() {
    let Some(world) = World::open() else { return };
    let archive = Archive::new(&world, "archive");
    let stage = Stage::new(&world, &archive);
    let mut primary = Server::init_with_segments(&world, "primary", 64);
    archive.init(&primary);
    primary.set("archive_command", archive.push_command());
    primary.start();
    primary.create_ledger();
    primary.write(1);
    assert_done(&take_backup(&world, &primary, &[&archive], &[]));
    primary.write(2);
    primary.archive_segment();
    primary.wait_archived();
    primary.destroy();
    let checks = world.path("checks.sql");
    fs::write(&checks, "select count(*) = 1000 from ledger;\n").unwrap();
    stage.ends(0, &["--sql", checks.to_str().unwrap()]);
}

#[test]
fn a_destination_that_does_not_answer_makes_it_impossible_and_is_no_finding() {
    let Some(world) = World::open() else { return };
    let (archive, second) = (Archive::new(&world, "archive"), Archive::new(&world, "second"));
    let stage = Stage::new(&world, &archive);
    let mut primary = Server::archiving(&world, "primary", &archive);
    second.init(&primary);
    primary.create_ledger();
    primary.write(1);
    assert_done(&take_backup(&world, &primary, &[&archive], &[]));
    primary.base_backup("base");
    primary.archive_segment();
    primary.wait_archived();
    primary.destroy();
    let both = ["--archive", second.root().to_str().unwrap()];
    let (gone, _) = second.outage();
    // In the middle of it, and before.
    let by_hand = format!("cp -a {}/. \"$DIR\"; {gone}", world.path("base").display());
    let place = format!("\"{}", second.root().display());
    stage.cannot(&[&both[..], &["--base-command", &by_hand]].concat(), &place);
    stage.cannot(&both, &place);
    stage.cannot(&both, "name the others with --archive");
    stage.ends(0, &["--no-evidence"]);
}

#[test]
fn a_copy_reaches_no_publisher_no_primary_and_no_archive() {
    let Some(world) = World::open() else { return };
    let archive = Archive::new(&world, "archive");
    let stage = Stage::new(&world, &archive);
    let mut other = Server::init(&world, "other");
    other.set("wal_level", "logical");
    other.set("log_connections", "on");
    other.set("log_replication_commands", "on");
    other.set("autovacuum", "off");
    other.start();
    other.psql("create table t(x int primary key)");
    other.psql("create publication p for table t");

    let mut primary = backed_up(&world, &archive, &[]);
    primary.psql("create table t(x int primary key)");
    primary.psql(&format!("create subscription s connection '{}' publication p", other.connection()));
    other.psql("insert into t values (1)");
    primary.wait_until("subscribes", |server| server.psql("select count(*) from t") == "1");
    // What the copy would do where it read its own settings.
    let acted = world.path("acted");
    let act = format!("touch {}", acted.display());
    primary.set("recovery_end_command", &act);
    primary.set("archive_cleanup_command", &act);
    primary.set("primary_conninfo", other.connection());
    primary.set("shared_preload_libraries", "a_library_that_is_not_there");
    primary.set("hot_standby", "on");
    assert_done(&take_backup(&world, &primary, &[&archive], &[]));
    primary.base_backup("base");
    primary.write(2);
    primary.archive_segment();
    primary.wait_archived();
    primary.destroy();
    other.wait_until("is alone", |server| server.psql("select count(*) from pg_stat_replication") == "0");
    run(world.command("touch").arg(world.path("base/standby.signal")));
    let connections = |server: &Server<'_>| server.run_log().matches("connection received").count();
    let (before, objects) = (connections(&other), archive.names());
    let by_hand = format!("cp -a {}/. \"$DIR\"", world.path("base").display());
    let look = world.path("look.sql");
    fs::write(&look, "select subenabled from pg_subscription;\nselect pg_sleep(2) is not null;\n").unwrap();
    for args in [&[][..], &["--base-command", &by_hand]] {
        stage.ends(0, &[args, &["--sql", look.to_str().unwrap()]].concat());
    }
    assert_eq!(connections(&other), before, "{}", other.story());
    assert_eq!(archive.names(), objects, "it archived");
    assert!(!acted.exists(), "a command of the original was run");
}

#[test]
fn no_job_of_pg_cron_runs_in_a_copy() {
    let Some(world) = World::open() else { return };
    if !world.has_library("pg_cron.so") {
        return skip("there is no pg_cron: scripts/setup.sh installs it");
    }
    let archive = Archive::new(&world, "archive");
    let stage = Stage::new(&world, &archive);
    let settings = [("shared_preload_libraries", "pg_cron"), ("cron.use_background_workers", "on")];
    let mut primary = backed_up(&world, &archive, &settings);
    let acted = world.path("acted");
    primary.psql("create extension pg_cron");
    let act = format!("copy (select 1) to program ''touch {}''", acted.display());
    primary.psql(&format!("select cron.schedule('* * * * *', '{act}')"));
    assert_done(&take_backup(&world, &primary, &[&archive], &[]));
    primary.write(2);
    primary.archive_segment();
    primary.wait_until("runs its job", |_| acted.exists());
    primary.destroy();
    fs::remove_file(&acted).unwrap();
    let look = world.path("look.sql");
    let statements = "select command like 'copy%' from cron.job;\n\
        select backend_type from pg_stat_activity where backend_type like 'pg_cron%';\n\
        select pg_sleep(63 - extract(second from clock_timestamp())) is not null;\n"; // into the next minute
    fs::write(&look, statements).unwrap();
    stage.ends(0, &["--sql", look.to_str().unwrap()]);
    assert!(!acted.exists(), "a job of the original was run");
}
