//! The same work for several things at once.

use std::thread::{Builder, ScopedJoinHandle};

/// Does the work for every item, each in a thread of its own, and answers in their order. What
/// gets no thread, because the system has none left, is done here.
pub fn side_by_side<'a, T: Sync, R: Send>(items: &'a [T], work: impl Fn(&'a T) -> R + Sync) -> Vec<R> {
    let work = &work;
    if let [only] = items {
        return vec![work(only)];
    }
    std::thread::scope(|scope| {
        let started: Vec<_> =
            items.iter().map(|item| (item, Builder::new().spawn_scoped(scope, move || work(item)))).collect();
        let finish = |(item, thread): (&'a T, std::io::Result<ScopedJoinHandle<'_, R>>)| match thread {
            Ok(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            Err(error) => {
                log::debug!("cannot start a thread: {error}");
                work(item)
            }
        };
        started.into_iter().map(finish).collect()
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
