//! Lives of an archive, simulated: the machine that looks for seams by itself.
//!
//! | module | what |
//! |---|---|
//! | [`wal`], [`writer`] | WAL as a server writes it, and the proof that PostgreSQL reads it |
//! | [`step`], [`draw`], [`rng`] | what may happen, drawn by a seed |
//! | [`world`], [`node`], [`recovery`] | servers as PostgreSQL runs them: writing, archiving, streaming, promoted, restored |
//! | [`admin`] | what an administrator runs, judged |
//! | [`destination`], [`bucket`] | where the objects are, and what befalls them |
//! | [`oracle`] | what must be true, by what was acknowledged |
//! | [`programs`], [`commands`] | the library called as the programs call it, and the programs themselves |
//! | [`lives`] | a life lived; one that breaks a promise, shrunk |
//! | [`known`] | lives that once broke one |

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

#[path = "../support/wal.rs"]
mod wal;

mod admin;
mod bucket;
mod commands;
mod destination;
mod draw;
mod known;
mod lives;
mod node;
mod oracle;
mod programs;
mod recovery;
#[path = "../support/rng.rs"]
mod rng;
mod step;
mod world;
mod writer;
