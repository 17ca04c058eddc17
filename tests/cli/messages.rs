//! What the programs say in typical errors, word for word: the snapshots are to be read by people.
//!
//! `INSTA_UPDATE=always` writes them anew. Each scene has a sandbox of its own; paths of the sandbox and
//! numbers of processes are left out.

use crate::util::{CLUSTER, MIB, Run, Sandbox, flip, segment};
use std::fmt::Write;
use std::fs;
use std::time::{Duration, SystemTime};

const NAME: &str = "000000010000000000000002";
const LATER: &str = "000000010000000000000003";
const HISTORY: &str = "00000002.history";

/// The scenes of one program, as they are shown.
#[derive(Default)]
struct Scenes(String);

impl Scenes {
    fn add(&mut self, title: &str, sandbox: &Sandbox, run: Run) {
        let folder = sandbox.path("").display().to_string();
        let shown = |text: &str| text.replace(&folder, "/").replace(folder.trim_end_matches('/'), "");
        let code = run.code.map_or_else(|| "a signal".to_owned(), |code| code.to_string());
        writeln!(self.0, "# {title}: {code}").unwrap();
        for line in shown(&run.stderr).lines() {
            writeln!(self.0, "{line}").unwrap();
        }
        self.0.push('\n');
    }
}

fn archived(names: &[&str]) -> Sandbox {
    let sandbox = Sandbox::new();
    for name in names {
        sandbox.segment(name);
        sandbox.push(name, &[]).succeeds();
        sandbox.age(name);
    }
    sandbox
}

/// An archive with one segment of a later timeline.
fn without_its_history(name: &str) -> Sandbox {
    let sandbox = archived(&[NAME]);
    let path = sandbox.wal(name, &segment(name, MIB, CLUSTER, 1));
    assert_eq!(sandbox.push(name, &[]).code, Some(0));
    fs::remove_file(path).unwrap();
    sandbox
}

fn archive(sandbox: &Sandbox, args: &[&str]) -> Run {
    let mut command = sandbox.program("wal-archive");
    let place = |arg: &&str| match *arg {
        "ARCHIVE" => sandbox.archive().into_os_string(),
        other => other.into(),
    };
    Run::of(command.args(args.iter().map(place)))
}

#[test]
fn wal_push_says_what_is_wrong_and_what_to_do() {
    let mut scenes = Scenes::default();
    let push = |scenes: &mut Scenes, title: &str, sandbox: &Sandbox, name: &str, args: &[&str]| {
        scenes.add(title, sandbox, sandbox.push(name, args));
    };
    let sandbox = Sandbox::new();
    push(&mut scenes, "a name that is none", &sandbox, "notes.txt", &[]);
    push(&mut scenes, "an option that is none", &sandbox, NAME, &["--no-such"]);
    push(&mut scenes, "a value that is none", &sandbox, NAME, &["--timeout", "soon"]);
    push(&mut scenes, "no file", &sandbox, NAME, &[]);
    sandbox.wal(NAME, b"short");
    push(&mut scenes, "a file that is too short", &sandbox, NAME, &[]);
    sandbox.wal(NAME, &segment(NAME, MIB, CLUSTER + 1, 1));
    push(&mut scenes, "a file of another cluster", &sandbox, NAME, &[]);
    sandbox.wal(NAME, &segment(LATER, MIB, CLUSTER, 1));
    push(&mut scenes, "a segment of another name", &sandbox, NAME, &[]);
    sandbox.wal(HISTORY, b"1\tnonsense\n");
    push(&mut scenes, "a broken history", &sandbox, HISTORY, &[]);
    let run = Run::of(sandbox.program("wal-push").arg(format!("pg_wal/{NAME}")));
    scenes.add("no destination", &sandbox, run);

    let sandbox = archived(&[NAME]);
    let other = sandbox.wal(NAME, &segment(NAME, MIB, CLUSTER, 2));
    let day = SystemTime::UNIX_EPOCH + Duration::from_secs(1_764_000_000);
    fs::File::options().write(true).open(other).unwrap().set_modified(day).unwrap();
    push(&mut scenes, "other content under the name", &sandbox, NAME, &[]);
    flip(&sandbox.object(NAME), 4000);
    push(&mut scenes, "a damaged object under the name", &sandbox, NAME, &[]);

    let sandbox = Sandbox::without_archive();
    sandbox.segment(NAME);
    push(&mut scenes, "a directory that is no archive", &sandbox, NAME, &[]);
    fs::remove_dir(sandbox.archive()).unwrap();
    push(&mut scenes, "no directory", &sandbox, NAME, &[]);

    let sandbox = Sandbox::of_cluster(1);
    sandbox.make_data_directory("data", CLUSTER);
    sandbox.segment(NAME);
    push(&mut scenes, "another cluster's archive", &sandbox, NAME, &[]);

    let sandbox = without_its_history("000000020000000000000002");
    sandbox.wal(HISTORY, b"1\t0/200000\tno recovery target specified\n");
    push(&mut scenes, "another server's files of the timeline", &sandbox, HISTORY, &[]);
    let sandbox = archived(&[]);
    fs::create_dir(sandbox.data().join("pg_wal").join(NAME)).unwrap();
    push(&mut scenes, "a directory instead of a file", &sandbox, NAME, &[]);
    insta::assert_snapshot!("wal-push", scenes.0);
}

#[test]
fn wal_fetch_says_what_is_wrong_and_what_to_do() {
    let mut scenes = Scenes::default();
    let fetch = |scenes: &mut Scenes, title: &str, sandbox: &Sandbox, name: &str, args: &[&str]| {
        scenes.add(title, sandbox, sandbox.fetch(name, &[&["--timeout", "1s"], args].concat()));
    };
    let sandbox = archived(&[NAME, LATER]);
    fetch(&mut scenes, "a name that is none", &sandbox, "notes.txt", &[]);
    fetch(&mut scenes, "the end of the archive", &sandbox, "000000010000000000000004", &[]);
    fs::remove_file(sandbox.object(NAME)).unwrap();
    fetch(&mut scenes, "a hole", &sandbox, NAME, &[]);
    fetch(&mut scenes, "an accepted hole", &sandbox, NAME, &["--accept-gap", NAME]);
    flip(&sandbox.object(LATER), 4000);
    fetch(&mut scenes, "a damaged object", &sandbox, LATER, &[]);

    let sandbox = archived(&[NAME]);
    fs::rename(sandbox.object(NAME), sandbox.archive().join(format!("wal_005/{NAME}.gpg"))).unwrap();
    fetch(&mut scenes, "an encoding that is not read", &sandbox, NAME, &[]);
    sandbox.make_data_directory("data", CLUSTER + 1);
    fetch(&mut scenes, "another cluster's archive", &sandbox, LATER, &[]);

    let sandbox = Sandbox::without_archive();
    fetch(&mut scenes, "an empty directory", &sandbox, NAME, &[]);
    fetch(&mut scenes, "an empty directory, for a history", &sandbox, HISTORY, &[]);
    fs::remove_dir(sandbox.archive()).unwrap();
    fetch(&mut scenes, "no directory", &sandbox, NAME, &[]);

    let sandbox = without_its_history("000000020000000000000003");
    fetch(&mut scenes, "a lost history", &sandbox, HISTORY, &[]);
    fetch(&mut scenes, "a lost history, accepted", &sandbox, HISTORY, &["--accept-gap", HISTORY]);
    fetch(&mut scenes, "a partial segment", &sandbox, "000000010000000000000009.partial", &[]);
    fetch(&mut scenes, "an accepted file that is no name", &sandbox, NAME, &["--accept-gap", "all"]);
    insta::assert_snapshot!("wal-fetch", scenes.0);
}

#[test]
fn wal_archive_says_what_is_wrong_and_what_to_do() {
    let mut scenes = Scenes::default();
    let sandbox = archived(&[NAME, LATER]);
    let mut run = |title: &str, args: &[&str]| scenes.add(title, &sandbox, archive(&sandbox, args));
    run("no destination", &["verify"]);
    run("an unknown backup", &["verify", "--archive", "ARCHIVE", "--backup", "nightly"]);
    run(
        "an archive that is there, for another cluster",
        &["init", "--system-id", "1", "--segment-size", "1048576", "ARCHIVE"],
    );
    run("no directory", &["init", "--system-id", "1", "--segment-size", "1048576", "/no/such/place"]);
    run("no segment size", &["init", "--system-id", "1", "ARCHIVE"]);
    run("a subject that is none", &["quarantine", "--archive", "ARCHIVE", "notes.txt"]);
    run("nothing of the name", &["quarantine", "--archive", "ARCHIVE", "000000010000000000000009"]);
    run("an intact file", &["quarantine", "--archive", "ARCHIVE", NAME]);
    run("no kept backup is named", &["expire", "--archive", "ARCHIVE"]);
    run("no backup with the label", &["expire", "--archive", "ARCHIVE", "--label", "nightly"]);
    run("a target that is no archive", &["copy", "ARCHIVE", "/no/such/place"]);
    run("a source that is no archive", &["copy", "/no/such/place", "ARCHIVE"]);
    run("no folder", &["drain", "--archive", "ARCHIVE", "--wal-dir", "/no/such/place"]);
    run("a copy onto itself", &["copy", "ARCHIVE", "ARCHIVE"]);
    run("no URL", &["list", "--archive", "ftp://host/archive"]);
    run("a bucket without a name", &["list", "--archive", "s3:///wal"]);
    run("a subcommand that is none", &["validate", "--archive", "ARCHIVE"]);
    run("both depths", &["verify", "--archive", "ARCHIVE", "--quick", "--records"]);
    run(
        "a list of backups that is not there",
        &["expire", "--archive", "ARCHIVE", "--backups", "/no/such/file"],
    );
    let room = ["--free-warning", "0%", "--free-critical", "0%"];
    let check = ["check", "--archive", "ARCHIVE", "--pgdata", "/no/such/place"];
    run("no server", &[check.as_slice(), &room].concat());
    run("a gap that is none", &["verify", "--archive", "ARCHIVE", "--accept-gap", "some"]);
    insta::assert_snapshot!("wal-archive", scenes.0);
}

#[test]
fn a_configuration_that_is_wrong_is_said_by_line_and_key() {
    let mut scenes = Scenes::default();
    let sandbox = archived(&[NAME]);
    let file = sandbox.path("wal-archive.toml");
    for (title, text) in [
        ("no TOML", "archive = [\"/archive\"\nlevel = 3\n"),
        ("a key that is none", "archive = [\"/archive\"]\ncompression_level = 3\n"),
        ("a value of another type", "archive = \"/archive\"\n[push]\nlook_ahead = \"many\"\n"),
        ("a value out of range", "archive = \"/archive\"\n[push]\nlevel = 99\n"),
        ("a section that is none", "archive = \"/archive\"\n[s4]\nregion = \"x\"\n"),
        ("a destination twice", "archive = [\"/archive\", \"/archive\"]\n"),
        ("no recipient", "archive = \"/archive\"\n[encryption]\nrecipients = [\"age1qqqq\"]\n"),
        (
            "an identity file that is not there",
            "archive = \"/archive\"\n[encryption]\nidentity_file = \"/no/such/file\"\n",
        ),
        (
            "clusters and an archive",
            "archive = \"/archive\"\n[cluster.main]\npgdata = \"/data\"\narchive = \"/other\"\n",
        ),
    ] {
        fs::write(&file, text).unwrap();
        let run = Run::of(sandbox.program("wal-archive").args(["config", "--config"]).arg(&file));
        scenes.add(title, &sandbox, run);
    }
    let run = Run::of(sandbox.program("wal-archive").args(["config", "--config", "/no/such/file"]));
    scenes.add("no file", &sandbox, run);
    insta::assert_snapshot!("configuration", scenes.0);
}
