//! A strict reader of zstd: nothing may stand before, between or after the frames.

use super::proof::{DecodeError, RawFile, damaged};
use zstd::stream::raw::{self, InBuffer, Operation, OutBuffer};

/// A strict reader of a sequence of zstd frames and skippable frames (RFC 8878 §3.1).
pub(super) struct Frames {
    decoder: raw::Decoder<'static>,
    state: State,
    frames: u32,
    skipped: u32,
}

enum State {
    /// Between frames; the bytes of the next frame's magic and length seen so far.
    Between(Vec<u8>),
    /// Inside a zstd frame.
    Frame,
    /// Inside a skippable frame; the bytes left.
    Skip(u64),
}

const FRAME_MAGIC: [u8; 4] = [0x28, 0xB5, 0x2F, 0xFD];

impl Frames {
    pub(super) fn new() -> Result<Self, DecodeError> {
        let decoder = raw::Decoder::new().map_err(DecodeError::Write)?;
        Ok(Frames { decoder, state: State::Between(Vec::new()), frames: 0, skipped: 0 })
    }

    pub(super) fn feed(&mut self, mut input: &[u8], raw: &mut RawFile<'_>) -> Result<(), DecodeError> {
        while !input.is_empty() {
            input = match &mut self.state {
                State::Between(seen) => {
                    let (byte, rest) = input.split_at(1);
                    seen.extend_from_slice(byte);
                    let seen = std::mem::take(seen);
                    self.begin(seen, raw)?;
                    rest
                }
                State::Skip(left) => {
                    let now = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                    *left -= now as u64;
                    if *left == 0 {
                        self.state = State::Between(Vec::new());
                    }
                    input.get(now..).unwrap_or_default()
                }
                State::Frame => self.decompress(input, raw)?,
            };
        }
        Ok(())
    }

    /// Decides what begins here, once enough of it is seen.
    fn begin(&mut self, seen: Vec<u8>, raw: &mut RawFile<'_>) -> Result<(), DecodeError> {
        let skippable = matches!(seen.as_slice(), [low, 0x2A, 0x4D, 0x18, ..] if low & 0xF0 == 0x50);
        if seen == FRAME_MAGIC {
            self.frames += 1;
            self.state = State::Frame;
            self.decompress(&seen, raw)?;
        } else if let (true, Some(Ok(length))) = (skippable, seen.get(4..).map(<[u8; 4]>::try_from)) {
            if seen.starts_with(&[0x5E]) && u32::from_le_bytes(length) == 248 && self.frames > 0 {
                return damaged("something follows its trailer".to_owned());
            }
            self.skipped += 1;
            self.state = match u32::from_le_bytes(length) {
                0 => State::Between(Vec::new()),
                length => State::Skip(length.into()),
            };
        } else if seen.len() < 4 || (skippable && seen.len() < 8) {
            self.state = State::Between(seen);
        } else {
            return damaged("it is not zstd data".to_owned());
        }
        Ok(())
    }

    /// Decodes within a frame; returns what follows the frame's end.
    fn decompress<'i>(&mut self, input: &'i [u8], raw: &mut RawFile<'_>) -> Result<&'i [u8], DecodeError> {
        let mut source = InBuffer::around(input);
        loop {
            let mut buffer = raw.buffer();
            let room = buffer.capacity();
            let (hint, written) = {
                let mut target = OutBuffer::around(&mut buffer);
                let hint = self.decoder.run(&mut source, &mut target);
                let hint = hint
                    .map_err(|error| DecodeError::Damaged(format!("it cannot be decompressed: {error}")))?;
                (hint, target.pos())
            };
            raw.write(buffer)?;
            if hint == 0 {
                self.state = State::Between(Vec::new());
                break;
            }
            if source.pos() == input.len() && written < room {
                break;
            }
        }
        Ok(input.get(source.pos()..).unwrap_or_default())
    }

    pub(super) fn expect_end(&self) -> Result<(), DecodeError> {
        match &self.state {
            State::Between(seen) if seen.is_empty() && self.frames > 0 => Ok(()),
            _ if self.frames == 0 => damaged("it is empty or cut".to_owned()),
            _ => damaged("it is cut".to_owned()),
        }
    }

    pub(super) fn expect_end_of_only_frame(&self) -> Result<(), DecodeError> {
        self.expect_end()?;
        if self.frames != 1 || self.skipped != 0 {
            return damaged("more than one frame precedes its trailer".to_owned());
        }
        Ok(())
    }
}
