//! What the programs say of themselves, and of their exit codes.

use crate::util::{Run, Sandbox};
use std::process::Command;

fn run(args: &[&str]) -> Run {
    let (program, args) = args.split_first().unwrap();
    Run::of(Sandbox::new().program(program).args(args))
}

/// Each program, and each command of `wal-archive`.
fn all() -> Vec<Vec<String>> {
    let shown = run(&["wal-archive"]).stdout;
    let commands = shown.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let names = commands.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names = names.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help");
    let of = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    let mut all: Vec<Vec<String>> = names.map(|name| of(&["wal-archive", name])).collect();
    assert!(all.len() >= 14, "{shown}");
    all.extend([of(&["wal-push"]), of(&["wal-fetch"]), of(&["wal-archive"])]);
    all
}

fn help(of: &[String], flag: &str) -> String {
    let args: Vec<&str> = of.iter().map(String::as_str).chain([flag]).collect();
    let run = run(&args);
    assert!(run.code == Some(0) && run.stderr.is_empty(), "{run:?}");
    run.stdout
}

#[test]
fn no_help_has_a_line_of_more_than_80_columns() {
    for of in all() {
        for flag in ["-h", "--help", "--help-s3"] {
            for line in help(&of, flag).lines() {
                assert!(line.chars().count() <= 80, "{of:?} {flag}: {line}");
            }
        }
    }
}

#[test]
fn a_commands_own_options_come_first_and_those_of_s3_only_where_they_are_asked_for() {
    for of in all() {
        let [short, long, everything] = ["-h", "--help", "--help-s3"].map(|flag| help(&of, flag));
        let common = long.find("\nCommon options:\n").unwrap();
        if let Some(own) = long.find("\nOptions:\n") {
            assert!(own < common, "{long}");
        }
        assert!(long.find("--archive ").unwrap() > common, "{long}");
        assert!(!short.contains("--endpoint") && !long.contains("--endpoint"), "{long}");
        assert!(everything.find("--endpoint").unwrap() > everything.find("\nOptions for S3:\n").unwrap());
        assert!(!short.contains("Exit codes:") && everything.len() > long.len() && long.len() > short.len());
        if of != ["wal-archive"] {
            assert!(long.contains("\nExit codes:\n       0  "), "{long}");
            assert!(long.contains("\nExamples:\n") || long.contains("postgresql.conf"), "{long}");
        }
    }
    let asked = run(&["wal-archive", "help", "verify"]).stdout;
    assert_eq!(asked, help(&["wal-archive".to_owned(), "verify".to_owned()], "--help"));
}

#[test]
fn without_a_command_the_help_is_shown_and_that_is_no_success() {
    let run = run(&["wal-archive"]);
    assert!(run.code == Some(2) && run.stdout.contains("\nCommands:\n"), "{run:?}");
    assert!(run.stderr.contains("no command is named HINT: "), "{run:?}");
}

#[test]
fn a_misspelt_word_is_answered_with_the_one_that_was_meant() {
    run(&["wal-archive", "verfy"]).fails(2, &["'verfy'", "did you mean \"verify\"?"]);
    run(&["wal-archive", "verify", "--quik"])
        .fails(2, &["did you mean \"--quick\"?", "wal-archive verify --help"]);
    run(&["wal-archive", "check", "--rights", "fetc"]).fails(3, &["did you mean \"fetch\"?"]);
    run(&["wal-push", "--timout", "1s", "x"]).fails(2, &["did you mean \"--timeout\"?"]);
    run(&["wal-fetch", "--arhcive", "/a", "x", "y"]).fails(202, &["did you mean \"--archive\"?"]);
}

#[test]
fn on_a_terminal_the_hint_begins_a_line_of_its_own() {
    let call = concat!(env!("CARGO_BIN_EXE_wal-archive"), " verfy");
    let run = Run::of(Command::new("script").args(["-qec", call, "/dev/null"]));
    assert!(run.stdout.contains("'verfy'\r\nHINT: did you mean"), "{run:?}");
}

#[test]
fn explain_says_of_each_program_what_a_code_means_and_what_to_do() {
    let run_of = |code: &str| run(&["wal-archive", "explain", code]);
    let hole = run_of("224").says(0, &["wal-fetch 24 / 224: a hole"]);
    assert!(hole.stdout.contains("\n    do: bring the file") && hole.stderr.is_empty(), "{hole:?}");
    assert_eq!(hole.stdout, run_of("24").stdout);
    let two = run_of("2").says(0, &["wal-push 2: "]).says(0, &["wal-archive check 2: critical"]);
    assert!(two.stdout.lines().all(|line| line.chars().count() <= 80), "{two:?}");
    run_of("127").fails(2, &["no program of wal-archive ends with 127", "HINT: 126 and 127 are the shell's"]);
    run_of("300").fails(2, &["300"]);
}
