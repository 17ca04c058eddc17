//! The real programs, run as PostgreSQL runs them, and killed at any moment.

use crate::destination::Destination;
use crate::programs::{Fetched, Pushed};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;
use wal_archive::wal::WalName;

/// The settings of one node: directories only.
pub struct Commands {
    data: PathBuf,
    roots: Vec<PathBuf>,
}

impl Commands {
    pub fn new(data: &Path, destinations: &[Destination]) -> Self {
        let roots = destinations.iter().map(|destination| destination.root().to_owned()).collect();
        Commands { data: data.to_owned(), roots }
    }

    fn program(&self, path: &str) -> Command {
        let mut command = Command::new(path);
        command.current_dir(&self.data).env_clear().stdin(Stdio::null());
        for root in &self.roots {
            command.arg("--archive").arg(root);
        }
        command
    }

    fn pushing(&self, name: WalName, look_ahead: usize) -> Command {
        let mut command = self.program(env!("CARGO_BIN_EXE_wal-push"));
        command.args(["--look-ahead", &look_ahead.to_string(), &format!("pg_wal/{name}")]);
        command
    }

    pub fn push(&self, name: WalName, look_ahead: usize) -> Pushed {
        let (code, said) = ran(self.pushing(name, look_ahead));
        match code {
            Some(0) => Pushed::Stored,
            Some(code @ (2 | 10..=14)) => Pushed::Refused { conflict: code == 12, said },
            other => panic!("wal-push ended with {other:?}: {said}"),
        }
    }

    /// SIGKILL after so long, whatever it is doing.
    pub fn push_killed(&self, name: WalName, look_ahead: usize, after: Duration) {
        let mut command = self.pushing(name, look_ahead);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(after);
        child.kill().unwrap();
        child.wait().unwrap();
    }

    pub fn fetch(&self, name: WalName, to: &str, timeout: Duration) -> Fetched {
        let mut command = self.program(env!("CARGO_BIN_EXE_wal-fetch"));
        let timeout = format!("{}ms", timeout.as_millis());
        command.args(["--on-error", "abort", "--prefetch", "0", "--timeout", &timeout]);
        command.args([name.to_string(), format!("pg_wal/{to}")]);
        let (code, said) = ran(command);
        match code {
            Some(0) => Fetched::Delivered,
            Some(1) => Fetched::Absent,
            Some(202 | 220..=224) => Fetched::Failed(said),
            other => panic!("wal-fetch ended with {other:?}: {said}"),
        }
    }
}

fn ran(mut command: Command) -> (Option<i32>, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    assert!(stdout.is_empty(), "{command:?} prints {}", String::from_utf8_lossy(&stdout));
    (status.code(), String::from_utf8_lossy(&stderr).into_owned())
}
