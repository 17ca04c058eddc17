//! The destinations of a call: opened, looked at, and what is remembered of them at its end.
//!
//! Whatever goes to a place goes through [`Attended`], the look at its path too, so that no process
//! is begun to hang where another one does.

use crate::config::{Shown, check_shown};
use crate::failure::Failure;
use crate::host::data_directory::DataDirectory;
use crate::spool::{Post, Spool};
use crate::storage::attended::Attended;
use crate::storage::{Destination, Location, Shared};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// How long a request may take to end that nobody waits for any more.
const ENDING: Duration = Duration::from_millis(100);

/// All of them, in the order in which they are configured.
pub(super) struct Destinations(Vec<Opened>);

struct Opened {
    configured: Destination,
    storage: Arc<Attended>,
    post: Post,
}

impl Destinations {
    /// Opens them. Nothing is asked of them yet.
    pub(super) fn open(configured: &[Destination], spool: Option<&Spool>) -> Self {
        let open = |configured: &Destination| {
            let storage = configured.open();
            let post = Post::of(spool, &storage.address());
            let hanging = post.clone();
            let storage = Arc::new(Attended::new(storage, Box::new(move || hanging.holder())));
            Opened { configured: configured.clone(), storage, post }
        };
        Destinations(configured.iter().map(open).collect())
    }

    pub(super) fn shared(&self) -> Vec<Shared> {
        self.0.iter().map(|opened| Arc::clone(&opened.storage) as Shared).collect()
    }

    /// See [`crate::config::check_directories`]. A directory that does not answer, with the others in
    /// half of the time, is given up; its requests say so.
    pub(super) fn check(
        &self,
        data_directory: Option<&DataDirectory>,
        deadline: Instant,
    ) -> Result<(), Failure> {
        let left = deadline.saturating_duration_since(Instant::now());
        let at = if self.0.len() > 1 { deadline - left / 2 } else { deadline };
        let directories =
            self.0.iter().filter(|opened| matches!(opened.configured.location, Location::Directory(_)));
        let begin = |opened: &Opened| {
            let (configured, data_directory) = (opened.configured.clone(), data_directory.cloned());
            opened.storage.visit(move || Shown::of(&configured, data_directory.as_ref()))
        };
        // All at once, then one after the other.
        let visits: Vec<_> = directories.map(begin).collect();
        let shown = visits.into_iter().filter_map(|visit| match visit.and_then(|visit| visit.wait(at)) {
            Ok(shown) => shown,
            Err(error) => {
                log::debug!("{error}"); // every request to it says so again
                None
            }
        });
        check_shown(&shown.collect::<Vec<_>>())
    }

    /// At the end of the call: those that did not answer are asked last for a while, and where a
    /// request is still on its way, this process shows that it may hang there. Where it does not, it
    /// ends now, and with it what it shows.
    pub(super) fn settle(&self, spool: Option<&Spool>, now: SystemTime) {
        self.let_requests_end();
        for Opened { storage, post, .. } in self.0.iter().filter(|opened| opened.storage.was_late()) {
            if let Some(Err(error)) = spool.map(|spool| spool.remember_sick(post.address(), now)) {
                log::debug!("cannot remember a destination that does not answer: {error}");
            }
            if storage.is_busy()
                && let Err(error) = post.hold()
            {
                log::debug!("cannot show that this process may hang: {error}");
            }
        }
    }

    /// A request that nobody waits for any more ends by itself in a moment. What has not ended after
    /// that, hangs.
    fn let_requests_end(&self) {
        let at = Instant::now() + ENDING;
        while self.0.iter().any(|opened| opened.storage.is_busy()) && Instant::now() < at {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
