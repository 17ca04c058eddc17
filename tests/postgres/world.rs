//! A scratch place for one test: a short directory that belongs to PostgreSQL's user, copies of
//! the programs under test, scripts, and commands run as that user.

use std::env;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long anything may take before the test gives up. Never asserted as a speed.
pub const PATIENCE: Duration = Duration::from_secs(300);

/// Where it is set, the directory of the server programs: those of another major than the newest one that
/// is installed, whose clients are used all the same (`scripts/majors.sh`).
const SERVER: &str = "WAL_ARCHIVE_TEST_POSTGRES";

/// The account that servers and clients run as, where the tests themselves run as root.
#[derive(Clone, Copy)]
pub struct Account {
    pub user: u32,
    pub group: u32,
}

/// Everything of one test lives below its directory and goes away with it.
pub struct World {
    root: TempDir,
    /// Where programs of PostgreSQL are looked for, in this order.
    postgres: Vec<PathBuf>,
    account: Option<Account>,
}

impl World {
    /// `None` where there is no PostgreSQL; the reason has been said.
    pub fn open() -> Option<Self> {
        let Some(newest) = newest_postgres() else {
            skip("no PostgreSQL server programs below /usr/lib/postgresql");
            return None;
        };
        let postgres = env::var_os(SERVER).map(PathBuf::from).into_iter().chain([newest]).collect();
        let account = running_as_root().then(postgres_account);
        // Short, because the path of a socket ends after 107 bytes.
        let root = tempfile::Builder::new().prefix("wa").tempdir_in("/tmp").expect("a scratch directory");
        let world = World { root, postgres, account };
        world.give_to_postgres(world.root());
        fs::set_permissions(world.root(), fs::Permissions::from_mode(0o755)).unwrap();
        world.make_directory("bin");
        let programs = [
            env!("CARGO_BIN_EXE_wal-push"),
            env!("CARGO_BIN_EXE_wal-fetch"),
            env!("CARGO_BIN_EXE_wal-archive"),
        ];
        for program in programs {
            // Cargo's directory may be closed to PostgreSQL's user.
            let copy = world.path("bin").join(Path::new(program).file_name().unwrap());
            install(Path::new(program), &copy);
        }
        Some(world)
    }

    /// The same, for tests that mount file systems.
    pub fn open_with_mounts() -> Option<Self> {
        if !running_as_root() {
            skip("mounting a file system needs root");
            return None;
        }
        World::open()
    }

    /// The server's major version.
    pub fn major(&self) -> u32 {
        let version = run(self.command("postgres").arg("--version"));
        let major = version.rsplit(' ').find_map(|word| word.split('.').next()?.trim().parse().ok());
        major.expect("a version")
    }

    /// A directory with the server's program and clients, where those are not of one major.
    pub fn mixed_programs(&self) -> Option<PathBuf> {
        let server = env::var_os(SERVER)?;
        let folder = self.make_directory("programs");
        for name in ["postgres", "psql", "pg_amcheck"] {
            let found = self.postgres.iter().map(|folder| folder.join(name)).find(|path| path.exists());
            std::os::unix::fs::symlink(found.expect("a program"), folder.join(name)).unwrap();
        }
        // It reads no control file of another major.
        let checksums = Path::new(&server).join("pg_checksums");
        if checksums.exists() {
            std::os::unix::fs::symlink(checksums, folder.join("pg_checksums")).unwrap();
        }
        Some(folder)
    }

    /// Whether the server can load it.
    pub fn has_library(&self, name: &str) -> bool {
        self.postgres.iter().any(|programs| programs.with_file_name("lib").join(name).exists())
    }

    pub fn root(&self) -> &Path {
        self.root.path()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub fn account(&self) -> Option<Account> {
        self.account
    }

    /// `wal-push`, `wal-fetch` or `wal-archive`.
    pub fn program(&self, name: &str) -> PathBuf {
        self.path("bin").join(name)
    }

    /// A new directory that belongs to PostgreSQL's user.
    pub fn make_directory(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir(&path).expect("a new directory");
        self.give_to_postgres(&path);
        path
    }

    /// An executable shell script.
    pub fn script(&self, name: &str, body: &str) -> PathBuf {
        let path = self.path("bin").join(name);
        let mut text = tempfile::NamedTempFile::new().unwrap();
        write!(text, "#!/bin/sh\n{body}\n").unwrap();
        install(text.path(), &path);
        path
    }

    /// A restore_command that does `action`, once, just before it answers the first request for
    /// which `condition` holds, and then is `fetch`. Both are shell; `$1` is the file asked for
    /// and the working directory is PostgreSQL's.
    pub fn interposed(&self, name: &str, condition: &str, action: &str, fetch: &str) -> String {
        let once = self.path(&format!("{name}.done"));
        let body = format!(
            "if {condition} && mkdir '{once}' 2>/dev/null; then\n  {action}\nfi\nexec {fetch} \"$1\" \"$2\"",
            once = once.display(),
        );
        format!("{} %f %p", self.script(name, &body).display())
    }

    /// Like [`World::interposed`], with `undo` after the one request.
    pub fn interposed_for_one_request(
        &self,
        name: &str,
        condition: &str,
        (action, undo): (&str, &str),
        fetch: &str,
    ) -> String {
        let during = format!("{action}\n  {fetch} \"$1\" \"$2\"; answer=$?\n  {undo}\n  exit $answer");
        self.interposed(name, condition, &during, fetch)
    }

    /// A program of PostgreSQL, or any other one, run as PostgreSQL's user in the scratch directory.
    pub fn command(&self, program: &str) -> Command {
        let of_postgres = self.postgres.iter().map(|folder| folder.join(program)).find(|path| path.exists());
        let mut command = Command::new(of_postgres.unwrap_or_else(|| program.into()));
        command.env_clear().env("PATH", env::var_os("PATH").unwrap_or_default());
        command.env("HOME", self.root()).env("LC_ALL", "C").current_dir(self.root());
        if let Some(Account { user, group }) = self.account {
            command.uid(user).gid(group);
        }
        command
    }

    /// Makes a file or a whole tree PostgreSQL's own.
    pub fn give_to_postgres(&self, path: &Path) {
        let Some(Account { user, group }) = self.account else { return };
        std::os::unix::fs::lchown(path, Some(user), Some(group)).expect("a change of owner");
        if fs::symlink_metadata(path).unwrap().is_dir() {
            for entry in fs::read_dir(path).unwrap() {
                self.give_to_postgres(&entry.unwrap().path());
            }
        }
    }
}

/// An executable copy, written by another process. What this one has open for writing, a child begun in
/// that moment by another thread has open too, and until it executes the file cannot be ("text file busy").
fn install(from: &Path, to: &Path) {
    run(Command::new("install").args(["-m", "755"]).args([from, to]));
}

/// Runs to the end; the standard output on success, all there is to know in the panic otherwise.
pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{}", told(command, &output));
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// A finished command with both its streams.
pub fn told(command: &Command, output: &Output) -> String {
    format!(
        "{command:?}: {}\n--- stdout\n{}\n--- stderr\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    )
}

/// Asks again until there is an answer; `None` when patience has ended.
pub fn wait_for<T>(mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    loop {
        let answer = ask();
        if answer.is_some() || start.elapsed() > PATIENCE {
            return answer;
        }
        thread::sleep(Duration::from_millis(100));
    }
}

pub fn skip(reason: &str) {
    let required = env::var("WAL_ARCHIVE_REQUIRE_ALL").is_ok_and(|value| value == "1");
    assert!(!required, "WAL_ARCHIVE_REQUIRE_ALL=1, but {reason}");
    eprintln!("SKIPPED: {reason}");
}

fn newest_postgres() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?;
    let found = versions.filter_map(|entry| {
        let entry = entry.ok()?;
        let version: u32 = entry.file_name().to_str()?.parse().ok()?;
        let programs = entry.path().join("bin");
        programs.join("postgres").exists().then_some((version, programs))
    });
    found.max().map(|(_, programs)| programs)
}

fn running_as_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

fn postgres_account() -> Account {
    let id = |flag| -> u32 {
        let printed = run(Command::new("id").args([flag, "postgres"]));
        printed.trim().parse().expect("a numeric id")
    };
    Account { user: id("-u"), group: id("-g") }
}
