//! The tars that PostgreSQL sends, read as they pass.
//!
//! Source: `tarCreateHeader` and `isValidTarHeader` of PostgreSQL `src/port/tar.c`: plain ustar with
//! names of up to 99 bytes, sizes of 8 GiB and more in base 256; regular files, directories, symbolic
//! links and nothing else. Whatever is not that is an error.

use std::io;

/// Headers and padding come in these.
const BLOCK: usize = 512;

/// One file of a tar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// As stored, without a slash at the end.
    pub path: Vec<u8>,
    pub kind: Kind,
    /// Permission bits.
    pub mode: u32,
    /// Seconds since 1970.
    pub modified: u64,
    /// Bytes that follow.
    pub size: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    File,
    Directory,
    /// The target.
    Link(Vec<u8>),
}

/// What is done with the files of a tar.
pub trait Sink {
    /// A file begins.
    fn begin(&mut self, entry: &Entry) -> Result<(), Error>;
    /// Its next bytes.
    fn data(&mut self, bytes: &[u8]) -> Result<(), Error>;
    /// All of its bytes were there.
    fn end(&mut self) -> Result<(), Error>;
}

#[derive(Debug)]
pub enum Error {
    /// It is not what it should be. The reason.
    Damaged(String),
    /// It cannot be put where it belongs.
    Output(String, io::Error),
}

fn damaged(reason: impl Into<String>) -> Error {
    Error::Damaged(reason.into())
}

/// A tar that comes in pieces.
#[derive(Default)]
pub struct Reader {
    state: State,
    /// The beginning of a block.
    held: Vec<u8>,
}

#[derive(Default)]
enum State {
    #[default]
    Header,
    /// In a file: bytes left of it, and of its padding.
    Content(u64, u64),
    /// After the first empty block.
    End,
}

impl Reader {
    /// Reads the next piece.
    pub fn push(&mut self, mut bytes: &[u8], sink: &mut dyn Sink) -> Result<(), Error> {
        while !bytes.is_empty() {
            bytes = match self.state {
                State::Header => self.header(bytes, sink)?,
                State::Content(left, padding) => self.content(bytes, left, padding, sink)?,
                State::End => match bytes.iter().all(|byte| *byte == 0) {
                    true => &[],
                    false => return Err(damaged("something follows the end of the tar")),
                },
            };
        }
        Ok(())
    }

    /// Whether it ended where a tar may end.
    pub fn finish(&self) -> Result<(), Error> {
        match self.state {
            State::End => Ok(()),
            State::Header | State::Content(..) => Err(damaged("the tar is cut")),
        }
    }

    fn header<'b>(&mut self, bytes: &'b [u8], sink: &mut dyn Sink) -> Result<&'b [u8], Error> {
        let (taken, rest) = bytes.split_at((BLOCK - self.held.len()).min(bytes.len()));
        self.held.extend_from_slice(taken);
        if self.held.len() < BLOCK {
            return Ok(rest);
        }
        let block = std::mem::take(&mut self.held);
        self.state = match Entry::read(&block)? {
            None => State::End,
            Some(entry) => {
                sink.begin(&entry)?;
                if entry.size == 0 {
                    sink.end()?;
                }
                let padding = entry.size.next_multiple_of(BLOCK as u64) - entry.size;
                State::next(entry.size, padding)
            }
        };
        self.held = block;
        self.held.clear();
        Ok(rest)
    }

    fn content<'b>(
        &mut self,
        bytes: &'b [u8],
        left: u64,
        padding: u64,
        sink: &mut dyn Sink,
    ) -> Result<&'b [u8], Error> {
        let at_most = |count: u64| usize::try_from(count).unwrap_or(usize::MAX).min(bytes.len());
        if left > 0 {
            let (content, rest) = bytes.split_at(at_most(left));
            sink.data(content)?;
            let left = left - content.len() as u64;
            if left == 0 {
                sink.end()?;
            }
            self.state = State::next(left, padding);
            return Ok(rest);
        }
        let (skipped, rest) = bytes.split_at(at_most(padding));
        self.state = State::next(0, padding - skipped.len() as u64);
        Ok(rest)
    }
}

impl State {
    fn next(left: u64, padding: u64) -> Self {
        match (left, padding) {
            (0, 0) => State::Header,
            (left, padding) => State::Content(left, padding),
        }
    }
}

impl Entry {
    /// Reads a header; `None` for the empty block that ends a tar.
    fn read(block: &[u8]) -> Result<Option<Self>, Error> {
        if block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let field = |from: usize, len: usize| block.get(from..from + len).unwrap_or_default();
        let without: u64 = field(148, 8).iter().map(|byte| u64::from(*byte)).sum();
        let sum = block.iter().map(|byte| u64::from(*byte)).sum::<u64>() - without + 8 * u64::from(b' ');
        if number(field(148, 8)) != Some(sum) {
            return Err(damaged("a header of the tar is damaged"));
        }
        let path = path(text(field(345, 155)), text(field(0, 100)));
        let shown = String::from_utf8_lossy(&path).into_owned();
        let kind = match field(156, 1) {
            b"0" | b"\0" => Kind::File,
            b"5" => Kind::Directory,
            b"2" => Kind::Link(text(field(157, 100)).to_vec()),
            _ => return Err(damaged(format!("\"{shown}\" is neither a file, a directory nor a link"))),
        };
        let bad = |what: &str| damaged(format!("\"{shown}\" has an impossible {what}"));
        let size = number(field(124, 12)).ok_or_else(|| bad("size"))?;
        let mode = number(field(100, 8)).and_then(|mode| u32::try_from(mode).ok());
        Ok(Some(Entry {
            mode: mode.ok_or_else(|| bad("mode"))? & 0o7777,
            modified: number(field(136, 12)).ok_or_else(|| bad("time"))?,
            size: if kind == Kind::File { size } else { 0 },
            kind,
            path,
        }))
    }
}

fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

fn path(prefix: &[u8], name: &[u8]) -> Vec<u8> {
    let mut path = prefix.to_vec();
    if !prefix.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    while path.last() == Some(&b'/') {
        path.pop();
    }
    path
}

/// Octal digits with spaces around, or with the highest bit set, base 256.
fn number(field: &[u8]) -> Option<u64> {
    if let [0x80, rest @ ..] = field {
        return rest.iter().try_fold(0u64, |value, byte| value.checked_mul(256)?.checked_add((*byte).into()));
    }
    let digits = field.iter().skip_while(|byte| **byte == b' ').take_while(|byte| !matches!(byte, 0 | b' '));
    digits.into_iter().try_fold(0u64, |value, byte| {
        let digit = char::from(*byte).to_digit(8)?;
        value.checked_mul(8)?.checked_add(digit.into())
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A tar with these files, as PostgreSQL writes it.
    pub(crate) fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut out = Vec::new();
        for (path, content) in files {
            out.extend(header(path, b'0', content.len() as u64));
            out.extend_from_slice(content);
            out.resize(out.len().next_multiple_of(BLOCK), 0);
        }
        out.resize(out.len() + 2 * BLOCK, 0);
        out
    }

    fn header(path: &str, kind: u8, size: u64) -> Vec<u8> {
        let mut block = vec![0; BLOCK];
        block[..path.len()].copy_from_slice(path.as_bytes());
        block[100..108].copy_from_slice(b"0000600 ");
        match size < 1 << 33 {
            true => block[124..136].copy_from_slice(format!("{size:011o} ").as_bytes()),
            false => {
                block[124] = 0x80;
                block[128..136].copy_from_slice(&size.to_be_bytes());
            }
        }
        block[136..148].copy_from_slice(b"14760000000 ");
        block[156] = kind;
        block[148..156].fill(b' ');
        let sum: u64 = block.iter().map(|b| u64::from(*b)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o} \0").as_bytes());
        block
    }

    #[derive(Default)]
    struct Files(Vec<(Entry, Vec<u8>, bool)>);

    impl Sink for Files {
        fn begin(&mut self, entry: &Entry) -> Result<(), Error> {
            self.0.push((entry.clone(), Vec::new(), false));
            Ok(())
        }
        fn data(&mut self, bytes: &[u8]) -> Result<(), Error> {
            self.0.last_mut().unwrap().1.extend_from_slice(bytes);
            Ok(())
        }
        fn end(&mut self) -> Result<(), Error> {
            self.0.last_mut().unwrap().2 = true;
            Ok(())
        }
    }

    fn read(tar: &[u8], piece: usize) -> Result<Files, Error> {
        let (mut reader, mut files) = (Reader::default(), Files::default());
        for piece in tar.chunks(piece.max(1)) {
            reader.push(piece, &mut files)?;
        }
        reader.finish()?;
        Ok(files)
    }

    #[test]
    fn sizes_of_8_gib_and_more_are_in_base_256() {
        let entry = Entry::read(&header("base/1/2", b'0', 9 << 30)).unwrap().unwrap();
        assert_eq!((entry.size, entry.mode, entry.path.as_slice()), (9 << 30, 0o600, b"base/1/2".as_slice()));
    }

    #[test]
    fn a_header_with_a_changed_bit_a_device_and_a_cut_are_damage() {
        let good = tar(&[("PG_VERSION", b"15\n")]);
        // The checksum itself may be written in several ways.
        for bit in (0..8 * 345).filter(|bit| !(148..156).contains(&(bit / 8))) {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(read(&bad, 100).is_err(), "bit {bit}");
        }
        assert!(read(&good[..good.len() - 1024], 100).is_err());
        assert!(read(&good[..BLOCK + 1], 100).is_err());
        assert!(Entry::read(&header("x", b'3', 0)).is_err());
        let followed = [good.as_slice(), b"x"].concat();
        assert!(read(&followed, 1 << 20).is_err());
    }

    #[test]
    fn stock_tar_reads_what_the_tests_write_and_we_read_what_stock_tar_writes() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("d")).unwrap();
        std::fs::write(folder.path().join("d/a"), b"hello").unwrap();
        std::os::unix::fs::symlink("target", folder.path().join("d/l")).unwrap();
        let mut command = std::process::Command::new("tar");
        command.args(["--format=ustar", "--sort=name", "-cf", "-", "-C"]).arg(folder.path()).arg("d");
        let found = read(&command.output().unwrap().stdout, 77).unwrap().0;
        let kinds: Vec<_> =
            found.iter().map(|(entry, content, _)| (entry.kind.clone(), content.len())).collect();
        assert_eq!(kinds, [(Kind::Directory, 0), (Kind::File, 5), (Kind::Link(b"target".to_vec()), 0)]);
        assert_eq!(found[0].0.path, b"d");
    }

    proptest! {
        #[test]
        fn files_come_out_as_they_went_in_however_they_are_cut(
            sizes in proptest::collection::vec(0usize..2000, 0..6), piece in 1usize..1500,
        ) {
            let contents: Vec<Vec<u8>> = sizes.iter().map(|size| (0..*size).map(|i| i as u8).collect()).collect();
            let names: Vec<String> = (0..sizes.len()).map(|i| format!("base/{i}")).collect();
            let files: Vec<_> = names.iter().zip(&contents).map(|(n, c)| (n.as_str(), c.as_slice())).collect();
            let found = read(&tar(&files), piece).unwrap().0;
            prop_assert_eq!(found.len(), files.len());
            for ((entry, content, ended), (name, expected)) in found.iter().zip(&files) {
                prop_assert!(*ended && entry.path == name.as_bytes() && content == expected);
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _ = read(&bytes, 100);
        }
    }
}
