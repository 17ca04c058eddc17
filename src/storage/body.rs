//! The bytes of an object to create: written once, read as often as destinations and retries need.
//!
//! However many files are on their way at once, those that look ahead take only the memory that
//! others leave: what is urgent must not need a temporary file on a full disk because of them.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What stays in memory; the rest of a larger body goes to a temporary file.
pub const IN_MEMORY: usize = 32 << 20;

const BLOCK: usize = 1 << 20;

/// A part of a body in memory: [`BLOCK`] bytes, or fewer where it is the last one.
struct Block(Vec<u8>);

/// Blocks of all bodies. Used ones are kept: pages that were touched before cost nothing, and the
/// allocator would keep a set of them for every thread.
static BLOCKS: Mutex<Blocks> = Mutex::new(Blocks { held: 0, spare: Vec::new() });

struct Blocks {
    held: usize,
    spare: Vec<Vec<u8>>,
}

impl Blocks {
    fn all() -> MutexGuard<'static, Blocks> {
        // A poisoned lock costs no more than a wrong count of spare memory.
        BLOCKS.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Block {
    fn take() -> Self {
        let mut blocks = Blocks::all();
        blocks.held += 1;
        let spare = blocks.spare.pop();
        drop(blocks);
        Block(spare.unwrap_or_else(|| Vec::with_capacity(BLOCK)))
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let mut memory = std::mem::take(&mut self.0);
        memory.clear();
        let mut blocks = Blocks::all();
        blocks.held -= 1;
        if blocks.held + blocks.spare.len() < IN_MEMORY / BLOCK {
            blocks.spare.push(memory);
        }
    }
}

/// A replayable body of known length. Cloning shares the bytes.
#[derive(Clone)]
pub struct Body {
    blocks: Arc<Vec<Block>>,
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

    /// A new reader from the first byte; readers do not disturb each other.
    pub fn reader(&self) -> BodyReader {
        BodyReader { body: self.clone(), position: 0 }
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        let mut writer = BodyWriter::new(Vec::new());
        for piece in bytes.chunks(BLOCK) {
            let mut block = Block::take();
            block.0.extend_from_slice(piece);
            writer.blocks.push(block);
        }
        writer.len = bytes.len() as u64;
        writer.finish()
    }
}

/// Reads a [`Body`].
pub struct BodyReader {
    body: Body,
    position: u64,
}

impl Read for BodyReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let at = usize::try_from(self.position).map_err(io::Error::other)?;
        let read = match (self.body.blocks.get(at / BLOCK), &self.body.rest) {
            (Some(block), _) => block.0.get(at % BLOCK..).unwrap_or_default().read(buffer)?,
            (None, Some(file)) => {
                let in_memory = (self.body.blocks.len() * BLOCK) as u64;
                file.read_at(buffer, self.position - in_memory)?
            }
            (None, None) => 0,
        };
        self.position += read as u64;
        Ok(read)
    }
}

/// Collects a [`Body`]: as much as there is room for in memory, the rest in a temporary file
/// without a name, which the system removes whatever becomes of this process.
pub struct BodyWriter {
    blocks: Vec<Block>,
    rest: Option<File>,
    folders: Vec<PathBuf>,
    sharing: bool,
    len: u64,
}

impl BodyWriter {
    /// `folders`: where the temporary file may stand, the first that takes it.
    pub fn new(folders: Vec<PathBuf>) -> Self {
        BodyWriter { blocks: Vec::new(), rest: None, folders, sharing: false, len: 0 }
    }

    /// The same for a body that can wait: it takes only the memory that others leave.
    pub fn sharing(folders: Vec<PathBuf>) -> Self {
        BodyWriter { sharing: true, ..BodyWriter::new(folders) }
    }

    /// The body of what was written.
    pub fn finish(self) -> Body {
        Body { blocks: Arc::new(self.blocks), rest: self.rest.map(Arc::new), len: self.len }
    }

    /// Makes room for more: another block, or the file.
    fn grow(&mut self) -> io::Result<()> {
        let held = if self.sharing { Blocks::all().held } else { self.blocks.len() };
        if held < IN_MEMORY / BLOCK {
            self.blocks.push(Block::take());
        } else {
            self.rest = Some(self.spill()?);
        }
        Ok(())
    }

    fn spill(&self) -> io::Result<File> {
        let mut last = io::Error::other("no folder for large bodies");
        for folder in &self.folders {
            match tempfile::tempfile_in(folder) {
                Ok(file) => return Ok(file),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

impl Write for BodyWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.rest.is_none() && self.blocks.last().is_none_or(|block| block.0.len() == BLOCK) {
            self.grow()?;
        }
        if let Some(rest) = &mut self.rest {
            let written = rest.write(bytes)?;
            self.len += written as u64;
            return Ok(written);
        }
        let Some(block) = self.blocks.last_mut() else { return Ok(0) };
        let piece = bytes.get(..BLOCK - block.0.len()).unwrap_or(bytes);
        block.0.extend_from_slice(piece);
        self.len += piece.len() as u64;
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_reads_back_as_often_as_asked_from_memory_and_from_disk() {
        let folder = tempfile::tempdir().unwrap();
        for len in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, IN_MEMORY, IN_MEMORY + 1, IN_MEMORY + 3 * BLOCK] {
            let data: Vec<u8> = (0..len).map(|i| ((i * 7) >> 4) as u8).collect();
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
            assert_eq!(body.rest.is_some(), len > IN_MEMORY);
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
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
        let urgent = write(BodyWriter::new(folders.clone()));
        let sharing = write(BodyWriter::sharing(folders.clone()));
        let second = write(BodyWriter::new(folders));
        assert_eq!([urgent, sharing, second].map(|body| body.rest.is_some()), [false, true, false]);
    }

    #[test]
    fn a_large_body_without_a_folder_is_an_error() {
        let mut writer = BodyWriter::new(vec!["/nonexistent".into()]);
        let error = writer.write_all(&vec![0; IN_MEMORY + 1]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
