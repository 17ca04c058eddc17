//! A question to a server through `psql`, so that services, password files and every other
//! setting of libpq work as they do everywhere else.

use crate::failure::Failure;
use crate::host::detached;
use std::io::{self, Read};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

/// Runs one statement and returns what it printed. The failure is one sentence.
pub(super) fn ask(connection: &str, sql: &str, at: Instant) -> Result<String, Failure> {
    let failed =
        |what: &str, reason: &str| Failure::new((), format!("cannot ask the server: {what}{reason}"));
    let left = at.saturating_duration_since(Instant::now());
    let mut psql = Command::new("psql");
    // No start-up file, no password prompt, bare values.
    psql.args(["-X", "-w", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", connection, "-c", sql]);
    psql.env("PGAPPNAME", "wal-archive check").env("LC_ALL", "C");
    if std::env::var_os("PGCONNECT_TIMEOUT").is_none() {
        psql.env("PGCONNECT_TIMEOUT", left.as_secs().clamp(2, 10).to_string()); // libpq takes no less than 2
    }
    psql.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = psql.spawn().map_err(|error| {
        failed("psql cannot be run: ", &error.to_string())
            .hint("install PostgreSQL's client programs, and have psql in PATH")
    })?;
    let (output, errors) = match (read(child.stdout.take()), read(child.stderr.take())) {
        (Ok(output), Ok(errors)) => (output, errors),
        (Err(error), _) | (_, Err(error)) => {
            let _ = child.kill(); // it may have ended just now
            let _ = child.wait();
            return Err(failed("no thread can be started: ", &error.to_string())
                .hint("raise the number of processes that this user may have (ulimit -u)"));
        }
    };
    let Some(success) = wait(&mut child, at) else {
        return Err(failed("it did not answer in time", "")
            .hint("look at the server and the network between; --timeout gives it longer"));
    };
    let text = |printed: Receiver<Vec<u8>>| {
        String::from_utf8_lossy(&printed.recv().unwrap_or_default()).trim().to_owned()
    };
    match success {
        true => Ok(text(output)),
        false => Err(failed("", &text(errors).split_whitespace().collect::<Vec<_>>().join(" "))
            .hint("try \"psql\" with the same connection string, as the same user")),
    }
}

/// Both streams are read at once, or a full pipe would hold psql up.
fn read(stream: Option<impl Read + Send + 'static>) -> io::Result<Receiver<Vec<u8>>> {
    let (send, receive) = sync_channel(1);
    detached::spawn("psql", move || {
        let mut bytes = Vec::new();
        if let Some(stream) = stream {
            // What was read before a fault is all there is to tell.
            let _ = stream.take(1 << 20).read_to_end(&mut bytes);
        }
        let _ = send.send(bytes); // nobody waits any more
    })?;
    Ok(receive)
}

/// Whether it succeeded; `None` where it was ended because the time is over.
fn wait(child: &mut Child, at: Instant) -> Option<bool> {
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status.success()),
            Ok(None) if Instant::now() < at => thread::sleep(Duration::from_millis(10)),
            Ok(None) | Err(_) => {
                let _ = child.kill(); // it may have ended just now
                let _ = child.wait();
                return None;
            }
        }
    }
}
