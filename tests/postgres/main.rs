//! What a database administrator does, with a real PostgreSQL: archive under load, lose the
//! server, recover; and everything that can go wrong in between.
//!
//! | module | what |
//! |---|---|
//! | [`world`], [`server`], [`archive`], [`recorded`] | the harness: a scratch place, servers in it, the archive looked at from outside, a life to recover |
//! | [`recovery`] | archiving under load, recovery to the end and to a time, several destinations |
//! | [`timelines`] | promotions, `pg_rewind`, the moment of promotion |
//! | [`standby`] | standbys that live from the archive, or share it |
//! | [`holes`] | segments missing in the middle |
//! | [`absent`] | what looks like the end of the archive and is none: lost histories, half-written copies, empty archives |
//! | [`damage`] | flipped bits, another cluster's archive, a wrong option |
//! | [`outage`] | the archive gone, unmounted, or full |
//! | [`backup`] | base backups taken, restored and refused; stock tools on them |
//! | [`backup_encrypted`], [`backup_kills`] | the same into encrypted archives; killed at random moments |
//! | [`rehearse`] | restores that really run: sound, with findings, given up, killed; and that a copy does not act |
//! | [`bucket`] | a bucket as the archive, alone and beside a directory |
//! | [`verify`] | `wal-archive list` and `verify` against what was done to the archive, and against `pg_waldump` |
//! | [`check`] | `wal-archive check` on a server that is well and on one that is not |
//! | [`clusters`] | two clusters on one machine with one configuration file |
//! | [`look_ahead`] | a push that looks ahead, and the server stopped under it |
//! | [`prefetch`] | recovery from prefetched segments, prefetchers killed, process 1 of a container |
//! | [`expire`] | every kept backup recovered after the rest of the WAL is gone |
//! | [`cut`] | cut segments, histories first: promotions beside a living primary |
//! | [`crash`] | the server killed while it archives |
//! | [`encryption`] | encrypted archives: public keys only on the server that archives |
//! | [`drain`] | what a lost server, or a standby before its promotion, still holds |
//!
//! Without PostgreSQL on the machine the tests say `SKIPPED` and pass, unless
//! `WAL_ARCHIVE_REQUIRE_ALL=1` is set; the same for those that mount file systems and need root.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod archive;
#[path = "../support/json_page.rs"]
mod json_page;
#[path = "../support/prefetchers.rs"]
mod prefetchers;
mod recorded;
#[path = "../support/rng.rs"]
mod rng;
mod server;
mod world;

mod absent;
mod backup;
mod backup_encrypted;
mod backup_kills;
mod bucket;
mod check;
mod clusters;
mod crash;
mod cut;
mod damage;
mod drain;
mod encryption;
mod expire;
mod holes;
mod look_ahead;
mod metrics;
mod outage;
mod prefetch;
mod recovery;
mod rehearse;
mod standby;
mod timelines;
mod verify;
mod windows;
