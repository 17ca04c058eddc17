//! Disks and directories as they are found: full, without modes or hard links, under two names,
//! another user's, changed by somebody meanwhile.

use crate::util::{CLUSTER, MIB, Run, Sandbox, init_arguments, is_root, names, noise, segment};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const ONE: &str = "000000010000000000000001";
const TWO: &str = "000000010000000000000002";

/// A user and group that nobody has.
const STRANGER: u32 = 54_321;

/// `wal-push` of a file under strace, with these arguments of strace's.
fn traced(sandbox: &Sandbox, name: &str, strace: &[&str]) -> Command {
    let mut command = Command::new("strace");
    command.current_dir(sandbox.data()).args(["-f", "-qq", "-o"]).arg(sandbox.path("trace")).args(strace);
    command.arg(env!("CARGO_BIN_EXE_wal-push")).arg("--archive").arg(sandbox.archive());
    command.arg(format!("pg_wal/{name}"));
    command
}

/// A small file system in memory; gone with the test.
struct Mount(PathBuf);

impl Mount {
    fn tmpfs(target: &Path, options: &str) -> Self {
        fs::create_dir_all(target).unwrap();
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(target).status();
        assert!(mount.unwrap().success());
        Mount(target.to_owned())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status(); // the test is over
    }
}

#[test]
fn a_segment_that_the_spool_has_no_room_for_is_archived_all_the_same() {
    if !is_root() {
        return;
    }
    let sandbox = Sandbox::with_segments_of(64 * MIB);
    let mut content = segment(ONE, 64 * MIB, CLUSTER, 1);
    content[64..].copy_from_slice(&noise(7, 64 * MIB - 64));
    sandbox.wal(ONE, &content);
    let _spool = Mount::tmpfs(&sandbox.path("data.wal-spool"), "size=4m,mode=0700");
    sandbox.push(ONE, &[]).succeeds();
    let object = fs::read(sandbox.object(ONE)).unwrap();
    assert!(zstd::decode_all(&object[..]).unwrap() == content);
}

#[test]
fn a_kill_in_the_middle_of_a_push_leaves_nothing_where_files_need_no_name() {
    // In memory, where the system has O_TMPFILE whatever the temporary directory is.
    let memory = tempfile::tempdir_in("/dev/shm").unwrap();
    let sandbox = Sandbox::new();
    sandbox.segment(ONE);
    let archive = memory.path().to_str().unwrap();
    let init = Run::of(sandbox.program("wal-archive").args(init_arguments(MIB)).arg(archive));
    assert_eq!(init.code, Some(0), "{init:?}");
    sandbox.push(ONE, &["--archive", archive]).succeeds();
    sandbox.segment(TWO);
    let stop = "inject=linkat:delay_enter=600s";
    let mut push = traced(&sandbox, TWO, &["-y", "-e", "trace=fsync,linkat", "-e", stop]);
    let mut push = push.args(["--archive", archive]).process_group(0).stderr(Stdio::null()).spawn().unwrap();
    let group = rustix::process::Pid::from_raw(i32::try_from(push.id()).unwrap()).unwrap();
    let written = || {
        let trace = fs::read_to_string(sandbox.path("trace")).unwrap_or_default();
        trace.lines().any(|line| line.contains("fsync(") && line.contains(archive))
    };
    while !written() {
        assert!(push.try_wait().unwrap().is_none(), "it ended before it was killed");
        std::thread::yield_now();
    }
    rustix::process::kill_process_group(group, rustix::process::Signal::KILL).unwrap();
    push.wait().unwrap();
    assert_eq!(names(&memory.path().join("wal_005")), [format!("{ONE}.zst")]);
    sandbox.push(TWO, &["--archive", archive]).succeeds();
}

#[test]
fn a_file_system_that_cannot_link_what_has_no_name_gets_a_named_file() {
    let sandbox = Sandbox::new();
    sandbox.segment(ONE);
    let run = Run::of(&mut traced(&sandbox, ONE, &["-e", "inject=linkat:error=EPERM"]));
    run.succeeds();
    assert_eq!(sandbox.objects(), [format!("{ONE}.zst")]);
}

#[test]
fn code_13_where_nothing_can_be_published_without_the_risk_of_replacing() {
    let sandbox = Sandbox::new();
    sandbox.segment(ONE);
    sandbox.push(ONE, &[]).succeeds();
    sandbox.segment(TWO);
    let inject = ["-e", "inject=linkat,link:error=EPERM", "-e", "inject=renameat2:error=EINVAL"];
    let run = Run::of(&mut traced(&sandbox, TWO, &inject));
    run.fails(13, &["neither RENAME_NOREPLACE nor hard links", "HINT: nothing can be published there"]);
    assert_eq!(sandbox.objects(), [format!("{ONE}.zst")]);
    // A directory that is closed to everybody has nothing to do with hard links.
    let closed = Run::of(&mut traced(
        &sandbox,
        TWO,
        &[
            "-P",
            sandbox.object("x").parent().unwrap().to_str().unwrap(),
            "-e",
            "inject=openat:error=EPERM:when=2+",
        ],
    ));
    let closed = closed.fails(13, &["Operation not permitted", "HINT:", "immutable"]);
    assert!(!closed.stderr.contains("hard links"), "{closed:?}");
}

#[test]
fn a_file_system_without_modes_or_fsync_of_directories_is_warned_of_once_and_used() {
    let sandbox = Sandbox::new();
    sandbox.segment(ONE);
    for errno in ["EPERM", "EOPNOTSUPP", "ENOSYS"] {
        let run = Run::of(&mut traced(&sandbox, ONE, &["-e", &format!("inject=fchmod:error={errno}")]));
        let run = run.fails(0, &["warning", "does not let modes be set"]);
        assert_eq!(run.stderr.lines().count(), 1, "{run:?}");
        fs::remove_dir_all(sandbox.archive().join("wal_005")).unwrap();
        fs::remove_dir_all(sandbox.path("data.wal-spool")).unwrap();
    }
    sandbox.push(ONE, &[]).succeeds();
    sandbox.segment(TWO);
    let folders = [sandbox.archive(), sandbox.archive().join("wal_005")];
    let only: Vec<&str> = folders.iter().flat_map(|folder| ["-P", folder.to_str().unwrap()]).collect();
    for errno in ["EINVAL", "EBADF"] {
        let inject = format!("inject=fsync:error={errno}");
        let run = Run::of(&mut traced(&sandbox, TWO, &[&only[..], &["-e", &inject]].concat()));
        let run = run.fails(0, &["warning", "cannot fsync a directory"]);
        assert_eq!(run.stderr.lines().count(), 1, "{run:?}");
        fs::remove_file(sandbox.object(TWO)).unwrap();
    }
    let run = Run::of(&mut traced(&sandbox, TWO, &[&only[..], &["-e", "inject=fsync:error=EIO"]].concat()));
    run.fails(13, &["Input/output error"]);
}

#[test]
fn root_gives_away_nothing_that_was_put_in_the_place_of_its_folder() {
    if !is_root() {
        return;
    }
    for (attacked, around) in [("archive/wal_005", "archive"), ("data.wal-spool", "")] {
        let sandbox = Sandbox::new();
        sandbox.segment(ONE);
        for owned in ["", "data", "archive"] {
            chown(sandbox.path(owned), Some(STRANGER), Some(STRANGER)).unwrap();
        }
        let victim = sandbox.path("victim");
        fs::create_dir(&victim).unwrap();
        fs::set_permissions(&victim, fs::Permissions::from_mode(0o700)).unwrap();
        let attacked = sandbox.path(attacked);
        let delay = ["-e", "trace=mkdir,mkdirat", "-e", "inject=mkdir,mkdirat:delay_exit=2s"];
        let mut push = traced(&sandbox, ONE, &delay).stderr(Stdio::null()).spawn().unwrap();
        while !attacked.exists() {
            assert!(push.try_wait().unwrap().is_none(), "it made no folder");
            std::thread::yield_now();
        }
        fs::rename(&attacked, sandbox.path(around).join("aside")).unwrap();
        symlink(&victim, &attacked).unwrap();
        push.wait().unwrap();
        let metadata = fs::metadata(&victim).unwrap();
        assert_eq!((metadata.uid(), metadata.gid(), metadata.mode() & 0o7777), (0, 0, 0o700));
    }
}

#[test]
fn what_root_leaves_in_the_spool_is_the_servers() {
    if !is_root() {
        return;
    }
    let sandbox = Sandbox::new();
    for name in [ONE, TWO] {
        sandbox.segment(name);
        fs::write(sandbox.data().join(format!("pg_wal/archive_status/{name}.ready")), "").unwrap();
    }
    let give =
        Command::new("chown").arg("-R").arg(format!("{STRANGER}:{STRANGER}")).arg(sandbox.path("")).status();
    assert!(give.unwrap().success());
    let spool = sandbox.path("data.wal-spool");
    let shared = sandbox.path("shared");
    for args in [&[][..], &["--spool-dir", shared.to_str().unwrap()]] {
        for _ in 0..2 {
            sandbox.push(ONE, args).succeeds();
        }
    }
    let everything = [walk(&spool), walk(&shared), walk(&sandbox.archive())].concat();
    assert!(everything.len() > 8, "{everything:?}");
    for path in everything {
        let metadata = fs::symlink_metadata(&path).unwrap();
        assert_eq!((metadata.uid(), metadata.gid()), (STRANGER, STRANGER), "{path:?}");
    }
}

fn walk(folder: &Path) -> Vec<PathBuf> {
    let mut found = vec![folder.to_owned()];
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(walk(&path)) } else { found.push(path) }
    }
    found
}

#[test]
fn one_directory_by_two_names_is_no_second_copy() {
    let sandbox = Sandbox::new();
    sandbox.segment(ONE);
    let link = sandbox.path("link");
    symlink(sandbox.archive(), &link).unwrap();
    let args = ["--archive", link.to_str().unwrap()];
    sandbox.push(ONE, &args).fails(2, &["are the same directory", "HINT:"]);
    sandbox.fetch(ONE, &args).fails(202, &["are the same directory"]);
    sandbox.admin("check", &args).says(2, &["are the same directory"]);
}

#[test]
fn an_archive_inside_a_pg_wal_that_lies_elsewhere_is_refused() {
    let sandbox = Sandbox::new();
    sandbox.segment(ONE);
    let (inside, wal) = (sandbox.data().join("pg_wal"), sandbox.path("wal"));
    fs::rename(&inside, &wal).unwrap();
    symlink(&wal, &inside).unwrap();
    let archive = wal.join("archive");
    fs::create_dir(&archive).unwrap();
    let args = ["--archive", archive.to_str().unwrap()];
    sandbox.push(ONE, &args).fails(2, &["lies inside the data directory", "HINT:"]);
    sandbox.fetch(ONE, &args).fails(202, &["lies inside the data directory"]);
    let check = [&args[..], &["--pgdata", "."]].concat();
    assert!(names(&archive).is_empty());
    sandbox.admin("check", &check).says(2, &["lies inside the data directory"]);
}

#[test]
fn nobody_is_told_to_remove_the_wal_of_another_server() {
    let sandbox = Sandbox::new();
    let other = sandbox.make_data_directory("other", 42);
    let path = sandbox.path("elsewhere").join(ONE);
    fs::create_dir(sandbox.path("elsewhere")).unwrap();
    fs::write(&path, segment(ONE, MIB, CLUSTER, 1)).unwrap();
    let mut push = sandbox.program("wal-push");
    push.current_dir(sandbox.path(""))
        .env("PGDATA", &other)
        .arg("--archive")
        .arg(sandbox.archive())
        .arg(path);
    let run = Run::of(&mut push).fails(11, &["42", &CLUSTER.to_string(), "other", "HINT:", "PGDATA"]);
    assert!(!run.stderr.contains("remove"), "{run:?}");
    // In its own pg_wal it is the file that is wrong.
    sandbox.wal(ONE, &segment(ONE, MIB, 42, 1));
    sandbox.push(ONE, &[]).fails(11, &["42", "HINT:", "remove it"]);
}

#[test]
fn clusters_that_share_a_spool_folder_do_not_clear_each_others_prefetched_segments() {
    let sandbox = Sandbox::new();
    sandbox.segment(ONE);
    let shared = sandbox.path("shared");
    let args = ["--spool-dir", shared.to_str().unwrap()];
    sandbox.push(ONE, &args).succeeds();
    let own = shared.join(CLUSTER.to_string());
    assert_eq!(names(&shared), [CLUSTER.to_string()]);
    let prefetched = |spool: &Path| {
        let folder = spool.join("prefetch-0123456789abcdef");
        fs::create_dir_all(&folder).unwrap();
        folder
    };
    let (ours, theirs) = (prefetched(&own), prefetched(&shared.join("42")));
    sandbox.push(ONE, &args).succeeds();
    assert!(!ours.exists() && theirs.exists());
}

#[test]
fn a_spool_that_cannot_be_had_is_a_warning_of_check_and_nothing_to_push() {
    let sandbox = Sandbox::new();
    sandbox.segment(ONE);
    fs::write(sandbox.path("data.wal-spool"), "").unwrap();
    sandbox.push(ONE, &[]).succeeds();
    // With limits of room that no machine of tests comes near.
    let pgdata = ["--pgdata", ".", "--free-warning", "1MiB", "--free-critical", "1MiB"];
    sandbox.admin("check", &pgdata).says(1, &["WARNING", "have no spool", "not a directory", "HINT:"]);
    fs::remove_file(sandbox.path("data.wal-spool")).unwrap();
    sandbox.admin("check", &pgdata).says(0, &["the spool is"]);
    assert!(!sandbox.path("data.wal-spool").exists(), "a check makes none");
    let elsewhere = sandbox.path("no/parent");
    let mut check = sandbox.program("wal-archive");
    check.env("WAL_ARCHIVE_SPOOL_DIR", elsewhere).arg("check").args(pgdata).arg("--archive");
    Run::of(check.arg(sandbox.archive())).says(1, &["WARNING", "have no spool", "No such file"]);
}

#[test]
fn an_object_from_before_1970_is_compared_like_any_other() {
    let sandbox = Sandbox::new();
    sandbox.segment(ONE);
    sandbox.push(ONE, &[]).succeeds();
    for time in ["1960-01-01T00:00:00Z", "2200-01-01T00:00:00Z"] {
        sandbox.wal(ONE, &segment(ONE, MIB, CLUSTER, 2));
        for path in [sandbox.object(ONE), sandbox.data().join("pg_wal").join(ONE)] {
            assert!(Command::new("touch").args(["-d", time]).arg(path).status().unwrap().success());
        }
        sandbox.push(ONE, &[]).fails(12, &["already", "different content"]);
    }
}

#[test]
fn threads_that_cannot_start_are_failures_of_their_destinations() {
    let sandbox = Sandbox::new();
    sandbox.segment(ONE);
    let second = sandbox.path("second");
    fs::create_dir(&second).unwrap();
    // The first three of a process look at the directories and hash; the next would store.
    let mut push = traced(&sandbox, ONE, &["-e", "inject=clone,clone3:error=EAGAIN:when=4+"]);
    let run = Run::of(push.arg("--archive").arg(&second)).fails(13, &["cannot start a thread"]);
    assert!(!run.stderr.contains("panic"), "{run:?}");
    assert_eq!(run.stderr.lines().count(), 2, "{run:?}");
}

#[test]
fn a_large_archive_is_not_read_before_the_file_is_durable() {
    let sandbox = Sandbox::new();
    sandbox.segment(ONE);
    sandbox.push(ONE, &[]).succeeds();
    fs::remove_dir_all(sandbox.path("data.wal-spool")).unwrap(); // nothing is known of today
    sandbox.segment(TWO);
    let trace = ["-y", "-e", "trace=getdents64,linkat,renameat2"];
    Run::of(&mut traced(&sandbox, TWO, &trace)).succeeds();
    let text = fs::read_to_string(sandbox.path("trace")).unwrap();
    let folder = format!("<{}>", sandbox.archive().join("wal_005").display());
    let read = text.lines().position(|line| line.contains("getdents64(") && line.contains(&folder));
    let published = text.lines().position(|line| line.contains(&format!("{TWO}.zst\"")));
    assert!(published.is_some() && published < read, "{text}");
}

/// A program in a mount namespace whose `/etc` holds nothing but what the script makes.
fn with_etc(sandbox: &Sandbox, script: &str, program: &str, args: &[&str]) -> Run {
    let script = format!("mount -t tmpfs tmpfs /etc; {script}; exec \"$0\" \"$@\"");
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-ec", &script, program, "--archive"]).arg(sandbox.archive()).args(args);
    Run::of(command.current_dir(sandbox.data()))
}

#[test]
fn only_a_configuration_file_that_is_not_there_is_none() {
    if !is_root() {
        return;
    }
    let sandbox = Sandbox::new();
    sandbox.segment(ONE);
    let fetch = [ONE, "pg_wal/RECOVERYXLOG"];
    let (push, path) = (env!("CARGO_BIN_EXE_wal-push"), format!("pg_wal/{ONE}"));
    for absent in [":", "mkdir /etc/wal-archive"] {
        with_etc(&sandbox, absent, push, &[&path]).succeeds();
    }
    for unreadable in [
        "mkdir /etc/wal-archive; ln -s /nowhere /etc/wal-archive/config.toml",
        "ln -s /nowhere /etc/wal-archive",
        "touch /etc/wal-archive",
        "mkdir -p /etc/wal-archive/config.toml",
        // Only root may look into it, and root is not who asks.
        "mkdir -m 0 /etc/wal-archive; exec setpriv --reuid=54321 --clear-groups \"$0\" \"$@\"",
    ] {
        let words = ["cannot read", "/etc/wal-archive"];
        with_etc(&sandbox, unreadable, push, &[&path]).fails(2, &words);
        with_etc(&sandbox, unreadable, env!("CARGO_BIN_EXE_wal-fetch"), &fetch).fails(202, &words);
    }
}

#[test]
fn a_server_of_another_pid_namespace_is_not_taken_for_a_dead_one() {
    if !is_root() {
        return;
    }
    let sandbox = Sandbox::new();
    let content = sandbox.segment(ONE);
    sandbox.push(ONE, &[]).succeeds();
    // A process of this test's namespace; inside there is none of that number.
    let pid = format!("{}\n/data\n1700000000\n5432\n", std::process::id());
    fs::write(sandbox.data().join("postmaster.pid"), pid).unwrap();
    let mut fetch = Command::new("unshare");
    fetch.args(["--pid", "--fork", "--mount-proc", env!("CARGO_BIN_EXE_wal-fetch"), "--archive"]);
    fetch.arg(sandbox.archive()).args([ONE, "pg_wal/RECOVERYXLOG"]).current_dir(sandbox.data());
    Run::of(&mut fetch).succeeds();
    assert!(sandbox.fetched() == content);
}
