//! The bytes of an object to create: written once, read as often as destinations and retries need.
//!
//! However many files are on their way at once, those that look ahead take only the memory that
//! others leave: what is urgent must not need a temporary file on a full disk because of them.

use super::pool::{Memory, Pool, STEP};
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// What stays in memory of one body; the rest goes to a temporary file.
pub const IN_MEMORY: usize = 32 << 20;

/// What bodies may have together, as far as they can wait.
const TOGETHER: usize = 38 << 20;

/// What is written to a file at once.
const PIECE: usize = 1 << 20;

static POOL: Pool = Pool::new(TOGETHER, TOGETHER);

/// Waits until bodies leave a quarter of the memory free, or until the moment: for whoever can
/// wait before it begins another body.
pub fn wait_for_room(until: Instant) {
    POOL.wait_for_quarter(until);
}

/// A replayable body of known length. Cloning shares the bytes.
#[derive(Clone)]
pub struct Body {
    memory: Arc<Memory>,
    rest: Option<Arc<File>>,
    len: u64,
}

impl Body {
    /// Length in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All of it, where it is in memory.
    pub fn in_memory(&self) -> Option<&[u8]> {
        self.rest.is_none().then_some(&self.memory.bytes)
    }

    /// A new reader from the first byte; readers do not disturb each other.
    pub fn reader(&self) -> BodyReader {
        BodyReader { body: self.clone(), position: 0 }
    }

    /// Writes all of it, in pieces for which the page cache finds pages that were used before.
    pub fn write_to(&self, output: &mut impl Write) -> io::Result<()> {
        self.memory.bytes.chunks(PIECE).try_for_each(|piece| output.write_all(piece))?;
        if self.rest.is_some() {
            let mut rest = BodyReader { body: self.clone(), position: self.memory.bytes.len() as u64 };
            io::copy(&mut rest, output)?;
        }
        Ok(())
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        let len = bytes.len() as u64;
        Body { memory: Arc::new(POOL.adopt(bytes)), rest: None, len }
    }
}

/// Reads a [`Body`].
pub struct BodyReader {
    body: Body,
    position: u64,
}

impl Read for BodyReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let in_memory = &self.body.memory.bytes;
        let at = usize::try_from(self.position).map_err(io::Error::other)?;
        let read = match (in_memory.get(at..).unwrap_or_default(), &self.body.rest) {
            ([], Some(file)) => file.read_at(buffer, self.position - in_memory.len() as u64)?,
            (mut left, _) => left.read(buffer)?,
        };
        self.position += read as u64;
        Ok(read)
    }
}

/// Where the rest of a large body may be kept: one full disk is no reason not to archive.
pub fn overflow_folders(first: Option<&Path>) -> Vec<PathBuf> {
    let temporary = [std::env::temp_dir(), PathBuf::from("/var/tmp"), PathBuf::from("/tmp")];
    let mut folders: Vec<PathBuf> = Vec::new();
    for folder in first.map(Path::to_owned).into_iter().chain(temporary) {
        if !folders.contains(&folder) {
            folders.push(folder);
        }
    }
    folders
}

/// Collects a [`Body`]: as much as there is room for in memory, the rest in a temporary file
/// without a name, which the system removes whatever becomes of this process. Where its disk is
/// full, the file is moved to the next folder.
pub struct BodyWriter {
    pool: &'static Pool,
    memory: Memory,
    rest: Option<File>,
    /// Those that were not tried yet.
    folders: std::vec::IntoIter<PathBuf>,
    sharing: bool,
    len: u64,
}

impl BodyWriter {
    /// `folders`: where the temporary file may stand, in this order.
    pub fn new(folders: Vec<PathBuf>) -> Self {
        BodyWriter::in_pool(&POOL, folders)
    }

    /// The same for a body that can wait: it takes only the memory that others leave.
    pub fn sharing(folders: Vec<PathBuf>) -> Self {
        BodyWriter { sharing: true, ..BodyWriter::new(folders) }
    }

    fn in_pool(pool: &'static Pool, folders: Vec<PathBuf>) -> Self {
        let (memory, folders) = (pool.take(), folders.into_iter());
        BodyWriter { pool, memory, rest: None, folders, sharing: false, len: 0 }
    }

    /// The body of what was written.
    pub fn finish(self) -> Body {
        Body { memory: Arc::new(self.memory), rest: self.rest.map(Arc::new), len: self.len }
    }

    /// The body of what was written, behind this header.
    pub fn finish_behind(mut self, header: &[u8]) -> Body {
        let bytes = &self.memory.bytes;
        if bytes.capacity() - bytes.len() < header.len() {
            self.memory.grow();
        }
        self.memory.bytes.splice(0..0, header.iter().copied());
        self.len += header.len() as u64;
        self.finish()
    }

    /// Makes room for more: in memory, or in the file.
    fn grow(&mut self) -> io::Result<()> {
        let room = !self.sharing || self.pool.has_room();
        if room && self.memory.bytes.capacity() + STEP <= IN_MEMORY {
            self.memory.grow();
            return Ok(());
        }
        self.move_on(io::Error::other("no folder for large bodies"))
    }

    /// Begins the file in the next folder that takes all of it so far; else the last reason why
    /// none did, at first the one given.
    fn move_on(&mut self, mut reason: io::Error) -> io::Result<()> {
        while let Some(folder) = self.folders.next() {
            match self.moved_to(&folder) {
                Ok(file) => {
                    self.rest = Some(file);
                    return Ok(());
                }
                Err(error) => {
                    log::debug!("no room for a large body in \"{}\": {error}", folder.display());
                    reason = error;
                }
            }
        }
        Err(reason)
    }

    fn moved_to(&self, folder: &Path) -> io::Result<File> {
        let mut file = tempfile::tempfile_in(folder)?;
        if let Some(mut rest) = self.rest.as_ref() {
            rest.rewind()?;
            io::copy(&mut rest, &mut file)?;
        }
        Ok(file)
    }

    fn write_to_rest(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            let Some(rest) = &mut self.rest else { return Err(io::ErrorKind::NotFound.into()) };
            match rest.write(bytes) {
                Err(error) if is_full(&error) => self.move_on(error)?,
                other => return other,
            }
        }
    }
}

/// Whether another file system may have what this one lacks.
fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind as Io;
    matches!(error.kind(), Io::StorageFull | Io::QuotaExceeded | Io::FileTooLarge)
}

impl Write for BodyWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.rest.is_none() && self.memory.bytes.len() == self.memory.bytes.capacity() {
            self.grow()?;
        }
        let written = if self.rest.is_some() {
            self.write_to_rest(bytes)?
        } else {
            let memory = &mut self.memory.bytes;
            let piece = bytes.get(..memory.capacity() - memory.len()).unwrap_or(bytes);
            memory.extend_from_slice(piece);
            piece.len()
        };
        self.len += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(len: usize) -> Vec<u8> {
        (0..len).map(|i| ((i * 7) >> 4) as u8).collect()
    }

    #[test]
    fn a_body_reads_back_as_often_as_asked_from_memory_and_from_disk() {
        let folder = tempfile::tempdir().unwrap();
        for len in [0, 1, STEP - 1, STEP, STEP + 1, IN_MEMORY, IN_MEMORY + 1, IN_MEMORY + 3 * STEP] {
            let data = noise(len);
            let mut writer = BodyWriter::new(vec!["/nonexistent".into(), folder.path().into()]);
            for piece in data.chunks(100_003) {
                writer.write_all(piece).unwrap();
            }
            let body = writer.finish();
            assert_eq!(body.len(), len as u64);
            for _ in 0..2 {
                let mut back = Vec::new();
                body.reader().read_to_end(&mut back).unwrap();
                assert!(back == data, "{len} bytes");
            }
            let mut written = Vec::new();
            body.write_to(&mut written).unwrap();
            assert!(written == data, "{len} bytes");
            assert_eq!(body.rest.is_some(), len > IN_MEMORY);
            assert_eq!(body.in_memory().map(<[u8]>::len), (len <= IN_MEMORY).then_some(len));
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        }
    }

    #[test]
    fn a_header_comes_before_what_was_written_wherever_that_is() {
        let folder = tempfile::tempdir().unwrap();
        for len in [0, 1, 2 * STEP, IN_MEMORY, IN_MEMORY + STEP] {
            let mut writer = BodyWriter::new(vec![folder.path().into()]);
            writer.write_all(&noise(len)).unwrap();
            let body = writer.finish_behind(b"header");
            let (mut back, mut written) = (Vec::new(), Vec::new());
            body.reader().read_to_end(&mut back).unwrap();
            body.write_to(&mut written).unwrap();
            assert!(back == [b"header".as_slice(), &noise(len)].concat() && back == written, "{len}");
            assert_eq!(body.len(), back.len() as u64);
        }
    }

    #[test]
    fn a_body_that_shares_takes_only_the_memory_that_others_leave() {
        let folder = tempfile::tempdir().unwrap();
        let write = |mut writer: BodyWriter| {
            writer.write_all(&vec![1; IN_MEMORY]).unwrap();
            writer.finish()
        };
        let folders = vec![folder.path().to_owned()];
        let pool: &Pool = Box::leak(Box::new(Pool::new(TOGETHER, TOGETHER)));
        let new = || BodyWriter::in_pool(pool, folders.clone());
        let urgent = write(new());
        let sharing = write(BodyWriter { sharing: true, ..new() });
        let second = write(new());
        assert_eq!([urgent, sharing, second].map(|body| body.rest.is_some()), [false, true, false]);
    }

    #[test]
    fn a_body_moves_on_to_the_next_folder_with_all_that_was_written() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let data = noise(IN_MEMORY + 3 * STEP);
        let mut writer = BodyWriter::new(vec![one.path().into(), "/nonexistent".into(), two.path().into()]);
        writer.write_all(&data[..IN_MEMORY + STEP]).unwrap();
        let device_full = || io::Error::from(io::ErrorKind::StorageFull);
        writer.move_on(device_full()).unwrap();
        writer.write_all(&data[IN_MEMORY + STEP..]).unwrap();
        assert_eq!(writer.move_on(device_full()).unwrap_err().kind(), io::ErrorKind::StorageFull);
        let mut back = Vec::new();
        writer.finish().reader().read_to_end(&mut back).unwrap();
        assert!(back == data);
    }

    #[test]
    fn a_folder_for_the_rest_is_tried_once() {
        let folders = overflow_folders(Some(Path::new("/var/tmp")));
        assert_eq!(folders.first().map(PathBuf::as_path), Some(Path::new("/var/tmp")));
        let unique: std::collections::BTreeSet<_> = folders.iter().collect();
        assert_eq!(unique.len(), folders.len());
        assert!(folders.contains(&"/tmp".into()));
    }

    #[test]
    fn a_large_body_without_a_folder_is_an_error() {
        // Of its own: a larger piece that another test gave back would be room.
        let pool: &Pool = Box::leak(Box::new(Pool::new(IN_MEMORY, IN_MEMORY)));
        let mut writer = BodyWriter::in_pool(pool, vec!["/nonexistent".into()]);
        let error = writer.write_all(&vec![0; IN_MEMORY + 1]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
