//! What is looked at beside the recovery: the manifest, tables and indexes, the user's own statements,
//! page checksums. Each is a program of PostgreSQL's; that it finds something is a finding, that it cannot
//! work is none.

use super::copy::Control;
use super::programs::{Ran, run};
use super::{Outcome, PLACE, Request, Result};
use crate::archive::rehearsals::Flaw;
use crate::failure::Failure;
use crate::finding::Finding;
use std::fs;
use std::process::Command;

/// A statement is shown with so many characters.
const SHOWN: usize = 80;

fn unable(program: &str, ran: &Ran) -> Failure {
    Failure::new((), format!("{program} could not do its work: {}", ran.last_words()))
}

/// As it was restored, before anything is changed. The WAL is in the archive.
pub(super) fn manifest(request: &Request<'_>, outcome: &mut Outcome) -> Result<()> {
    let (scratch, data) = (request.scratch, request.scratch.data());
    if !data.join("backup_manifest").is_file() || !request.programs.has("pg_verifybackup") {
        return Ok(());
    }
    let mut command = request.programs.command("pg_verifybackup", scratch);
    // Tablespaces are elsewhere here.
    let ran = run(command.args(["-n", "-e", "-i", "tablespace_map"]).arg(&data), scratch, request.stop)?;
    outcome.checked.push("pg_verifybackup".to_owned());
    if !ran.status.success() {
        let what = format!("the restored files are not those of the backup: {}", ran.last_words());
        let finding = Finding::new(Flaw::Manifest, "backup_manifest", PLACE, what);
        outcome.findings.push(
            finding.hint("restore another backup: \"wal-archive list\" shows them, --backup names one"),
        );
    }
    Ok(())
}

/// A client of the server, as its superuser.
fn client(request: &Request<'_>, program: &str) -> Command {
    let mut command = request.programs.command(program, request.scratch);
    command.arg("-h").arg(request.scratch.run()).args(["-p", "5432", "-w", "-U", request.role]);
    command
}

pub(super) fn amcheck(request: &Request<'_>, outcome: &mut Outcome) -> Result<()> {
    if !request.amcheck {
        return Ok(());
    }
    let mut command = client(request, "pg_amcheck");
    let ran = run(command.args(["--all", "--install-missing"]), request.scratch, request.stop)?;
    match ran.status.code() {
        Some(0) => {}
        Some(2) => {
            let first: Vec<&str> =
                ran.output.lines().chain(ran.errors.lines()).take(2).map(str::trim).collect();
            let what = format!("pg_amcheck found damage: {}", first.join(" "));
            let finding = Finding::new(Flaw::Amcheck, "pg_amcheck", PLACE, what);
            outcome.findings.push(
                finding.hint("run pg_amcheck on the original, too: the backup has what the server had"),
            );
        }
        _ => {
            return Err(unable("pg_amcheck", &ran)
                .hint("--role names the superuser of this cluster, where it is not \"postgres\""));
        }
    }
    outcome.checked.push("pg_amcheck".to_owned());
    Ok(())
}

/// Each statement of the file must return no row, or rows of `t` alone.
pub(super) fn sql(request: &Request<'_>, outcome: &mut Outcome) -> Result<()> {
    let Some(file) = request.sql else { return Ok(()) };
    let log = request.scratch.root().join("statements.log");
    let mut command = client(request, "psql");
    command.args(["-X", "-t", "-d", "postgres", "-v", "ON_ERROR_STOP=1", "-o", "/dev/null", "-L"]).arg(&log);
    let ran = run(command.arg("-f").arg(file), request.scratch, request.stop)?;
    let shown = file.display().to_string();
    match ran.status.code() {
        Some(0) => {}
        // Of its script; the others are its own and the connection's.
        Some(3) => {
            let what = format!("a statement of \"{shown}\" failed: {}", ran.last_words());
            outcome.findings.push(Finding::new(Flaw::Sql, &shown, PLACE, what));
        }
        _ => {
            return Err(unable("psql", &ran)
                .hint("--role names the superuser of this cluster, where it is not \"postgres\""));
        }
    }
    let text =
        fs::read(&log).map_err(|error| Failure::new((), format!("cannot read what psql did: {error}")))?;
    let statements = statements(&String::from_utf8_lossy(&text));
    for (number, statement) in (1..).zip(&statements) {
        if !statement.holds {
            let what = format!(
                "statement {number} of \"{shown}\" returned something else than t: {}",
                statement.text
            );
            outcome.findings.push(Finding::new(Flaw::Sql, &shown, PLACE, what));
        }
    }
    let plural = if statements.len() == 1 { "" } else { "s" };
    outcome.checked.push(format!("{} statement{plural} of {shown}", statements.len()));
    Ok(())
}

struct Statement {
    text: String,
    holds: bool,
}

/// psql's log: each statement between two lines of stars, then what it returned.
fn statements(log: &str) -> Vec<Statement> {
    let mut found: Vec<Statement> = Vec::new();
    let mut within = false;
    for line in log.lines() {
        let stars = line.trim_start_matches('/').trim_end_matches('/');
        let rule = stars.starts_with("****") && stars.ends_with("****");
        match (rule, within, found.last_mut()) {
            (true, false, _) if stars.contains(" QUERY ") => {
                found.push(Statement { text: String::new(), holds: true });
                within = true;
            }
            (true, true, _) => within = false,
            (_, true, Some(statement)) => {
                let gap = if statement.text.is_empty() { "" } else { " " };
                statement.text += &format!("{gap}{}", line.trim());
            }
            (_, false, Some(statement)) if !matches!(line.trim(), "" | "t") => statement.holds = false,
            _ => {}
        }
    }
    for statement in &mut found {
        statement.text = statement.text.chars().take(SHOWN).collect();
    }
    found
}

/// After the server has ended in order.
pub(super) fn checksums(request: &Request<'_>, control: &Control, outcome: &mut Outcome) -> Result<()> {
    if !control.has_checksums || !request.programs.has("pg_checksums") {
        return Ok(());
    }
    let mut command = request.programs.command("pg_checksums", request.scratch);
    let ran =
        run(command.args(["--check", "-D"]).arg(request.scratch.data()), request.scratch, request.stop)?;
    let wrong = ran.errors.lines().filter(|line| line.contains("checksum verification failed")).count();
    if !ran.status.success() && wrong == 0 {
        return Err(unable("pg_checksums", &ran));
    }
    outcome.checked.push("pg_checksums".to_owned());
    if wrong > 0 {
        let first =
            ran.errors.lines().find(|line| line.contains("checksum verification failed")).unwrap_or_default();
        let what = format!("pg_checksums found {wrong} pages with wrong checksums, the first: {first}");
        let finding = Finding::new(Flaw::Checksums, "pg_checksums", PLACE, what);
        outcome
            .findings
            .push(finding.hint("run pg_amcheck on the original, too: the backup has what the server had"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_statement_returns_nothing_or_only_true() {
        let log = "********* QUERY **********\nselect true;\n**************************\n\n t\n\n\
            /******** QUERY *********/\nselect x\nfrom y;\n/************************/\n\n f\n\n\
            ********* QUERY **********\nselect 1 where false;\n**************************\n\n\
            ********* QUERY **********\nselect 't', 't';\n**************************\n\n t | t\n\n";
        let found: Vec<_> = statements(log).into_iter().map(|one| (one.text, one.holds)).collect();
        let expected = [
            ("select true;", true),
            ("select x from y;", false),
            ("select 1 where false;", true),
            ("select 't', 't';", false),
        ];
        assert_eq!(found, expected.map(|(text, holds)| (text.to_owned(), holds)));
    }
}
