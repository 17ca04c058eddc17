//! What no archiver can beat: the bare work of archiving, for `scripts/bench.sh` to compare with.
//!
//! `floor push SOURCE TARGET` does in one process what `wal-push` must do at least: read, sha256
//! on a second thread, zstd level 1 with content checksum, write, fsync, rename, fsync of the
//! directory. `floor fetch OBJECT TARGET` takes that out again as `wal-fetch` must do at least: read,
//! zstd, sha256 on a second thread, write, rename. `floor limit SOURCE...` spends two cores on nothing but zstd and sha256 of the files
//! and throws the result away: no archiver that compresses is faster on two cores.
//!
//! Uses the libraries themselves and nothing of `wal_archive`, so that it stays a measure of it.

use sha2::{Digest, Sha256};
use std::env;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::thread;
use zstd::stream::read::Decoder;
use zstd::stream::write::Encoder;
use zstd::zstd_safe::CParameter;

const LEVEL: i32 = 1;
const CHUNK: usize = 256 * 1024;
/// Of a SHA-256 sum, which follows the frame.
const SUM: usize = 32;

fn main() -> io::Result<()> {
    let arguments: Vec<PathBuf> = env::args_os().skip(1).map(PathBuf::from).collect();
    match arguments.as_slice() {
        [verb, source, target] if verb == Path::new("push") => push(source, target),
        [verb, object, target] if verb == Path::new("fetch") => fetch(object, target),
        [verb, sources @ ..] if verb == Path::new("limit") && !sources.is_empty() => limit(sources),
        _ => Err(io::Error::other(
            "usage: floor push SOURCE TARGET | floor fetch OBJECT TARGET | floor limit SOURCE...",
        )),
    }
}

fn push(source: &Path, target: &Path) -> io::Result<()> {
    let mut input = File::open(source)?;
    let temporary = target.with_extension("tmp");
    let mut output = File::create_new(&temporary)?;
    let mut encoder = encoder(&mut output, input.metadata()?.len())?;
    let sum = hashed(&mut input, &mut encoder)?;
    encoder.finish()?;
    output.write_all(&sum)?;
    output.sync_all()?;
    fs::rename(&temporary, target)?;
    File::open(target.parent().unwrap_or(Path::new(".")))?.sync_all()
}

fn fetch(object: &Path, target: &Path) -> io::Result<()> {
    let mut input = File::open(object)?;
    let frame = input.metadata()?.len().saturating_sub(SUM as u64);
    let temporary = target.with_extension("tmp");
    let mut output = File::create_new(&temporary)?;
    let mut decoder = Decoder::new((&mut input).take(frame))?;
    let sum = hashed(&mut decoder, &mut output)?;
    drop(decoder);
    let mut expected = [0; SUM];
    input.read_exact(&mut expected)?;
    if sum != expected {
        return Err(io::Error::other("the object is damaged"));
    }
    fs::rename(&temporary, target)
}

/// Copies everything, and hashes it on a second thread meanwhile.
fn hashed(input: &mut dyn Read, output: &mut dyn Write) -> io::Result<[u8; SUM]> {
    let (to_hash, chunks) = sync_channel::<Arc<Vec<u8>>>(4);
    let (to_reuse, spare) = sync_channel::<Arc<Vec<u8>>>(8);
    let hash = thread::spawn(move || {
        let mut sha = Sha256::new();
        for chunk in chunks {
            sha.update(chunk.as_slice());
            let _ = to_reuse.try_send(chunk); // a buffer too many is no loss
        }
        sha.finalize().into()
    });
    loop {
        let reused = spare.try_recv().ok().and_then(Arc::into_inner);
        let mut buffer = reused.unwrap_or_else(|| Vec::with_capacity(CHUNK));
        buffer.clear();
        if input.take(CHUNK as u64).read_to_end(&mut buffer)? == 0 {
            break;
        }
        let chunk = Arc::new(buffer);
        to_hash.send(Arc::clone(&chunk)).map_err(io::Error::other)?;
        output.write_all(&chunk)?;
    }
    drop(to_hash);
    hash.join().map_err(|_| io::Error::other("the hashing thread failed"))
}

fn limit(sources: &[PathBuf]) -> io::Result<()> {
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        let workers = [(); 2].map(|()| scope.spawn(|| work(sources, &next)));
        for worker in workers {
            worker.join().map_err(|_| io::Error::other("a worker failed"))??;
        }
        Ok(())
    })
}

fn work(sources: &[PathBuf], next: &AtomicUsize) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(CHUNK);
    while let Some(source) = sources.get(next.fetch_add(1, Ordering::Relaxed)) {
        let input = File::open(source)?;
        let mut sha = Sha256::new();
        let mut encoder = encoder(io::sink(), input.metadata()?.len())?;
        loop {
            buffer.clear();
            if (&input).take(CHUNK as u64).read_to_end(&mut buffer)? == 0 {
                break;
            }
            sha.update(&buffer);
            encoder.write_all(&buffer)?;
        }
        encoder.finish()?;
        std::hint::black_box(sha.finalize());
    }
    Ok(())
}

fn encoder<W: Write>(output: W, size: u64) -> io::Result<Encoder<'static, W>> {
    let mut encoder = Encoder::new(output, LEVEL)?;
    encoder.set_parameter(CParameter::ChecksumFlag(true))?;
    encoder.set_parameter(CParameter::ContentSizeFlag(true))?;
    encoder.set_pledged_src_size(Some(size))?;
    Ok(encoder)
}
