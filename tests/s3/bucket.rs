//! A sandbox whose archive is a prefix of a bucket.

use crate::support::proxy::{Fate, Plan, Proxy, Seen};
use crate::support::s3::{ACCESS_KEY, BUCKET, SECRET_KEY, Server};
use crate::util::{Run, Sandbox};
use std::process::Command;

pub struct Bucket {
    pub server: Server,
    pub proxy: Proxy,
    pub sandbox: Sandbox,
}

impl Bucket {
    /// With a proxy that passes everything on.
    pub fn new() -> Option<Bucket> {
        Bucket::with(Box::new(|_| Fate::Pass))
    }

    pub fn with(plan: Plan) -> Option<Bucket> {
        let server = Server::start()?;
        let proxy = Proxy::start(server.address(), plan);
        Some(Bucket { server, proxy, sandbox: Sandbox::new() })
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
