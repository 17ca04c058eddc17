//! LZ4 frames, strictly: the decoder of `lz4_flex` behind a guard that knows the frame format.
//!
//! By itself that decoder takes the end of the input for the end of the file wherever a block or
//! a frame could begin, so an object cut at a block border would pass, its checksum unread. The
//! guard reads the structure as the bytes go by (`lz4_Frame_format.md`, version 1.6.4) and lets
//! the input end only where a frame has ended.

use lz4_flex::frame::FrameDecoder;
use std::io::{self, Read};

const FRAME: u32 = 0x184D_2204;
const SKIPPABLE: std::ops::RangeInclusive<u32> = 0x184D_2A50..=0x184D_2A5F;

const BLOCK_CHECKSUMS: u8 = 0x10;
const CONTENT_SIZE: u8 = 0x08;
const CONTENT_CHECKSUM: u8 = 0x04;
const DICTIONARY: u8 = 0x01;

/// A sequence of frames, at least one, and nothing else.
pub(super) struct Lz4<R: Read> {
    decoder: Option<FrameDecoder<Guard<R>>>,
}

impl<R: Read> Lz4<R> {
    pub(super) fn new(source: R) -> Self {
        Lz4 { decoder: Some(FrameDecoder::new(Guard::new(source))) }
    }
}

impl<R: Read> Read for Lz4<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(decoder) = &mut self.decoder {
            // Nothing read means an empty block, the end of a frame, or the end.
            match decoder.read(buffer)? {
                0 if buffer.is_empty() || decoder.get_ref().ended => return Ok(0),
                0 if decoder.get_ref().is_between_frames() => {
                    // The next frame may have other block sizes, which one decoder does not expect.
                    let guard = self.decoder.take().map(FrameDecoder::into_inner);
                    self.decoder = guard.map(FrameDecoder::new);
                }
                0 => {}
                read => return Ok(read),
            }
        }
        Ok(0)
    }
}

/// Passes on whole frames, and fails where the input ends within one.
struct Guard<R> {
    source: R,
    next: Next,
    /// Read already, and to be passed on first.
    ready: io::Cursor<Vec<u8>>,
    /// To be passed on unread: what is left of a block.
    block: u64,
    frames: u64,
    /// The input ended, and rightly.
    ended: bool,
}

/// What comes after `ready` and `block`.
#[derive(Clone, Copy)]
enum Next {
    Frame,
    /// A block or the end mark; with the flags of the frame.
    Block(u8),
}

impl<R: Read> Guard<R> {
    fn new(source: R) -> Self {
        let ready = io::Cursor::default();
        Guard { source, next: Next::Frame, ready, block: 0, frames: 0, ended: false }
    }

    fn is_between_frames(&self) -> bool {
        let passed_on = self.ready.position() >= self.ready.get_ref().len() as u64;
        matches!(self.next, Next::Frame) && self.block == 0 && passed_on
    }

    /// Reads what stands at the place of a frame, up to its first block.
    fn frame(&mut self) -> io::Result<()> {
        let mut head = Vec::new();
        if self.source.by_ref().take(4).read_to_end(&mut head)? == 0 && self.frames > 0 {
            self.ended = true;
            return Ok(());
        }
        let magic = number(&head)?;
        if SKIPPABLE.contains(&magic) {
            let length = u64::from(number(&self.bytes(4)?)?);
            let skipped = io::copy(&mut self.source.by_ref().take(length), &mut io::sink())?;
            return if skipped == length { Ok(()) } else { Err(cut()) };
        }
        if magic != FRAME {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it is not an LZ4 frame"));
        }
        let descriptor = self.bytes(2)?;
        let flags = descriptor.first().copied().unwrap_or_default();
        let mut rest = 1; // the checksum of the header
        for (flag, length) in [(CONTENT_SIZE, 8), (DICTIONARY, 4)] {
            rest += if flags & flag != 0 { length } else { 0 };
        }
        head.extend(descriptor);
        head.extend(self.bytes(rest)?);
        self.ready = io::Cursor::new(head);
        self.next = Next::Block(flags);
        self.frames += 1;
        Ok(())
    }

    /// Reads the beginning of a block, or the end mark and the checksum that belongs to it.
    fn block(&mut self, flags: u8) -> io::Result<()> {
        let mut head = self.bytes(4)?;
        let size = number(&head)?;
        if size == 0 {
            if flags & CONTENT_CHECKSUM != 0 {
                head.extend(self.bytes(4)?);
            }
            self.next = Next::Frame;
        } else {
            self.block = u64::from(size & 0x7FFF_FFFF) + if flags & BLOCK_CHECKSUMS != 0 { 4 } else { 0 };
        }
        self.ready = io::Cursor::new(head);
        Ok(())
    }

    fn bytes(&mut self, count: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let read = self.source.by_ref().take(count).read_to_end(&mut bytes)?;
        if read as u64 == count { Ok(bytes) } else { Err(cut()) }
    }
}

impl<R: Read> Read for Guard<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.ready.read(buffer)?;
            if read > 0 || self.ended || buffer.is_empty() {
                return Ok(read);
            }
            if self.block > 0 {
                let read = self.source.by_ref().take(self.block).read(buffer)?;
                self.block -= read as u64;
                return if read > 0 { Ok(read) } else { Err(cut()) };
            }
            match self.next {
                Next::Frame => self.frame()?,
                Next::Block(flags) => self.block(flags)?,
            }
        }
    }
}

fn number(bytes: &[u8]) -> io::Result<u32> {
    bytes.first_chunk().map(|bytes| u32::from_le_bytes(*bytes)).ok_or_else(cut)
}

/// Not [`io::ErrorKind::UnexpectedEof`], which the decoder takes for an end.
fn cut() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "it is cut")
}

#[cfg(test)]
mod tests {
    use super::*;
    use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};
    use std::io::Write;

    fn frame(info: FrameInfo, content: &[u8]) -> Vec<u8> {
        let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    fn content() -> Vec<u8> {
        (0..60_000u32).flat_map(|i| (i / 7).to_le_bytes()).collect()
    }

    fn read(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        Lz4::new(bytes).read_to_end(&mut out)?;
        Ok(out)
    }

    #[test]
    fn every_kind_of_frame_is_read_and_every_cut_is_seen() {
        for mode in [BlockMode::Independent, BlockMode::Linked] {
            for block_checksums in [false, true] {
                for content_checksum in [false, true] {
                    for size in [None, Some(content().len() as u64)] {
                        let info = FrameInfo::new()
                            .block_mode(mode)
                            .block_size(BlockSize::Max64KB)
                            .block_checksums(block_checksums)
                            .content_checksum(content_checksum)
                            .content_size(size);
                        let good = frame(info, &content());
                        assert!(read(&good).unwrap() == content());
                        for len in (0..good.len()).step_by(499).chain(good.len() - 20..good.len()) {
                            assert!(read(&good[..len]).is_err(), "cut to {len} of {}", good.len());
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_cut_at_every_border_of_a_block_is_seen() {
        let info = FrameInfo::new().block_size(BlockSize::Max64KB);
        let good = frame(info, &content());
        let (mut at, mut borders) = (7, 0);
        while at + 4 < good.len() {
            assert!(read(&good[..at]).is_err(), "cut to {at}");
            let size = u32::from_le_bytes(good[at..at + 4].try_into().unwrap()) & 0x7FFF_FFFF;
            at += 4 + size as usize;
            borders += 1;
        }
        assert!(borders > 3, "{borders}");
    }

    #[test]
    fn frames_may_follow_each_other_with_skippable_ones_between_and_nothing_else() {
        let large = frame(FrameInfo::new().block_size(BlockSize::Max4MB), &content());
        let small = frame(FrameInfo::new().block_size(BlockSize::Max64KB), b"small");
        let empty = frame(FrameInfo::new(), b"");
        let skippable = [&0x184D_2A53u32.to_le_bytes()[..], &3u32.to_le_bytes(), b"abc"].concat();
        let whole = [&skippable[..], &large, &empty, &skippable, &small, &skippable].concat();
        assert!(read(&whole).unwrap() == [content(), b"small".to_vec()].concat());
        for bad in
            [b"x".to_vec(), vec![0; 4], skippable[..9].to_vec(), small[..4].to_vec(), small[..7].to_vec()]
        {
            assert!(read(&[whole.clone(), bad.clone()].concat()).is_err(), "{bad:?}");
        }
        assert!(read(&skippable).is_err(), "no frame at all");
        assert!(read(b"").is_err());
    }

    #[test]
    fn an_empty_block_is_no_end() {
        let mut good = frame(FrameInfo::new().content_checksum(true), b"some content");
        good.splice(7..7, 0x8000_0000u32.to_le_bytes());
        assert_eq!(read(&good).unwrap(), b"some content");
    }
}
