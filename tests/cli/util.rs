//! A sandbox: a data directory, an archive root, and the programs run in them.

#![allow(dead_code, reason = "each test crate uses a part")]

use std::fmt;
use std::fs;
use std::io::{BufRead, BufReader};
use std::iter;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Barrier;
use std::time::{Duration, Instant};
use tempfile::TempDir;

pub const CLUSTER: u64 = 7_710_362_819_239_716_105;
pub const MIB: usize = 1 << 20;

/// How long anything may take before a test gives up. Never asserted as a speed.
const PATIENCE: Duration = Duration::from_secs(120);

/// Waits for a condition.
#[track_caller]
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Runs a wal-fetch with the first of these timeouts, and with the next one only where the machine was
/// too busy to ask at all in that time.
pub fn unless_late(timeouts: &[&str], ask: impl Fn(&str) -> Run) -> Run {
    let is_late = |run: &Run| matches!(run.code, Some(23 | 223));
    let (last, earlier) = timeouts.split_last().unwrap();
    let mut runs = earlier.iter().map(|timeout| ask(timeout));
    runs.find(|run| !is_late(run)).unwrap_or_else(|| ask(last))
}

/// The timeouts of a fetch that is to say what is known, without waiting for it to change.
pub const NOW: [&str; 3] = ["1s", "8s", "60s"];

/// Deterministic bytes that zstd cannot compress.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// A segment with a true first page and `seed`ed content, half of it compressible.
pub fn segment(name: &str, size: usize, cluster: u64, seed: u64) -> Vec<u8> {
    let id = |range| u64::from_str_radix(&name[range], 16).unwrap();
    let mut bytes = noise(seed, size / 2);
    bytes.resize(size, 0);
    bytes[..40].fill(0);
    bytes[0..2].copy_from_slice(&0xD110u16.to_le_bytes());
    bytes[2..4].copy_from_slice(&6u16.to_le_bytes());
    bytes[4..8].copy_from_slice(&(id(0..8) as u32).to_le_bytes());
    bytes[8..16].copy_from_slice(&((id(8..16) << 32) + id(16..24) * size as u64).to_le_bytes());
    bytes[24..32].copy_from_slice(&cluster.to_le_bytes());
    bytes[32..36].copy_from_slice(&(size as u32).to_le_bytes());
    bytes[36..40].copy_from_slice(&8192u32.to_le_bytes());
    bytes
}

/// A finished program.
pub struct Run {
    command: String,
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "\n$ {}\ncode {:?}\n--- stdout\n{}--- stderr\n{}---",
            self.command, self.code, self.stdout, self.stderr
        )
    }
}

impl Run {
    pub fn of(command: &mut Command) -> Run {
        let shown = format!("{command:?}");
        let Output { status, stdout, stderr } = command.stdin(Stdio::null()).output().expect(&shown);
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        Run { command: shown, code: status.code(), stdout: text(stdout), stderr: text(stderr) }
    }

    /// The same, with something that is done once the program has said the word on stderr.
    pub fn acting_on(command: &mut Command, word: &str, action: impl FnOnce()) -> Run {
        let shown = format!("{command:?}");
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect(&shown);
        let (mut said, mut action) = (String::new(), Some(action));
        for line in BufReader::new(child.stderr.take().unwrap()).lines() {
            let line = line.expect("UTF-8");
            if line.contains(word)
                && let Some(action) = action.take()
            {
                action();
            }
            said.push_str(&line);
            said.push('\n');
        }
        let Output { status, stdout, .. } = child.wait_with_output().expect(&shown);
        let stdout = String::from_utf8(stdout).expect("UTF-8");
        Run { command: shown, code: status.code(), stdout, stderr: said }
    }

    /// Success is silent.
    #[track_caller]
    pub fn succeeds(self) {
        assert!(self.code == Some(0) && self.stdout.is_empty() && self.stderr.is_empty(), "{self:?}");
    }

    /// Ends with this code and says all of `words` in one line of stdout.
    #[track_caller]
    pub fn says(self, code: i32, words: &[&str]) -> Run {
        let told = self.stdout.lines().any(|line| words.iter().all(|word| line.contains(word)));
        assert!(self.code == Some(code) && told, "expected {code} and {words:?} in one line: {self:?}");
        self
    }

    /// Ends with this code and says the words in one line of stderr.
    #[track_caller]
    pub fn says_on_stderr(self, code: i32, words: &str) {
        let told = self.stderr.lines().any(|line| line.contains(words));
        assert!(self.code == Some(code) && told, "expected {code} and {words:?}: {self:?}");
    }

    /// A failure has its code, says all of `words` in one line, and prints nothing to stdout.
    #[track_caller]
    pub fn fails(self, code: i32, words: &[&str]) -> Run {
        assert!(self.code == Some(code) && self.stdout.is_empty(), "expected {code}: {self:?}");
        let told = self.stderr.lines().any(|line| words.iter().all(|word| line.contains(word)));
        assert!(told, "expected {words:?} in one line: {self:?}");
        self
    }
}

/// `wal-archive check` ended with this code, begins with the state that it means, and a line of that
/// state says all the words.
#[track_caller]
pub fn says_state(run: &Run, code: i32, words: &[&str]) {
    let state = ["OK", "WARNING", "CRITICAL", "UNKNOWN"][code as usize];
    assert_eq!(run.code, Some(code), "{run:?}");
    assert!(run.stdout.starts_with(&format!("WAL-ARCHIVE {state} - ")), "{run:?}");
    let mut lines = run.stdout.lines().skip(1);
    let told = lines.any(|line| line.starts_with(state) && words.iter().all(|word| line.contains(word)));
    assert!(told, "expected {words:?}: {run:?}");
}

impl Run {
    /// It ended with this code and said nothing on stderr; what it printed, the sandbox's own
    /// directory left out.
    #[track_caller]
    pub fn told(&self, code: i32, sandbox: &Sandbox) -> String {
        assert!(self.code == Some(code) && self.stderr.is_empty(), "expected {code}: {self:?}");
        self.stdout.replace(&format!("{}/", sandbox.folder.path().display()), "/")
    }
}

pub struct Sandbox {
    folder: TempDir,
}

impl Sandbox {
    /// A data directory of [`CLUSTER`] without files in pg_wal, and its new archive.
    pub fn new() -> Self {
        Sandbox::with_segments_of(MIB)
    }

    /// The same for a cluster with segments of another size than a MiB.
    pub fn with_segments_of(size: usize) -> Self {
        let sandbox = Sandbox::without_archive();
        initialise(&sandbox, &sandbox.archive(), size);
        sandbox
    }

    /// An empty directory where the archive would be.
    pub fn without_archive() -> Self {
        let sandbox = Sandbox { folder: tempfile::tempdir().unwrap() };
        sandbox.make_data_directory("data", CLUSTER);
        fs::create_dir(sandbox.archive()).unwrap();
        sandbox
    }

    /// Makes the archive of a [`Sandbox::without_archive`].
    pub fn init(&self) {
        initialise(self, &self.archive(), MIB);
    }

    /// One more archive of the cluster.
    pub fn make_archive(&self, name: &str) -> PathBuf {
        let root = self.path(name);
        fs::create_dir(&root).unwrap();
        initialise(self, &root, MIB);
        root
    }

    /// The same for another cluster.
    pub fn of_cluster(cluster: u64) -> Self {
        let sandbox = Sandbox::without_archive();
        sandbox.make_data_directory("data", cluster);
        let id = cluster.to_string();
        let mut init = sandbox.program("wal-archive");
        init.args(["init", "--system-id", &id, "--segment-size", &MIB.to_string()]).arg(sandbox.archive());
        let run = Run::of(&mut init);
        assert_eq!(run.code, Some(0), "{run:?}");
        sandbox
    }

    pub fn make_data_directory(&self, name: &str, cluster: u64) -> PathBuf {
        let data = self.path(name);
        fs::create_dir_all(data.join("pg_wal/archive_status")).unwrap();
        fs::create_dir_all(data.join("global")).unwrap();
        fs::write(data.join("PG_VERSION"), "15\n").unwrap();
        fs::write(data.join("global/pg_control"), [&cluster.to_le_bytes()[..], &[0; 8184]].concat()).unwrap();
        data
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn data(&self) -> PathBuf {
        self.path("data")
    }

    pub fn archive(&self) -> PathBuf {
        self.path("archive")
    }

    /// The object of a WAL file.
    pub fn object(&self, name: &str) -> PathBuf {
        self.archive().join("wal_005").join(format!("{name}.zst"))
    }

    /// Everything in the archive's WAL folder, hidden files too.
    pub fn objects(&self) -> Vec<String> {
        names(&self.archive().join("wal_005"))
    }

    /// Puts a file into pg_wal.
    pub fn wal(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.data().join("pg_wal").join(name);
        fs::write(&path, content).unwrap();
        path
    }

    /// A segment of 1 MiB in pg_wal.
    pub fn segment(&self, name: &str) -> Vec<u8> {
        let content = segment(name, MIB, CLUSTER, 1);
        self.wal(name, &content);
        content
    }

    /// A program in the data directory with a clean environment and the archiver's umask.
    pub fn program(&self, name: &str) -> Command {
        let path = match name {
            "wal-push" => env!("CARGO_BIN_EXE_wal-push"),
            "wal-fetch" => env!("CARGO_BIN_EXE_wal-fetch"),
            _ => env!("CARGO_BIN_EXE_wal-archive"),
        };
        // As PostgreSQL does it: through a shell, whose umask the program inherits.
        let mut command = Command::new("sh");
        command.args(["-c", "umask 0077; exec \"$0\" \"$@\"", path]);
        command.current_dir(self.data()).env_clear().env("TZ", "UTC").process_group(0);
        command
    }

    /// `wal-push` of a file of pg_wal into the archive, with further arguments.
    pub fn push(&self, name: &str, args: &[&str]) -> Run {
        let archive = self.archive();
        Run::of(
            self.program("wal-push").arg("--archive").arg(archive).args(args).arg(format!("pg_wal/{name}")),
        )
    }

    /// `wal-fetch` to pg_wal/RECOVERYXLOG, with further arguments.
    pub fn fetch(&self, name: &str, args: &[&str]) -> Run {
        Run::of(&mut self.fetching(name, args))
    }

    fn fetching(&self, name: &str, args: &[&str]) -> Command {
        let mut command = self.program("wal-fetch");
        command.arg("--archive").arg(self.archive()).args(args).args([name, "pg_wal/RECOVERYXLOG"]);
        command
    }

    /// The same, saying what is known without waiting for it to change.
    pub fn fetch_now(&self, name: &str, args: &[&str]) -> Run {
        unless_late(&NOW, |timeout| self.fetch(name, &[&["--timeout", timeout], args].concat()))
    }

    /// A fetch that waits, and what is done once it does.
    pub fn fetch_waiting(&self, name: &str, args: &[&str], action: impl FnOnce()) -> Run {
        Run::acting_on(&mut self.fetching(name, args), "asked for again", action)
    }

    /// Archives the WAL files of a real server, two timelines of segments of 1 MiB that leave
    /// `16` to `19` of timeline 1 out, all stored at the same old time.
    pub fn archive_real(&self) {
        let vectors = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/wal/postgresql-15");
        let files = names(&vectors);
        let wal: Vec<&str> = files.iter().map(|file| file.strip_suffix(".zst").unwrap()).collect();
        for (name, file) in wal.iter().zip(&files) {
            let raw = zstd::stream::decode_all(&fs::read(vectors.join(file)).unwrap()[..]).unwrap();
            self.wal(name, &raw);
        }
        for name in wal {
            self.push(name, &[]).succeeds();
            self.age(name);
        }
    }

    /// Makes an object look as if it had been stored on 2026-11-20.
    pub fn age(&self, name: &str) {
        let touched =
            Command::new("touch").args(["-d", "2026-11-20T22:00:00Z"]).arg(self.object(name)).status();
        assert!(touched.unwrap().success());
    }

    /// A subcommand of `wal-archive` over the archive, with further arguments.
    pub fn admin(&self, subcommand: &str, args: &[&str]) -> Run {
        Run::of(self.program("wal-archive").arg(subcommand).arg("--archive").arg(self.archive()).args(args))
    }

    /// What a fetch put into place, which is removed.
    pub fn fetched(&self) -> Vec<u8> {
        let path = self.data().join("pg_wal/RECOVERYXLOG");
        let content = fs::read(&path).unwrap();
        fs::remove_file(path).unwrap();
        content
    }

    /// Asserts that a failed fetch left pg_wal as it was.
    #[track_caller]
    pub fn nothing_fetched(&self) {
        let left: Vec<_> = names(&self.data().join("pg_wal"));
        let strange: Vec<_> =
            left.iter().filter(|name| name.contains("RECOVERY") || name.contains("xlogtemp")).collect();
        assert!(strange.is_empty(), "{strange:?}");
    }
}

/// `wal-archive init` for [`CLUSTER`], without the place.
pub fn init_arguments(segment_size: usize) -> [String; 5] {
    let (id, size) = (CLUSTER.to_string(), segment_size.to_string());
    ["init", "--system-id", &id, "--segment-size", &size].map(str::to_owned)
}

fn initialise(sandbox: &Sandbox, root: &Path, segment_size: usize) {
    let mut init = sandbox.program("wal-archive");
    let run = Run::of(init.args(init_arguments(segment_size)).arg(root));
    assert!(run.code == Some(0) && run.stderr.is_empty(), "{run:?}");
}

pub fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Flips one bit of a file, in place and therefore with the same inode.
pub fn flip(path: &Path, bit: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[bit / 8] ^= 1 << (bit % 8);
    fs::write(path, bytes).unwrap();
}

/// A pipe without a writer: whoever opens it hangs, like a request to a dead NFS server.
pub fn hang(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

/// Whether this is root, which alone mounts file systems and gives files away. Else the test is
/// skipped, or fails where nothing may be.
pub fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        assert!(std::env::var_os("WAL_ARCHIVE_REQUIRE_ALL").is_none(), "this test needs root");
        eprintln!("SKIPPED: this test needs root");
    }
    root
}

/// A count that a long campaign sets and that is short in CI.
pub fn rounds(variable: &str, short: usize) -> usize {
    std::env::var(variable).map_or(short, |text| text.parse().expect("a number"))
}

/// Runs to the end and returns the peak of the resident memory in KiB, of it or of its worker.
pub fn peak(command: &mut Command) -> u64 {
    let mut child = command.stdin(Stdio::null()).spawn().unwrap();
    let pid = child.id();
    let mut peak = 0;
    loop {
        // The kernel keeps the high-water mark, so only what comes after the last look is missed.
        let workers = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        for pid in workers.split_whitespace().chain([pid.to_string().as_str()]) {
            let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let mark = text.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
            peak = mark.and_then(|mark| mark.trim().parse().ok()).unwrap_or(peak).max(peak);
        }
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success(), "{command:?}: {status}");
            return peak;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Two primaries push different segments of one name at the same moment, round after round:
/// exactly one wins, the other gets 12, and what is archived is the winner's. `program` gives a
/// command that reaches the archive.
pub fn race(sandbox: &Sandbox, rounds: usize, program: &(dyn Fn(&str) -> Command + Sync)) {
    let primaries = [sandbox.data(), sandbox.make_data_directory("other", CLUSTER)];
    let mut wins = [0; 2];
    for round in 0..rounds {
        let name = format!("00000001{:08X}{:08X}", round / 4096, round % 4096);
        let contents = [1, 2].map(|seed| segment(&name, MIB, CLUSTER, seed + 2 * round as u64));
        for (primary, content) in primaries.iter().zip(&contents) {
            fs::write(primary.join("pg_wal").join(&name), content).unwrap();
        }
        let start = Barrier::new(2);
        let push = |primary: &Path| {
            let mut command = program("wal-push");
            command.current_dir(primary).arg(format!("pg_wal/{name}"));
            start.wait();
            // As PostgreSQL: a machine that is slow enough for the deadline has no winner yet.
            iter::repeat_with(|| Run::of(&mut command)).find(|run| run.code != Some(14)).unwrap()
        };
        let runs = std::thread::scope(|scope| {
            let other = scope.spawn(|| push(&primaries[1]));
            [push(&primaries[0]), other.join().unwrap()]
        });
        let winner = runs.iter().position(|run| run.code == Some(0));
        let winner = winner.unwrap_or_else(|| panic!("nobody won: {runs:?}"));
        assert_eq!(runs[1 - winner].code, Some(12), "round {round}: {runs:?}");
        wins[winner] += 1;
        Run::of(program("wal-fetch").args([&name, "pg_wal/RECOVERYXLOG"])).succeeds();
        assert!(sandbox.fetched() == contents[winner], "round {round}: the archived object is the winner's");
        for primary in &primaries {
            fs::remove_file(primary.join("pg_wal").join(&name)).unwrap();
        }
    }
    println!("{rounds} rounds, wins {wins:?}");
}
