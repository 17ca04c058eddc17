//! Threads that nobody joins: what they do may hang in the kernel, or outlives its use.
//!
//! To drop the handle of a thread that ends just then is not safe with glibc (2.36, nptl/pthread_detach.c): once
//! the thread may free its own descriptor, `pthread_detach` reads it again. If another thread has it by
//! then, and has ended, that one's is freed before it is joined; to join it fails, or waits for a third
//! thread. So these are detached before their work begins.

use std::io;
use std::sync::mpsc::{self, Sender};
use std::thread::{Builder, Scope};

/// Runs the work in a thread of its own.
#[expect(clippy::disallowed_methods, reason = "detached before the work begins")]
pub fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let (held, work) = held_back(work);
    drop(Builder::new().name(name.to_owned()).spawn(work)?);
    drop(held);
    Ok(())
}

/// The same, in a scope that waits for its end.
pub fn spawn_scoped<'scope>(
    scope: &'scope Scope<'scope, '_>,
    work: impl FnOnce() + Send + 'scope,
) -> io::Result<()> {
    let (held, work) = held_back(work);
    drop(Builder::new().spawn_scoped(scope, work)?);
    drop(held);
    Ok(())
}

/// The work, which begins once what comes with it is dropped.
fn held_back<F: FnOnce()>(work: F) -> (Sender<()>, impl FnOnce()) {
    let (held, begin) = mpsc::channel();
    let work = move || {
        let _ = begin.recv(); // nothing is ever sent
        work();
    };
    (held, work)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn what_nobody_joins_is_done() {
        let (told, tells) = mpsc::channel();
        let name = || std::thread::current().name().map(str::to_owned);
        spawn("alone", move || told.send(name()).unwrap()).unwrap();
        assert_eq!(tells.recv().unwrap().as_deref(), Some("alone"));

        let count = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..5 {
                let add = || {
                    count.fetch_add(1, Ordering::Relaxed);
                };
                spawn_scoped(scope, add).unwrap();
            }
        });
        assert_eq!(count.into_inner(), 5, "the scope waits for them");
    }
}
