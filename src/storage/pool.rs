//! Memory that many threads share: counted, bounded together, and used again.
//!
//! What was used is kept, however little of it: pages that were touched before cost nothing, and an
//! allocator that was given back a large piece once (glibc's) takes the next ones from where it gives
//! nothing back to the system. Who may take more than the bound, and who waits, is the caller's.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// By how much a piece grows at a time; it begins with twice as much, and less is not kept.
pub(super) const STEP: usize = 1 << 20;

pub(super) struct Pool {
    /// Bytes that may be in use together.
    bound: usize,
    /// Bytes that are kept, those in use among them.
    kept: usize,
    state: Mutex<State>,
    /// Told whenever some is given back.
    less: Condvar,
}

struct State {
    in_use: usize,
    spare: Vec<Vec<u8>>,
}

/// Bytes that are given back to their pool at the end.
pub(super) struct Memory {
    pub(super) bytes: Vec<u8>,
    counted: usize,
    pool: &'static Pool,
}

impl Pool {
    pub(super) const fn new(bound: usize, kept: usize) -> Self {
        let state = State { in_use: 0, spare: Vec::new() };
        Pool { bound, kept, state: Mutex::new(state), less: Condvar::new() }
    }

    /// The smallest piece at hand, perhaps nothing yet, whatever is in use.
    pub(super) fn take(&'static self) -> Memory {
        let mut state = self.state();
        let bytes = state.best_for(0);
        let counted = bytes.capacity();
        state.in_use += counted;
        Memory { bytes, counted, pool: self }
    }

    /// Room for `len` bytes. Waits until others have given back enough, or everything.
    pub(super) fn wait_for(&'static self, len: usize) -> Memory {
        let full = |state: &mut State| state.in_use > 0 && state.in_use + len > self.bound;
        let mut state = self.less.wait_while(self.state(), full).unwrap_or_else(PoisonError::into_inner);
        state.in_use += len;
        let bytes = state.best_for(len);
        drop(state);
        let mut memory = Memory { bytes, counted: len, pool: self };
        memory.bytes.reserve_exact(len);
        memory
    }

    /// Counts what was made elsewhere.
    pub(super) fn adopt(&'static self, bytes: Vec<u8>) -> Memory {
        let counted = bytes.capacity();
        self.state().in_use += counted;
        Memory { bytes, counted, pool: self }
    }

    /// Whether a piece may grow within the bound.
    pub(super) fn has_room(&self) -> bool {
        self.state().in_use + STEP <= self.bound
    }

    /// Waits until a quarter of it is free, or until the moment.
    pub(super) fn wait_for_quarter(&self, until: Instant) {
        let full = |state: &mut State| state.in_use >= self.bound / 4 * 3;
        let patience = until.saturating_duration_since(Instant::now());
        drop(self.less.wait_timeout_while(self.state(), patience, full));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A poisoned lock costs no more than a wrong count of spare memory.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Of the spare pieces the smallest that suffices, else the largest.
    fn best_for(&mut self, len: usize) -> Vec<u8> {
        let fit = |index: &usize| {
            let capacity = self.spare.get(*index).map_or(0, Vec::capacity);
            (capacity < len, capacity.abs_diff(len))
        };
        let best = (0..self.spare.len()).min_by_key(fit);
        best.map_or_else(Vec::new, |index| self.spare.swap_remove(index))
    }
}

impl Memory {
    /// Makes room for more, whatever is in use. The kernel moves pieces of this size, and copies nothing.
    pub(super) fn grow(&mut self) {
        let before = self.bytes.capacity();
        self.bytes.reserve_exact(if before == 0 { 2 * STEP } else { STEP });
        let more = self.bytes.capacity() - before;
        self.counted += more;
        self.pool.state().in_use += more;
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.clear();
        let mut state = self.pool.state();
        state.in_use -= self.counted;
        let kept = state.in_use + state.spare.iter().map(Vec::capacity).sum::<usize>();
        bytes.shrink_to(self.pool.kept.saturating_sub(kept).max(STEP));
        if bytes.capacity() >= STEP {
            state.spare.push(bytes);
        }
        drop(state);
        self.pool.less.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;
    use std::time::Duration;

    const MIB: usize = 1 << 20;

    fn pool(bound: usize, kept: usize) -> &'static Pool {
        Box::leak(Box::new(Pool::new(bound, kept)))
    }

    fn spare(pool: &Pool) -> Vec<usize> {
        let mut spare: Vec<_> = pool.state().spare.iter().map(|bytes| bytes.capacity() / MIB).collect();
        spare.sort_unstable();
        spare
    }

    #[test]
    fn who_waits_for_memory_gets_it_when_others_are_done_and_a_larger_piece_goes_alone() {
        let pool = pool(4 * MIB, 4 * MIB);
        let first = pool.wait_for(9 * MIB);
        let (send, receive) = channel();
        let waiter = std::thread::spawn(move || {
            let memory = pool.wait_for(MIB);
            send.send(()).unwrap();
            memory
        });
        assert!(receive.recv_timeout(Duration::from_millis(100)).is_err(), "it waits");
        drop(first);
        receive.recv().unwrap();
        let _second = waiter.join().unwrap();
        drop(pool.wait_for(3 * MIB)); // both have room, so nobody waits
    }

    #[test]
    fn the_wait_for_free_memory_ends_when_some_is_free_and_at_its_time() {
        let pool = pool(4 * MIB, 4 * MIB);
        let held = pool.adopt(vec![1; 4 * MIB]);
        let start = Instant::now();
        pool.wait_for_quarter(start + Duration::from_millis(100));
        assert!(start.elapsed() >= Duration::from_millis(100));
        // The wait is for an hour, and the test ends.
        let waiter = std::thread::spawn(|| pool.wait_for_quarter(Instant::now() + Duration::from_secs(3600)));
        drop(held);
        waiter.join().unwrap();
    }

    #[test]
    fn what_was_used_is_used_again_and_no_more_is_kept_than_allowed() {
        let pool = pool(8 * MIB, 8 * MIB);
        let adopt = |size: usize| pool.adopt(Vec::with_capacity(size * MIB));
        drop([adopt(2), adopt(4)]);
        assert_eq!(spare(pool), [2, 4]);
        drop(adopt(16));
        assert_eq!(spare(pool), [2, 2, 4], "of a large piece what may be kept");
        drop(adopt(16));
        assert_eq!(spare(pool), [1, 2, 2, 4], "but never nothing");
        assert_eq!(pool.wait_for(3 * MIB).bytes.capacity(), 4 * MIB, "the smallest that suffices");
        assert_eq!(pool.take().bytes.capacity(), MIB, "the smallest at all");
        assert_eq!(pool.state().in_use, 0);
    }
}
