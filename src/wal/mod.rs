//! PostgreSQL's write-ahead log as bytes and names: pure, no file system, clock or environment.
//!
//! Knows: addresses ([`Lsn`]), segment sizes, the four kinds of file names, the first page of a
//! segment, every page and record of a row of segments, timeline history and backup history files,
//! the control file, which timeline serves which segment. Does not know: compression, storage,
//! what to do about a file that is wrong.

pub mod branch;
pub mod control;
pub mod history;
pub mod lsn;
pub mod name;
pub mod page;
pub mod records;

pub use branch::Branch;
pub use control::{ControlFile, Limits};
pub use history::{BackupHistory, TimelineHistory};
pub use lsn::{Lsn, SegmentSize};
pub use name::{SegmentName, Timeline, WalName};
pub use page::{FirstPage, SystemId};
pub use records::{Mark, Start, Stop, Walk, Walker};
