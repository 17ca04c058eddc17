//! One scratch server: made, configured, started, watched, stopped.

use crate::archive::Archive;
use crate::world::{World, run, told, wait_for};
use rustix::process::{Pid, Signal, kill_process};
use std::fmt::Display;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

/// What every server of the tests has. One MiB segments keep the tests short; only the operating
/// system's crash would need `fsync`.
const SETTINGS: &str = "
listen_addresses = ''
fsync = off
shared_buffers = '16MB'
max_connections = 30
autovacuum = off
wal_retrieve_retry_interval = '500ms'
archive_mode = on
log_line_prefix = '%m [%p] '
";

/// A data directory and, while it runs, its server.
pub struct Server<'w> {
    world: &'w World,
    name: String,
    running: Option<Child>,
    /// Length of the log when the server was last started.
    log_before: usize,
}

/// A base backup, restored as often as wanted.
pub struct Backup {
    path: PathBuf,
}

impl<'w> Server<'w> {
    /// A new cluster with segments of 1 MiB, not started.
    pub fn init(world: &'w World, name: &str) -> Self {
        Server::init_with_segments(world, name, 1)
    }

    /// With segments of so many MiB.
    pub fn init_with_segments(world: &'w World, name: &str, mebibytes: u32) -> Self {
        let server = Server::named(world, name);
        let mut initdb = world.command("initdb");
        initdb.args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]);
        run(initdb.arg(format!("--wal-segsize={mebibytes}")).arg("-D").arg(server.data()));
        server.append("postgresql.conf", SETTINGS);
        server.append("postgresql.conf", &format!("min_wal_size = '{}MB'\n", 4 * mebibytes));
        server
    }

    /// A new cluster and its new archive, started.
    pub fn archiving(world: &'w World, name: &str, archive: &Archive<'_>) -> Self {
        Server::archiving_by(world, name, &[archive], archive.push_command())
    }

    /// A new cluster and its new archives, started, that archives by this command.
    pub fn archiving_by(
        world: &'w World,
        name: &str,
        archives: &[&Archive<'_>],
        archive_command: impl Display,
    ) -> Self {
        let mut server = Server::init(world, name);
        archives.iter().for_each(|archive| archive.init(&server));
        server.set("archive_command", archive_command);
        server.start();
        server
    }

    /// A copy of a backup, not started.
    pub fn restore(world: &'w World, backup: &Backup, name: &str) -> Self {
        let server = Server::named(world, name);
        run(world.command("cp").arg("-a").arg(&backup.path).arg(server.data()));
        server
    }

    /// A copy of a backup that restores by this command and archives nothing, not started.
    pub fn restoring(
        world: &'w World,
        backup: &Backup,
        name: &str,
        restore_command: impl Display,
        signal_file: &str,
    ) -> Self {
        let server = Server::restore(world, backup, name);
        server.keep_to_itself();
        server.set("restore_command", restore_command);
        server.request(signal_file);
        server
    }

    /// A backup recovered to the end of the archive, promoted.
    pub fn recovered(world: &'w World, backup: &Backup, name: &str, restore_command: impl Display) -> Self {
        let mut server = Server::restoring(world, backup, name, restore_command, "recovery.signal");
        server.launch();
        server.wait_promoted();
        server
    }

    /// A copy of a server that is stopped, as a file system's snapshot is one.
    pub fn clone_of(world: &'w World, other: &Server<'_>, name: &str) -> Self {
        Server::restore(world, &Backup { path: other.data() }, name)
    }

    /// A data directory that is there already, not started.
    pub fn existing(world: &'w World, name: &str) -> Self {
        Server::named(world, name)
    }

    fn named(world: &'w World, name: &str) -> Self {
        let run = format!("{name}.run");
        if !world.path(&run).exists() {
            world.make_directory(&run);
        }
        Server { world, name: name.to_owned(), running: None, log_before: 0 }
    }

    pub fn data(&self) -> PathBuf {
        self.world.path(&self.name)
    }

    pub fn pg_wal(&self) -> PathBuf {
        self.data().join("pg_wal")
    }

    /// Sets a parameter; a running server takes it over.
    pub fn set(&self, parameter: &str, value: impl Display) {
        let quoted = value.to_string().replace('\'', "''");
        self.append("postgresql.auto.conf", &format!("{parameter} = '{quoted}'\n"));
        if let Some(child) = &self.running {
            signal(child, Signal::HUP);
        }
    }

    /// Nothing that this copy of a cluster does reaches an archive.
    pub fn keep_to_itself(&self) {
        self.set("archive_mode", "off");
    }

    /// Creates `recovery.signal` or `standby.signal`.
    pub fn request(&self, signal_file: &str) {
        self.append(signal_file, "");
    }

    fn append(&self, file: &str, text: &str) {
        let path = self.data().join(file);
        let mut file = OpenOptions::new().create(true).append(true).open(&path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
        self.world.give_to_postgres(&path);
    }

    /// Starts the server, without waiting for anything.
    pub fn launch(&mut self) {
        assert!(self.running.is_none(), "\"{}\" runs", self.name);
        self.log_before = self.whole_log().len();
        let log = OpenOptions::new().create(true).append(true).open(self.log_path()).unwrap();
        let mut postgres = self.world.command("postgres");
        postgres.arg("-D").arg(self.data()).arg("-k").arg(self.socket_directory());
        postgres.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.running = Some(postgres.spawn().expect("a server"));
    }

    /// Starts the server and waits until it answers.
    pub fn start(&mut self) {
        self.launch();
        self.wait_until("answers", |server| server.try_psql("select 1").is_ok());
    }

    /// Starts the server over the remains of one that was killed: its last processes, an archive
    /// command among them, may keep the shared memory for a moment.
    pub fn start_after_crash(&mut self) {
        loop {
            self.launch();
            let up = wait_for(|| self.up_or_ended());
            if up == Some(true) {
                return;
            }
            assert!(self.run_log().contains("pre-existing shared memory block"), "{}", self.story());
        }
    }

    fn up_or_ended(&mut self) -> Option<bool> {
        if self.try_psql("select 1").is_ok() {
            return Some(true);
        }
        self.ended().map(|_| false)
    }

    /// Stops as an administrator does; the whole backlog is archived first.
    pub fn stop(&mut self) {
        self.end(Signal::INT);
    }

    /// Kills the postmaster and nothing else, as the kernel does when memory is short.
    pub fn kill(&mut self) {
        self.end(Signal::KILL);
    }

    pub fn end(&mut self, how: Signal) {
        let child = self.running.as_ref().expect("a running server");
        signal(child, how);
        assert!(wait_for(|| self.ended()).is_some(), "{how:?} does not end the server\n{}", self.story());
    }

    /// The server and its disks are lost.
    pub fn destroy(mut self) {
        self.end(Signal::QUIT);
        fs::remove_dir_all(self.data()).unwrap();
    }

    pub fn wait_until_ended(&mut self) {
        assert!(wait_for(|| self.ended()).is_some(), "the server goes on\n{}", self.story());
    }

    fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.running.as_mut()?.try_wait().unwrap()?;
        self.running = None;
        Some(status)
    }

    pub fn is_running(&mut self) -> bool {
        self.running.is_some() && self.ended().is_none()
    }

    /// Waits until `holds`; that the server ends meanwhile is a failure.
    pub fn wait_until(&mut self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let held = wait_for(|| {
            if holds(self) {
                return Some(true);
            }
            (!self.is_running()).then_some(false)
        });
        let outcome = match held {
            Some(true) => return,
            Some(false) => "ended before it",
            None => "never",
        };
        panic!("\"{}\" {outcome} {what}\n{}", self.name, self.story());
    }

    pub fn wait_for_log(&mut self, text: &str, times: usize) {
        let what = format!("wrote {text:?} {times} times into its log");
        self.wait_until(&what, |server| server.run_log().matches(text).count() >= times);
    }

    /// Waits until WAL comes from the server named in `primary_conninfo`.
    pub fn wait_streaming(&mut self) {
        self.wait_until("streams", |server| {
            server.psql("select count(*) from pg_stat_wal_receiver where status = 'streaming'") == "1"
        });
    }

    pub fn wait_promoted(&mut self) {
        self.wait_until("was promoted", |server| {
            server.try_psql("select pg_is_in_recovery()").is_ok_and(|answer| answer == "f")
        });
    }

    /// Recovery ends with FATAL because restore_command ended with `code`, and nothing was
    /// promoted: the same directory can be started again. The log of that attempt.
    pub fn expect_fatal(&mut self, code: u8) -> String {
        let log = self.expect_stop(code);
        assert!(!log.contains("selected new timeline ID"), "{log}");
        assert!(self.data().join("recovery.signal").exists(), "{log}");
        log
    }

    /// The same for a standby, or where the signal file is gone already.
    pub fn expect_stop(&mut self, code: u8) -> String {
        let ended = wait_for(|| self.ended());
        let status = ended.unwrap_or_else(|| panic!("the server goes on\n{}", self.story()));
        let log = self.run_log();
        assert!(!status.success(), "{status}\n{log}");
        assert!(log.contains("FATAL:  could not restore file \""), "{log}");
        assert!(
            log.contains(&format!("from archive: child process exited with exit code {code}\n")),
            "{log}"
        );
        assert!(log.contains("wal-fetch: error: "), "{log}");
        assert!(!log.contains("archive recovery complete"), "{log}");
        log
    }

    pub fn psql(&self, sql: &str) -> String {
        self.try_psql(sql).unwrap_or_else(|told| panic!("{told}\n{}", self.story()))
    }

    pub fn try_psql(&self, sql: &str) -> Result<String, String> {
        let mut psql = self.client("psql");
        psql.args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-d", "postgres", "-c", sql]);
        let output = psql.output().unwrap();
        match output.status.success() {
            true => Ok(String::from_utf8(output.stdout).unwrap().trim_end().to_owned()),
            false => Err(told(&psql, &output)),
        }
    }

    /// A client program that will talk to this server.
    pub fn client(&self, program: &str) -> Command {
        let mut command = self.world.command(program);
        command.arg("-h").arg(self.socket_directory()).args(["-U", "postgres"]);
        command
    }

    /// What another server needs to stream from this one, or pg_rewind to read it.
    pub fn connection(&self) -> String {
        format!("host={} user=postgres dbname=postgres", self.socket_directory().display())
    }

    /// A base backup without WAL, labelled with its name: what it needs must come from the archive.
    pub fn base_backup(&self, name: &str) -> Backup {
        self.backup(name, "none")
    }

    /// A base backup that brings its own WAL.
    pub fn base_backup_with_wal(&self, name: &str) -> Backup {
        self.backup(name, "stream")
    }

    fn backup(&self, name: &str, wal: &str) -> Backup {
        let path = self.world.path(name);
        let mut backup = self.client("pg_basebackup");
        run(backup.args(["-c", "fast", "--no-sync", "-l", name, "-X", wal, "-D"]).arg(&path));
        Backup { path }
    }

    pub fn create_ledger(&self) {
        self.psql("create table ledger(batch int, line int, text text)");
    }

    /// Commits 500 lines at once.
    pub fn write(&self, batch: u32) {
        self.psql(&format!(
            "insert into ledger select {batch}, line, repeat(md5(random()::text), 4) from generate_series(1, 500) line"
        ));
    }

    /// Every line there is, as `1:500 2:500`.
    pub fn ledger(&self) -> String {
        self.psql(LEDGER)
    }

    /// Waits until exactly these batches are visible.
    pub fn wait_ledger(&mut self, batches: impl IntoIterator<Item = u32>) {
        let expected = lines_of(batches);
        let what = format!("showed {expected}");
        self.wait_until(&what, |server| server.try_psql(LEDGER).is_ok_and(|ledger| ledger == expected));
    }

    /// Finishes the segment that is written to; its name.
    pub fn switch_segment(&self) -> String {
        self.psql("select pg_walfile_name(pg_switch_wal())")
    }

    /// Finishes the segment that is written to and waits until it is archived; its name.
    pub fn archive_segment(&mut self) -> String {
        let segment = self.switch_segment();
        let ready = self.pg_wal().join("archive_status").join(format!("{segment}.ready"));
        self.wait_until(&format!("archived {segment}"), |_| !ready.exists());
        segment
    }

    /// Waits until nothing waits to be archived.
    pub fn wait_archived(&mut self) {
        self.wait_until("archived everything", |server| server.status_files(".ready").is_empty());
    }

    /// The WAL files with that mark in `archive_status`.
    pub fn status_files(&self, mark: &str) -> Vec<String> {
        let entries = fs::read_dir(self.pg_wal().join("archive_status")).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter_map(|name| name.strip_suffix(mark).map(str::to_owned)).collect()
    }

    /// The text of a timeline's history file in `pg_wal`, if there is one.
    pub fn history(&self, timeline: u32) -> Option<String> {
        fs::read_to_string(self.pg_wal().join(format!("{timeline:08X}.history"))).ok()
    }

    /// The timeline that is written to.
    pub fn timeline(&self) -> u32 {
        let segment = self.psql("select pg_walfile_name(pg_current_wal_lsn())");
        u32::from_str_radix(&segment[..8], 16).unwrap()
    }

    /// What was logged since the last start.
    pub fn run_log(&self) -> String {
        self.whole_log().get(self.log_before..).unwrap_or_default().to_owned()
    }

    /// The end of the log, for a panic.
    pub fn story(&self) -> String {
        let log = self.whole_log();
        // The tests' own questions to a server that does not answer yet.
        let noise = ["system is starting up", "not yet accepting connections", "has not been yet reached"];
        let lines: Vec<&str> =
            log.lines().filter(|line| !noise.iter().any(|text| line.contains(text))).collect();
        let tail = &lines[lines.len().saturating_sub(60)..];
        format!("--- the end of the log of \"{}\"\n{}", self.name, tail.join("\n"))
    }

    fn whole_log(&self) -> String {
        let bytes = fs::read(self.log_path()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn log_path(&self) -> PathBuf {
        self.world.path(&format!("{}.log", self.name))
    }

    fn socket_directory(&self) -> PathBuf {
        self.world.path(&format!("{}.run", self.name))
    }
}

impl Drop for Server<'_> {
    fn drop(&mut self) {
        let Some(mut child) = self.running.take() else { return };
        let mut stop = self.world.command("pg_ctl");
        stop.arg("-D").arg(self.data()).args(["-m", "immediate", "-t", "20", "stop"]);
        let _ = stop.stdout(Stdio::null()).stderr(Stdio::null()).status();
        let _ = child.kill();
        let _ = child.wait();
    }
}

const LEDGER: &str = "select string_agg(batch || ':' || lines, ' ' order by batch)
    from (select batch, count(*) as lines from ledger group by batch) batches";

/// What [`Server::ledger`] says when it holds exactly these batches.
pub fn lines_of(batches: impl IntoIterator<Item = u32>) -> String {
    let lines: Vec<String> = batches.into_iter().map(|batch| format!("{batch}:500")).collect();
    lines.join(" ")
}

/// A file that only has to exist.
pub fn touch(path: &Path) {
    File::create(path).unwrap();
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).expect("a process to signal");
}
