//! `wal-archive config`, and the layers of configuration as the programs see them.

use crate::util::{Run, Sandbox};
use std::fs;
use std::os::unix::fs::PermissionsExt;

const ONE: &str = "000000010000000000000001";

fn rows(run: &Run) -> Vec<Vec<String>> {
    assert_eq!(run.code, Some(0), "{run:?}");
    let columns =
        |line: &str| line.split("  ").map(str::trim).filter(|c| !c.is_empty()).map(str::to_owned).collect();
    run.stdout.lines().map(columns).collect()
}

#[test]
fn config_shows_each_setting_and_where_it_came_from() {
    let sandbox = Sandbox::new();
    let file = sandbox.path("c.toml");
    fs::write(&file, "[push]\nlevel = 3\n[fetch]\naccept_gap = [\"000000010000000000000001\", \"000000010000000000000002\"]\n").unwrap();
    let file = file.to_str().unwrap();
    let run = Run::of(
        sandbox
            .program("wal-archive")
            .env("WAL_ARCHIVE", "/one,/two")
            .env("WAL_ARCHIVE_ON_ERROR", "retry")
            .args(["config", "--config", file, "--log-format", "json"]),
    );
    let expected: [[&str; 3]; 21] = [
        ["archive", "/one, /two", "environment WAL_ARCHIVE"],
        ["config", file, "--config"],
        ["cluster", "-", "not set"],
        ["pgdata", "-", "not set"],
        ["log_format", "json", "--log-format"],
        ["push.timeout", "-", "not set"],
        ["push.spool_dir", "-", "not set"],
        ["push.no_header_check", "false", "default"],
        ["push.level", "3", &format!("{file} (push.level)")],
        ["push.look_ahead", "32", "default"],
        ["push.jobs", "4", "default"],
        ["push.drop_cache", "false", "default"],
        ["push.client_encryption", "-", "not set"],
        ["fetch.timeout", "-", "not set"],
        ["fetch.spool_dir", "-", "not set"],
        ["fetch.no_header_check", "false", "default"],
        ["fetch.on_error", "retry", "environment WAL_ARCHIVE_ON_ERROR"],
        ["fetch.allow_empty", "false", "default"],
        [
            "fetch.accept_gap",
            "000000010000000000000001, 000000010000000000000002",
            &format!("{file} (fetch.accept_gap)"),
        ],
        ["fetch.prefetch", "8", "default"],
        ["fetch.partial", "false", "default"],
    ];
    let (s3, others): (Vec<_>, Vec<_>) = rows(&run).into_iter().partition(|row| row[0].starts_with("s3."));
    let shown: Vec<_> = others.iter().filter(|row| expected.iter().any(|one| one[0] == row[0])).collect();
    assert_eq!(shown, expected.iter().collect::<Vec<_>>());
    assert!(s3.len() >= 16, "{s3:?}");
    let (preset, unset): (Vec<_>, Vec<_>) = s3.into_iter().partition(|row| row[2] == "default");
    assert!(preset.contains(&["s3.conditional_writes", "required", "default"].map(str::to_owned).to_vec()));
    assert!(unset.iter().all(|row| row[2] == "not set"), "{unset:?}");
    assert!(run.stderr.is_empty(), "{run:?}");
}

#[test]
fn config_shows_s3_settings_and_hides_secrets() {
    let sandbox = Sandbox::new();
    let file = sandbox.path("c.toml");
    fs::write(
        &file,
        "[s3]\nsecret_access_key = \"hush\"\naccess_key_id = \"AKID\"\n\
         [[destination]]\nurl = \"s3://bucket\"\nregion = \"eu\"\nsession_token = \"hush\"\n",
    )
    .unwrap();
    let path = file.to_str().unwrap();
    let run = Run::of(
        sandbox.program("wal-archive").env("AWS_ENDPOINT", "http://x:1").args(["config", "--config", path]),
    );
    let rows = rows(&run);
    let row = |setting: &str| rows.iter().find(|row| row[0] == setting).unwrap()[1..].to_vec();
    assert_eq!(row("s3.endpoint"), ["http://x:1", "environment AWS_ENDPOINT"]);
    assert_eq!(row("s3.secret_access_key"), ["********", &format!("{path} (s3.secret_access_key)")]);
    assert_eq!(row("destination 1: region"), ["eu", &format!("{path} (destination 1: region)")]);
    assert_eq!(row("destination 1: session_token")[0], "********");
    assert!(!run.stdout.contains("hush") && !run.stdout.contains("AKID"), "{run:?}");
}

#[test]
fn passwords_in_urls_are_hidden_wherever_they_are_shown() {
    let sandbox = Sandbox::new();
    let run = |proxy: &str, args: &[&str]| {
        Run::of(
            sandbox
                .program("wal-archive")
                .env("WAL_ARCHIVE", "s3://bucket")
                .env("WAL_ARCHIVE_ENDPOINT", "https://me:hush@store:1")
                .env("WAL_ARCHIVE_PROXY", proxy)
                .args(args),
        )
    };
    for args in [&["config"][..], &["config", "--json"], &["config", "--check"], &["list", "--timeout", "1s"]]
    {
        let run = run("http://me:hush@127.0.0.1:9", args);
        assert!(!run.stdout.contains("hush") && !run.stderr.contains("hush"), "{run:?}");
    }
    let shown = run("http://me:hush@127.0.0.1:9", &["config"]).stdout;
    assert!(
        shown.contains("http://********@127.0.0.1:9") && shown.contains("https://********@store:1"),
        "{shown}"
    );
    let wrong = run("ftp://me:hush@127.0.0.1:9", &["config"]);
    assert!(wrong.code == Some(2) && !wrong.stderr.contains("hush"), "{wrong:?}");
}

#[test]
fn secrets_that_others_can_read_are_pointed_out() {
    let sandbox = Sandbox::new();
    let file = sandbox.path("c.toml");
    let config = |mode: u32, text: &str| {
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        let run =
            Run::of(sandbox.program("wal-archive").args(["config", "--config", file.to_str().unwrap()]));
        assert_eq!(run.code, Some(0), "{run:?}");
        run.stderr
    };
    let keys = "archive = \"/a\"\n[s3]\naccess_key_id = \"AKID\"\nsecret_access_key = \"hush\"\n";
    let said = config(0o644, keys);
    assert!(
        said.contains("holds secrets") && said.contains("HINT: chmod 0600") && !said.contains("hush"),
        "{said}"
    );
    assert_eq!(config(0o600, keys), "");
    // As PostgreSQL has it for key files: the group may read what is root's.
    assert_eq!(config(0o640, keys).is_empty(), rustix::process::geteuid().is_root());
    assert!(
        config(0o644, "archive = \"/a\"\n[s3]\nproxy = \"http://me:hush@x:1\"\n").contains("holds secrets")
    );
    assert_eq!(config(0o644, "archive = \"/a\"\n[s3]\nregion = \"eu\"\n"), "");
}

#[test]
fn config_is_json_where_asked() {
    let sandbox = Sandbox::new();
    let run = Run::of(sandbox.program("wal-archive").args([
        "config",
        "--json",
        "--archive",
        "/a",
        "--archive",
        "/b",
    ]));
    let answer: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    let rows = &answer["settings"];
    assert_eq!(
        rows[0],
        serde_json::json!({"setting": "archive", "values": ["/a", "/b"], "from": "--archive"})
    );
}

#[test]
fn config_fails_with_2_where_the_settings_cannot_be_used() {
    let sandbox = Sandbox::new();
    let run = |args: &[&str], variables: &[(&str, &str)]| {
        let run = Run::of(sandbox.program("wal-archive").args(args).envs(variables.iter().copied()));
        assert_eq!(run.code, Some(2), "{run:?}");
        run.stderr
    };
    assert!(run(&[], &[]).contains("HINT:"));
    assert!(run(&["config"], &[]).contains("no archive is named"));
    assert!(run(&["config", "--archive", "x"], &[]).contains("not an absolute path"));
    assert!(
        run(&["config", "--archive", "/x"], &[("WAL_ARCHIVE_LEVEL", "a lot")]).contains("WAL_ARCHIVE_LEVEL")
    );
    assert!(run(&["no-such"], &[]).contains("no-such"));
}

#[test]
fn config_checks_the_settings_and_the_files_they_name() {
    let sandbox = Sandbox::without_archive();
    let archive = sandbox.archive();
    let check = |args: &[&str], variables: &[(&str, &str)]| {
        Run::of(
            sandbox
                .program("wal-archive")
                .args(["config", "--check"])
                .args(args)
                .envs(variables.iter().copied()),
        )
    };
    let path = archive.to_str().unwrap();
    let run = check(&["--archive", path, "--archive", "s3://bucket"], &[]);
    assert!(
        run.code == Some(0) && run.stdout.contains("wal-archive check") && run.stderr.is_empty(),
        "{run:?}"
    );
    assert!(fs::read_dir(&archive).unwrap().next().is_none(), "nothing is written");
    check(&["--archive", "/nonexistent/archive"], &[])
        .fails(2, &["/nonexistent/archive", "is not there", "HINT:"]);
    check(&["--archive", path], &[("WAL_ARCHIVE_LEVEL", "a lot")]).fails(2, &["WAL_ARCHIVE_LEVEL"]);
    check(&["--archive", "s3://bucket", "--ca-bundle", "/nonexistent/ca.pem"], &[])
        .fails(2, &["CA bundle", "ca.pem"]);
    let inside = sandbox.data().join("archive");
    fs::create_dir(&inside).unwrap();
    check(&["--archive", inside.to_str().unwrap()], &[("PGDATA", sandbox.data().to_str().unwrap())])
        .fails(2, &["inside the data directory"]);
    // Root may use what nobody else may.
    if !rustix::process::geteuid().is_root() {
        fs::set_permissions(&archive, fs::Permissions::from_mode(0o500)).unwrap();
        check(&["--archive", path], &[]).fails(2, &["is not this user's to use", "HINT:"]);
    }
}

#[test]
fn a_variable_that_means_nothing_is_pointed_out() {
    let sandbox = Sandbox::new();
    let run = Run::of(
        sandbox.program("wal-archive").env("WAL_ARCHIVE", "/a").env("WAL_ARCHIVE_TIMOUT", "1s").arg("config"),
    );
    assert!(run.code == Some(0) && run.stderr.contains("WAL_ARCHIVE_TIMOUT"), "{run:?}");
}

#[test]
fn the_programs_take_the_file_the_environment_and_wal_gs_variables() {
    let sandbox = Sandbox::new();
    sandbox.segment(ONE);
    let archive = sandbox.archive();
    let file = sandbox.path("c.toml");
    fs::write(&file, format!("[[destination]]\nurl = \"file://{}\"\n", archive.display())).unwrap();
    let push = |variable: &str, value: &str| {
        Run::of(sandbox.program("wal-push").env(variable, value).arg(format!("pg_wal/{ONE}")))
    };
    let path = archive.to_str().unwrap();
    push("WAL_ARCHIVE_CONFIG", file.to_str().unwrap()).succeeds();
    push("WAL_ARCHIVE", path).succeeds();
    push("WALG_FILE_PREFIX", path).succeeds();
    push("WALG_S3_PREFIX", "s3:///prefix").fails(2, &["WALG_S3_PREFIX", "names no bucket", "HINT:"]);
    let fetch = Run::of(
        sandbox.program("wal-fetch").env("WALG_FILE_PREFIX", path).args([ONE, "pg_wal/RECOVERYXLOG"]),
    );
    fetch.succeeds();
}

#[test]
fn wal_gs_encryption_is_never_silently_dropped() {
    let sandbox = Sandbox::new();
    sandbox.segment(ONE);
    let push = |config: &[&str]| {
        Run::of(
            sandbox
                .program("wal-push")
                .env("WALG_FILE_PREFIX", sandbox.archive())
                .env("WALG_LIBSODIUM_KEY", "s3cr3t-key-material")
                .args(config)
                .arg(format!("pg_wal/{ONE}")),
        )
    };
    let run = push(&[]).fails(2, &["WALG_LIBSODIUM_KEY", "HINT:", "client_encryption"]);
    assert!(!run.stderr.contains("s3cr3t"), "{run:?}");
    let file = sandbox.path("c.toml");
    fs::write(&file, "[push]\nclient_encryption = \"none\"\n").unwrap();
    push(&["--config", file.to_str().unwrap()]).succeeds();
}
