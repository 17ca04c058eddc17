//! An https endpoint with a certificate of a private authority.

use crate::support::s3::{ACCESS_KEY, SECRET_KEY, Server};
use crate::util::{MIB, Run, Sandbox, init_arguments};
use std::path::Path;
use std::process::Command;

const ONE: &str = "000000010000000000000001";

/// A certificate for 127.0.0.1 that only its own file vouches for.
fn make_certificate(folder: &Path) {
    let made = Command::new("openssl")
        .current_dir(folder)
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
        ])
        .args(["-subj", "/CN=wal-archive-test", "-addext", "subjectAltName=IP:127.0.0.1"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout", "key.pem", "-out", "cert.pem"])
        .output()
        .expect("openssl");
    assert!(made.status.success(), "{made:?}");
}

#[test]
fn https_needs_a_certificate_that_is_trusted() {
    let folder = tempfile::tempdir().unwrap();
    make_certificate(folder.path());
    let sandbox = Sandbox::new();
    let bundle = sandbox.path("ca.pem");
    std::fs::copy(folder.path().join("cert.pem"), &bundle).unwrap();
    let Some(server) = Server::start_in(folder) else { return };
    if !server.is_versitygw() {
        eprintln!("moto is started without TLS; nothing to see");
        return;
    }
    let content = sandbox.segment(ONE);
    let endpoint = format!("https://{}", server.address());
    let program = |name: &str, args: &[&str]| {
        let mut command = sandbox.program(name);
        command
            .env("AWS_ACCESS_KEY_ID", ACCESS_KEY)
            .env("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
            .env("WAL_ARCHIVE", "s3://bucket/tls")
            .env("WAL_ARCHIVE_ENDPOINT", &endpoint);
        Run::of(command.args(args))
    };
    let path = format!("pg_wal/{ONE}");
    program("wal-push", &[&path]).fails(13, &["TLS", "ca_bundle", "HINT:"]);
    let bundle = bundle.to_str().unwrap();
    let init = init_arguments(MIB);
    let init = init.iter().map(|argument| argument.as_ref()).chain(["--ca-bundle", bundle]);
    program("wal-archive", &init.collect::<Vec<&str>>()).says(0, &["is now the archive"]);
    program("wal-push", &["--ca-bundle", bundle, &path]).succeeds();
    program("wal-fetch", &["--ca-bundle", bundle, ONE, "pg_wal/RECOVERYXLOG"]).succeeds();
    assert!(sandbox.fetched() == content);
    // A bundle that is none is said to be none.
    let junk = sandbox.path("junk.pem");
    for (text, word) in [("no certificate", "no PEM certificate"), ("-----BEGIN CERTIFICATE-----\nx", "PEM")]
    {
        std::fs::write(&junk, text).unwrap();
        program("wal-push", &["--ca-bundle", junk.to_str().unwrap(), &path]).fails(13, &["CA bundle", word]);
    }
    program("wal-push", &["--ca-bundle", "/no/such.pem", &path])
        .fails(13, &["/no/such.pem", "cannot be read"]);
}

#[test]
fn a_local_push_and_fetch_never_touch_tls_or_a_runtime() {
    let sandbox = Sandbox::new();
    sandbox.segment(ONE);
    let traced = |program: &str, args: &[&str]| {
        let trace = sandbox.path("trace");
        let run = Run::of(
            Command::new("strace")
                .current_dir(sandbox.data())
                .args(["-f", "-o"])
                .arg(&trace)
                .arg(program)
                .arg("--archive")
                .arg(sandbox.archive())
                .args(args),
        );
        run.succeeds();
        std::fs::read_to_string(trace).unwrap()
    };
    let push = traced(env!("CARGO_BIN_EXE_wal-push"), &[&format!("pg_wal/{ONE}")]);
    let fetch = traced(env!("CARGO_BIN_EXE_wal-fetch"), &[ONE, "pg_wal/RECOVERYXLOG"]);
    // A socket of this machine is what holds a destination where there is no spool.
    for trace in [push, fetch] {
        assert!(trace.contains(ONE));
        for sign in ["/etc/ssl", "epoll_create", "eventfd", "AF_INET", ".aws/"] {
            assert!(!trace.contains(sign), "{sign}");
        }
    }
}
