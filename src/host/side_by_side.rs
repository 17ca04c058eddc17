//! The same work for several things at once.

use std::thread::{Builder, Scope, ScopedJoinHandle};

/// Work that was begun beside this thread, or that waits for it.
pub enum Beside<'scope, T, F> {
    /// In a thread of its own.
    Thread(ScopedJoinHandle<'scope, T>),
    /// The system has no thread left.
    Here(F),
}

/// Begins work in a thread of its own. Where the system has none left, it is done at its
/// [`end`](Beside::end), by whoever waits for it.
pub fn beside<'scope, T: Send + 'scope, F>(scope: &'scope Scope<'scope, '_>, work: F) -> Beside<'scope, T, F>
where
    F: FnOnce() -> T + Clone + Send + 'scope,
{
    match Builder::new().spawn_scoped(scope, work.clone()) {
        Ok(thread) => Beside::Thread(thread),
        Err(error) => {
            log::debug!("cannot start a thread: {error}");
            Beside::Here(work)
        }
    }
}

impl<T, F: FnOnce() -> T> Beside<'_, T, F> {
    /// What came of it; a panic of its thread is passed on.
    pub fn end(self) -> T {
        match self {
            Beside::Thread(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            Beside::Here(work) => work(),
        }
    }
}

/// Does the work for every item, each in a thread of its own, and answers in their order. What
/// gets no thread is done here.
pub fn side_by_side<'a, T: Sync, R: Send>(items: &'a [T], work: impl Fn(&'a T) -> R + Sync) -> Vec<R> {
    let work = &work;
    if let [only] = items {
        return vec![work(only)];
    }
    std::thread::scope(|scope| {
        let begun: Vec<_> = items.iter().map(|item| beside(scope, move || work(item))).collect();
        begun.into_iter().map(Beside::end).collect()
    })
}

/// Does the work in so many threads at once, this one included, or in as many as the system has:
/// each takes its share from what all see.
pub fn by_many(threads: usize, work: impl Fn() + Sync) {
    let work = &work;
    std::thread::scope(|scope| {
        let others: Vec<_> =
            (1..threads).map_while(|_| Builder::new().spawn_scoped(scope, work).ok()).collect();
        work();
        for other in others {
            other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_come_in_the_order_of_the_items() {
        let barrier = std::sync::Barrier::new(3);
        let work = |item: &u32| {
            barrier.wait(); // all at once, or never
            item * 2
        };
        assert_eq!(side_by_side(&[3, 1, 2], work), [6, 2, 4]);
        assert_eq!(side_by_side(&[7], |item| *item), [7]);
        assert!(side_by_side(&[], |item: &u32| *item).is_empty());
    }

    #[test]
    fn what_gets_no_thread_is_done_by_whoever_waits_for_it() {
        let own = std::thread::current().id();
        let work = || std::thread::current().id();
        assert_eq!(Beside::Here(work).end(), own);
        std::thread::scope(|scope| assert_ne!(beside(scope, work).end(), own));
    }

    #[test]
    fn the_work_of_many_is_done_by_as_many_and_by_at_least_one() {
        for threads in [0, 1, 3] {
            let barrier = std::sync::Barrier::new(threads.max(1));
            let begun = std::sync::atomic::AtomicUsize::new(0);
            by_many(threads, || {
                barrier.wait();
                begun.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            });
            assert_eq!(begun.into_inner(), threads.max(1));
        }
    }
}
