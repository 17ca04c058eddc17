//! The machine that a server runs on: files, directories, threads. Nothing of archives.
//!
//! | module | what |
//! |---|---|
//! | [`durable`] | file primitives that survive a crash |
//! | [`stamp`] | what tells a file from every other one, and from itself after a change |
//! | [`side_by_side`] | the same work for several things at once |
//! | [`detached`] | threads that nobody joins |
//! | [`data_directory`] | what a data directory says of its cluster |
//! | [`identities`] | private keys |
//! | [`target`] | the path that a fetched file goes to |

pub mod detached;
pub mod durable;
pub mod side_by_side;
pub mod stamp;

pub mod data_directory;

pub mod identities;

pub mod target;
