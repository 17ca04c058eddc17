//! Threads that nobody joins: what they do may hang in the kernel, or outlives its use.
//!
//! To drop the handle of a thread that ends just then is not safe with glibc (2.36, nptl/pthread_detach.c): once
//! the thread may free its own descriptor, `pthread_detach` reads it again. If another thread has it by
//! then, and has ended, that one's is freed before it is joined; to join it fails, or waits for a third
//! thread. So these are detached before their work begins.

use std::io;
use std::sync::mpsc;
use std::thread::{Builder, Scope};

/// Runs the work in a thread of its own.
#[expect(clippy::disallowed_methods, reason = "detached before the work begins")]
pub fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let (detached, begin) = mpsc::channel::<()>();
    let thread = Builder::new().name(name.to_owned()).spawn(move || {
        let _ = begin.recv(); // its other end is dropped, and that is the sign
        work();
    })?;
    drop(thread);
    drop(detached);
    Ok(())
}

/// The same, in a scope that waits for its end.
pub fn spawn_scoped<'scope>(
    scope: &'scope Scope<'scope, '_>,
    work: impl FnOnce() + Send + 'scope,
) -> io::Result<()> {
    let (detached, begin) = mpsc::channel::<()>();
    let thread = Builder::new().spawn_scoped(scope, move || {
        let _ = begin.recv(); // as above
        work();
    })?;
    drop(thread);
    drop(detached);
    Ok(())
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
