//! A sandbox whose archive is a prefix of a bucket.

use crate::support::proxy::{Fate, Plan, Proxy, Seen};
use crate::support::s3::{ACCESS_KEY, BUCKET, SECRET_KEY, Server};
use crate::util::{MIB, Run, Sandbox, init_arguments, unless_late};
use std::process::Command;

pub struct Bucket {
    pub server: Server,
    pub proxy: Proxy,
    pub sandbox: Sandbox,
}

impl Bucket {
    /// An archive of segments of a MiB, with a proxy that passes everything on.
    pub fn new() -> Option<Bucket> {
        Bucket::with_segments_of(MIB)
    }

    /// The same for a cluster with segments of another size.
    pub fn with_segments_of(size: usize) -> Option<Bucket> {
        let bucket = Bucket::without_archive()?;
        bucket.init(size);
        Some(bucket)
    }

    /// An archive, with a proxy that makes the faults of a plan.
    pub fn with(plan: Plan) -> Option<Bucket> {
        let bucket = Bucket::without_archive()?;
        bucket.init(MIB);
        bucket.proxy.plan(plan);
        Some(bucket)
    }

    /// A bucket in which there is nothing.
    pub fn without_archive() -> Option<Bucket> {
        let server = Server::start()?;
        let proxy = Proxy::start(server.address(), Box::new(|_| Fate::Pass));
        Some(Bucket { server, proxy, sandbox: Sandbox::without_archive() })
    }

    /// Past the proxy, which counts what comes after.
    fn init(&self, segment_size: usize) {
        let mut init = self.program("wal-archive");
        init.env("WAL_ARCHIVE_ENDPOINT", self.server.endpoint()).args(init_arguments(segment_size));
        Run::of(&mut init).says(0, &["is now the archive"]);
    }

    /// The same bucket with another plan.
    pub fn planned(&self, plan: impl Fn(&Seen) -> Fate + Send + Sync + 'static) {
        self.proxy.plan(Box::new(plan));
    }

    pub fn url(&self) -> String {
        format!("s3://{BUCKET}/archive")
    }

    pub fn program(&self, name: &str) -> Command {
        let mut command = self.sandbox.program(name);
        command
            .env("AWS_ACCESS_KEY_ID", ACCESS_KEY)
            .env("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .env("WAL_ARCHIVE", self.url())
            .env("WAL_ARCHIVE_ENDPOINT", self.proxy.endpoint());
        command
    }

    pub fn push(&self, name: &str, args: &[&str]) -> Run {
        Run::of(self.program("wal-push").args(args).arg(format!("pg_wal/{name}")))
    }

    pub fn fetch(&self, name: &str, args: &[&str]) -> Run {
        Run::of(self.program("wal-fetch").args(args).args([name, "pg_wal/RECOVERYXLOG"]))
    }

    /// The same, by a deadline that leaves time for repeated requests.
    pub fn fetch_soon(&self, name: &str, args: &[&str]) -> Run {
        unless_late(&["8s", "60s"], |timeout| self.fetch(name, &[&["--timeout", timeout], args].concat()))
    }

    /// What requests were made since the last question: `PUT wal_005/NAME.zst`, ….
    pub fn requests(&self) -> Vec<String> {
        let prefix = format!("/{BUCKET}/archive/");
        let short = |seen: Seen| match seen.path.strip_prefix(&prefix) {
            Some(key) => format!("{} {}", seen.method, key.split('?').next().unwrap_or_default()),
            None => format!("{} list", seen.method),
        };
        self.proxy.taken().into_iter().map(short).collect()
    }
}
