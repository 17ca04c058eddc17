//! What people see at a terminal: `list`, `verify` and `window` in 80 columns and with all of them, colours, times of
//! their zone, and what is said while something takes long.

use crate::util::{CLUSTER, MIB, Sandbox, flip, segment};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};
use wal_archive::base_backup::Record;
use wal_archive::wal::SegmentSize;

/// Half of the year in CET, whatever zones this machine knows.
const BERLIN: &str = "CET-1CEST,M3.5.0,M10.5.0/3";

/// What a program prints on a terminal, to stdout or to stderr, and its code.
fn at_terminal(mut command: Command, columns: u16, of_stderr: bool) -> (Option<i32>, String) {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY;
    let terminal = openpt(flags).unwrap();
    grantpt(&terminal).unwrap();
    unlockpt(&terminal).unwrap();
    let name = ptsname(&terminal, Vec::new()).unwrap();
    let other_end = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(OpenptFlags::NOCTTY.bits() as i32)
        .open(OsStr::from_bytes(name.to_bytes()))
        .unwrap();
    let size = Winsize { ws_row: 25, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&other_end, size).unwrap();
    match of_stderr {
        true => command.stdout(Stdio::null()).stderr(other_end),
        false => command.stdout(other_end).stderr(Stdio::null()),
    };
    let mut child = command.stdin(Stdio::null()).spawn().unwrap();
    drop(command);
    let mut text = Vec::new();
    // Once nobody has the other end open the kernel answers EIO.
    let _ = File::from(terminal).read_to_end(&mut text);
    let code = child.wait().unwrap().code();
    (code, String::from_utf8(text).unwrap().replace("\r\n", "\n"))
}

fn command(sandbox: &Sandbox, args: &[&str]) -> Command {
    let mut command = sandbox.program("wal-archive");
    command.env("TZ", BERLIN).env("NO_COLOR", "1").args(args).arg("--archive").arg(sandbox.archive());
    command
}

/// What is there is of 2026-11-20 22:00 UTC.
fn touch(path: &Path) {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_212_000);
    File::options().append(true).open(path).unwrap().set_modified(time).unwrap();
}

/// Puts a backup of timeline 1 with this start into the archive.
pub fn backup(sandbox: &Sandbox, start: u64) {
    let vectors = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/backups/plain/backups");
    let from = vectors.join("20261121T130405Z-0000000002000028-1");
    let record = fs::read(from.join("backup.json")).unwrap();
    let id = "20261121T130405Z-0000000002000028-1".parse().unwrap();
    let mut record = Record::read(id, &record).unwrap();
    record.id = format!("20261120T210530Z-{start:016X}-1").parse().unwrap();
    record.segment_size = SegmentSize::new(1 << 20).unwrap();
    record.finished = SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_208_745_250);
    record.stop = format!("0/{:X}", start + 0xD8).parse().unwrap();
    let to = sandbox.archive().join("backups").join(record.id.to_string());
    fs::create_dir_all(&to).unwrap();
    for file in fs::read_dir(from).unwrap().map(Result::unwrap) {
        fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
    fs::write(to.join("backup.json"), record.write()).unwrap();
}

/// Three timelines, a hole, a damaged object, backups of ours and of others, something in quarantine, something
/// unfinished and something else's.
fn rich() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.archive_real();
    let history = "1\t0/1B6BDA0\tno recovery target specified\n2\t0/1CFE448\tno recovery target specified\n";
    sandbox.wal("00000003.history", history.as_bytes());
    sandbox.push("00000003.history", &[]).succeeds();
    for name in ["00000003000000000000001C", "00000003000000000000001D"] {
        sandbox.wal(name, &segment(name, MIB, CLUSTER, 1));
        sandbox.push(name, &[]).succeeds();
        sandbox.age(name);
    }
    flip(&sandbox.object("00000003000000000000001D"), 80_000);
    sandbox.age("00000003000000000000001D");
    backup(&sandbox, 0x0150_0028);
    backup(&sandbox, 0x01A0_0028);
    let unfinished = sandbox.archive().join("backups/20261121T010000Z-0000000001A00060-1");
    fs::create_dir(&unfinished).unwrap();
    fs::write(unfinished.join("base-00001.tar.zst"), "begun").unwrap();
    let aside = sandbox.archive().join("quarantine");
    fs::create_dir(&aside).unwrap();
    for name in ["000000010000000000000017.0123456789abcdef", "00000001000000000000001A.0123456789abcdef"] {
        fs::write(aside.join(name), "damaged").unwrap();
        touch(&aside.join(name));
    }
    fs::write(sandbox.archive().join("wal_005/notes.txt"), "mine").unwrap();
    sandbox
}

/// The same call in 80 columns and with all of them, on an archive whose name has the same length in every run.
fn screens(sandbox: &Sandbox, code: i32, args: &[&str]) -> String {
    let folder = tempfile::Builder::new().prefix("at-").rand_bytes(6).tempdir_in("/tmp").unwrap();
    let place = folder.path().join("a");
    symlink(sandbox.archive(), &place).unwrap();
    let mut shown = String::new();
    for wide in [&[][..], &["--wide"]] {
        let mut command = sandbox.program("wal-archive");
        command.env("TZ", BERLIN).env("NO_COLOR", "1").env("WAL_ARCHIVE", &place).args(args).args(wide);
        let (ended, text) = at_terminal(command, 80, false);
        assert_eq!(ended, Some(code), "{text}");
        let text = text.replace(place.to_str().unwrap(), "/mnt/wal/archive");
        if wide.is_empty() {
            let long: Vec<_> = text.lines().filter(|line| line.chars().count() > 80).collect();
            assert!(long.is_empty(), "{long:#?}");
        }
        shown += &format!("$ wal-archive {}\n{text}\n", [args, wide].concat().join(" "));
    }
    shown
}

#[test]
fn list_verify_and_window_fit_80_columns_and_have_more_where_asked() {
    let sandbox = rich();
    insta::assert_snapshot!("list", screens(&sandbox, 1, &["list"]));
    insta::assert_snapshot!("verify", screens(&sandbox, 1, &["verify"]));
    fs::remove_file(sandbox.object("00000003.history")).unwrap();
    for name in ["00000003000000000000001C", "00000003000000000000001D"] {
        fs::remove_file(sandbox.object(name)).unwrap();
    }
    insta::assert_snapshot!("window", screens(&sandbox, 0, &["window"]));
    insta::assert_snapshot!("verify-records", screens(&sandbox, 1, &["verify", "--records"]));
}

#[test]
fn damage_on_one_timeline_hides_no_window_along_another() {
    let sandbox = rich();
    let whole = "20261120T210530Z-0000000001A00028-1";
    let run = sandbox.admin("window", &["--json"]);
    let answer: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    let windows = answer["windows"].as_array().unwrap();
    let along = |backup: &str| -> Vec<u64> {
        let of = windows.iter().filter(|window| window["backup"] == backup);
        of.map(|window| window["timeline"].as_u64().unwrap()).collect()
    };
    assert_eq!((run.code, along(whole)), (Some(1), vec![1, 2]), "{run:?}");
    // The hole ends this one before any damage.
    assert_eq!(along("20261120T210530Z-0000000001500028-1"), [1, 2, 3]);
    assert_eq!(run.stderr.lines().count(), 1, "{run:?}");
    assert!(
        run.stderr.contains("along timeline 3: ") && run.stderr.contains("1D.zst\" is damaged"),
        "{run:?}"
    );
    assert!(sandbox.admin("window", &[]).stdout.contains(whole));
    // Nor in the report.
    let page = sandbox.path("report.html");
    sandbox.admin("report", &[page.to_str().unwrap()]).says(1, &["the report is in"]);
    let html = fs::read_to_string(&page).unwrap();
    for words in [
        "Recoverable to any moment from 2026-11-20 21:05:46 UTC to before 2026-11-20 21:05:53 UTC on timeline 2, ",
        "Not known is how far recovery goes along timeline 3: ",
    ] {
        assert!(html.contains(words), "{words:?} is not in {html}");
    }
    for backup in [whole, "20261120T210530Z-0000000001500028-1"] {
        assert!(html.contains(&format!("<title>base backup {backup} recovers along timeline ")), "{html}");
    }
}

#[test]
fn a_report_promises_nothing_behind_a_segment_that_it_found_damaged() {
    let sandbox = rich();
    fs::write(sandbox.object("00000002000000000000001B"), "damaged").unwrap();
    let page = sandbox.path("report.html");
    sandbox.admin("report", &["--quick", page.to_str().unwrap()]).says(1, &["the report is in"]);
    let html = fs::read_to_string(&page).unwrap();
    for words in [
        "<title>damaged: 00000002000000000000001B</title>",
        "<td>&quot;00000002000000000000001B&quot; is not</td>",
    ] {
        assert!(html.contains(words), "{words:?} is not in {html}");
    }
    assert!(!html.contains("to before 2026-11-20 21:05:53 UTC"), "{html}");
}

#[test]
fn colours_are_for_terminals_that_want_them() {
    let sandbox = rich();
    let shown = |variables: &[(&str, &str)]| {
        let mut command = command(&sandbox, &["list"]);
        command.env_remove("NO_COLOR").envs(variables.iter().copied());
        at_terminal(command, 80, false).1
    };
    let coloured = shown(&[("TERM", "xterm")]);
    assert!(coloured.contains("\x1b[31m") && coloured.contains("\x1b[32m"), "{coloured}");
    for variable in [("NO_COLOR", "1"), ("TERM", "dumb")] {
        let plain = shown(&[variable]);
        assert!(!plain.contains('\x1b') && plain.contains("timeline"), "{plain}");
    }
    // Elsewhere nothing is left out, whatever the terminal is that it was called from.
    let run = sandbox.admin("list", &[]);
    assert!(!run.stdout.contains('\x1b') && run.stdout.contains("ratio"), "{run:?}");
}

#[test]
fn progress_is_one_line_that_fits_and_is_gone_at_the_end() {
    let sandbox = rich();
    for columns in [30, 80] {
        let command = command(&sandbox, &["verify", "--backups"]);
        let (_, text) = at_terminal(command, columns, true);
        let lines: Vec<&str> = text.split("\r\x1b[K").collect();
        let fits = lines.iter().all(|line| line.chars().count() < usize::from(columns));
        assert!(fits && !text.contains('\n'), "{lines:?}");
        for phase in ["listing …", "WAL, ", "base backups, "] {
            assert!(lines.iter().any(|line| line.starts_with(phase)), "{phase}: {lines:?}");
        }
        assert_eq!(lines.last(), Some(&""));
    }
    let mut command = command(&sandbox, &["verify"]);
    command.env("TERM", "dumb");
    assert_eq!(at_terminal(command, 80, true).1, "");
    let run = sandbox.admin("verify", &[]);
    assert!(run.stderr.is_empty(), "{run:?}");
}
