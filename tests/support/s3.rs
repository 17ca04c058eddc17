//! A real S3-compatible server: versitygw over a directory, or moto where Go is missing.
//!
//! `scripts/setup.sh` installs one of them below `target/tools`. Without either the tests that
//! need it say that they are skipped, or fail where `WAL_ARCHIVE_REQUIRE_ALL` is set.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

pub const ACCESS_KEY: &str = "wal-archive-test";
pub const SECRET_KEY: &str = "test-secret-5f1d0c7e";
pub const BUCKET: &str = "bucket";

pub struct Server {
    child: Child,
    address: SocketAddr,
    folder: TempDir,
    program: PathBuf,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What `scripts/setup.sh` installed; another version may be on the machine, and behave otherwise.
fn tool(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/bin").join(name);
    path.is_file().then_some(path)
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").expect("a socket").local_addr().expect("its address").port()
}

impl Server {
    /// `None`, with a word about it, where no server is installed.
    pub fn start() -> Option<Server> {
        Server::start_in(tempfile::tempdir().expect("a folder"))
    }

    /// In a folder that may hold `cert.pem` and `key.pem`.
    pub fn start_in(folder: TempDir) -> Option<Server> {
        let Some(program) = tool("versitygw").or_else(|| tool("moto_server")) else {
            assert!(
                std::env::var_os("WAL_ARCHIVE_REQUIRE_ALL").is_none(),
                "neither versitygw nor moto_server is installed: run scripts/setup.sh"
            );
            eprintln!("SKIPPED: neither versitygw nor moto_server is installed; scripts/setup.sh does it");
            return None;
        };
        std::fs::create_dir_all(folder.path().join("data").join(BUCKET)).expect("a bucket");
        // Another process may take the port between the question and the start.
        for _ in 0..5 {
            let port = free_port();
            let address = SocketAddr::from(([127, 0, 0, 1], port));
            let mut child = command(&program, folder.path(), address).spawn().expect("the server starts");
            let deadline = Instant::now() + Duration::from_secs(60);
            while Instant::now() < deadline && child.try_wait().expect("a child").is_none() {
                if TcpStream::connect(address).is_ok() {
                    let server = Server { child, address, folder, program };
                    server.make_bucket();
                    return Some(server);
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        panic!("{} did not start", program.display());
    }

    pub fn is_versitygw(&self) -> bool {
        self.program.ends_with("versitygw")
    }

    pub fn program(&self) -> &Path {
        &self.program
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// An object's file, where the server keeps objects as files.
    pub fn file(&self, key: &str) -> Option<PathBuf> {
        self.is_versitygw().then(|| self.folder.path().join("data").join(BUCKET).join(key))
    }

    /// Stops it, as a crash of the store would.
    pub fn stop(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ended");
    }

    /// Starts it again, with the same address and (versitygw only) the same objects.
    pub fn start_again(&mut self) {
        self.child =
            command(&self.program, self.folder.path(), self.address).spawn().expect("the server starts");
        let deadline = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(self.address).is_err() {
            assert!(Instant::now() < deadline, "it did not come back");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// moto starts without buckets and knows no directories.
    fn make_bucket(&self) {
        if self.is_versitygw() {
            return;
        }
        use std::io::{Read, Write};
        let mut stream = TcpStream::connect(self.address).expect("connected");
        let request = format!(
            "PUT /{BUCKET} HTTP/1.1\r\nHost: {}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            self.address
        );
        stream.write_all(request.as_bytes()).expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}

fn command(program: &Path, folder: &Path, address: SocketAddr) -> Command {
    let mut command = Command::new(program);
    let log = std::fs::File::create(folder.join("log")).expect("a log");
    command.stdin(Stdio::null()).stdout(log.try_clone().expect("a log")).stderr(log);
    if program.ends_with("versitygw") {
        command.env("ROOT_ACCESS_KEY", ACCESS_KEY).env("ROOT_SECRET_KEY", SECRET_KEY);
        // Metadata beside the objects: the temporary directory may lack extended attributes.
        std::fs::create_dir_all(folder.join("sidecar")).expect("a folder");
        // Users of their own, for the test of policies.
        std::fs::create_dir_all(folder.join("iam")).expect("a folder");
        command.arg("--iam-dir").arg(folder.join("iam"));
        for (flag, file) in [("--cert", "cert.pem"), ("--key", "key.pem")] {
            // Where a test made a certificate, the server speaks TLS.
            if folder.join(file).exists() {
                command.arg(flag).arg(folder.join(file));
            }
        }
        command
            .args(["--quiet", "--port", &address.to_string(), "posix", "--sidecar"])
            .arg(folder.join("sidecar"));
        command.arg(folder.join("data"));
    } else {
        command.args(["-H", "127.0.0.1", "-p", &address.port().to_string()]);
    }
    command
}
