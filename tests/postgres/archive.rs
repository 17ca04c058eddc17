//! The archive seen from outside: objects read without the programs under test, damaged, moved
//! away and put back.

use crate::server::Server;
use crate::world::{World, run};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Bytes of the trailer's JSON, the last of every object.
const TRAILER: usize = 248;

/// A local directory as a destination.
pub struct Archive<'w> {
    world: &'w World,
    root: PathBuf,
    keys: Option<KeyPair>,
}

/// The keys of an encrypted archive. Only the fetching side's configuration names the private one.
#[derive(Clone)]
pub struct KeyPair {
    identity: PathBuf,
    pub recipient: String,
    push: PathBuf,
    fetch: PathBuf,
}

impl KeyPair {
    /// A new pair; `others`: further recipients.
    pub fn new(world: &World, name: &str, others: &[&KeyPair]) -> Self {
        let identity = world.path(&format!("{name}.key"));
        let mut keygen = world.command(world.program("wal-archive").to_str().unwrap());
        let recipient = run(keygen.arg("keygen").arg(&identity)).trim().to_owned();
        let all = [recipient.as_str()].into_iter().chain(others.iter().map(|other| other.recipient.as_str()));
        let all: Vec<_> = all.map(|recipient| format!("\"{recipient}\"")).collect();
        let push = world.path(&format!("{name}.push.toml"));
        fs::write(&push, format!("[encryption]\nrecipients = [{}]\n", all.join(", "))).unwrap();
        let fetch = world.path(&format!("{name}.fetch.toml"));
        let text = format!("[encryption]\nidentity_file = \"{}\"\n", identity.display());
        fs::write(&fetch, text).unwrap();
        KeyPair { identity, recipient, push, fetch }
    }

    /// The pushing side's configuration.
    pub fn push(&self) -> &Path {
        &self.push
    }

    /// The fetching side's configuration.
    pub fn fetch(&self) -> &Path {
        &self.fetch
    }

    /// The private key.
    pub fn identity(&self) -> &Path {
        &self.identity
    }

    /// Adds a line to the pushing side's `[encryption]`.
    pub fn configure_push(&self, line: &str) {
        let text = fs::read_to_string(&self.push).unwrap();
        fs::write(&self.push, format!("{text}{line}\n")).unwrap();
    }

    /// Adds the other one's private key to the file of this one.
    pub fn learn(&self, other: &KeyPair) {
        let text = [&self.identity, &other.identity].map(|path| fs::read_to_string(path).unwrap()).concat();
        fs::write(&self.identity, text).unwrap();
    }
}

/// Where in an object a bit is flipped.
#[derive(Clone, Copy, Debug)]
pub enum Spot {
    FirstByte,
    MiddleOfFrame,
    EndOfFrame,
    HashInTrailer,
    LastByte,
}

impl<'w> Archive<'w> {
    /// A new, empty directory of that name.
    pub fn new(world: &'w World, name: &str) -> Self {
        Archive { world, root: world.make_directory(name), keys: None }
    }

    /// The same, to become an encrypted archive.
    pub fn encrypted(world: &'w World, name: &str, keys: &KeyPair) -> Self {
        Archive { keys: Some(keys.clone()), ..Archive::new(world, name) }
    }

    /// The same archive for a host with other keys.
    pub fn with_keys(&self, keys: Option<&KeyPair>) -> Self {
        Archive { world: self.world, root: self.root.clone(), keys: keys.cloned() }
    }

    fn config(&self, of: impl Fn(&KeyPair) -> &PathBuf) -> String {
        self.keys.as_ref().map_or_else(String::new, |keys| format!(" --config {}", of(keys).display()))
    }

    fn extension(&self) -> &'static str {
        if self.keys.is_some() { "age" } else { "zst" }
    }

    /// `wal-archive init` for the server's cluster.
    pub fn init(&self, server: &Server<'_>) {
        let mut init = self.world.command(self.world.program("wal-archive").to_str().unwrap());
        if let Some(keys) = &self.keys {
            init.arg("--config").arg(&keys.push);
        }
        run(init.args(["init", "--pgdata"]).arg(server.data()).arg(&self.root));
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where it is while an outage lasts.
    pub fn elsewhere(&self) -> PathBuf {
        self.root.with_extension("gone")
    }

    pub fn push_command(&self) -> String {
        format!("{} %p", self.push(""))
    }

    /// `wal-push` with its options, without the path.
    pub fn push(&self, options: &str) -> String {
        let (program, config) = (self.world.program("wal-push"), self.config(|keys| &keys.push));
        format!("{} --archive {}{config} {options}", program.display(), self.root.display())
    }

    /// `wal-fetch` with its options, without the names.
    pub fn fetch(&self, options: &str) -> String {
        let (program, config) = (self.world.program("wal-fetch"), self.config(|keys| &keys.fetch));
        format!("{} --archive {}{config} {options}", program.display(), self.root.display())
    }

    pub fn fetch_command(&self) -> String {
        format!("{} %f %p", self.fetch(""))
    }

    /// Shell that takes the whole archive away, and shell that brings it back.
    pub fn outage(&self) -> (String, String) {
        let (here, gone) = (self.root.display(), self.elsewhere());
        let gone = gone.display();
        (format!("mv '{here}' '{gone}'"), format!("mv '{gone}' '{here}'"))
    }

    /// Ends an outage.
    pub fn come_back(&self) {
        fs::rename(self.elsewhere(), &self.root).expect("the archive to be elsewhere");
    }

    pub fn object(&self, name: &str) -> PathBuf {
        self.root.join("wal_005").join(format!("{name}.{}", self.extension()))
    }

    pub fn holds(&self, name: &str) -> bool {
        self.object(name).exists()
    }

    /// Objects that are there, while pushes go on.
    pub fn object_count(&self) -> usize {
        let entries = fs::read_dir(self.root.join("wal_005")).expect("an archive");
        entries
            .filter(|entry| !entry.as_ref().unwrap().file_name().as_encoded_bytes().starts_with(b"."))
            .count()
    }

    /// Unfinished files of pushes that were killed. Anything else that is hidden fails the test.
    pub fn leftovers(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.root.join("wal_005")).expect("an archive");
        let hidden = |path: &PathBuf| path.file_name().unwrap().as_encoded_bytes().starts_with(b".");
        let found: Vec<_> = entries.map(|entry| entry.unwrap().path()).filter(hidden).collect();
        let known =
            |path: &PathBuf| path.file_name().unwrap().as_encoded_bytes().starts_with(b".wal-archive.");
        assert!(found.iter().all(known), "{found:?}");
        found
    }

    /// Every WAL file, in order. Anything that is no object (an unfinished file, say) fails the test.
    pub fn names(&self) -> BTreeSet<String> {
        let entries = fs::read_dir(self.root.join("wal_005")).expect("an archive");
        let name = |entry: fs::DirEntry| {
            let name = entry.file_name().into_string().unwrap();
            match name.strip_suffix(&format!(".{}", self.extension())) {
                Some(object) if !object.starts_with('.') => object.to_owned(),
                _ => panic!("\"{name}\" stands in the archive"),
            }
        };
        entries.map(|entry| name(entry.unwrap())).collect()
    }

    /// The whole segments of a timeline, in order.
    pub fn segments(&self, timeline: u32) -> Vec<String> {
        let prefix = format!("{timeline:08X}");
        self.names().into_iter().filter(|name| name.len() == 24 && name.starts_with(&prefix)).collect()
    }

    /// The raw bytes of a WAL file, checked against the trailer.
    pub fn read(&self, name: &str) -> Vec<u8> {
        let object = match &self.keys {
            None => fs::read(self.object(name)).unwrap_or_else(|error| panic!("{name}: {error}")),
            Some(keys) => {
                let mut age = self.world.command("age");
                let output =
                    age.args(["-d", "-i"]).arg(&keys.identity).arg(self.object(name)).output().unwrap();
                assert!(output.status.success(), "{name}: {output:?}");
                output.stdout
            }
        };
        let raw = zstd::stream::decode_all(&object[..]).unwrap_or_else(|error| panic!("{name}: {error}"));
        let trailer: serde_json::Value = serde_json::from_slice(&object[object.len() - TRAILER..])
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let hash: String = Sha256::digest(&raw).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(trailer["name"], without_variant(name));
        assert_eq!(trailer["size"], raw.len(), "{name}");
        assert_eq!(trailer["sha256"], hash.as_str(), "{name}");
        raw
    }

    /// Every object can be read, and no segment of the timeline is missing between its first and
    /// its last.
    pub fn assert_sound(&self, timeline: u32) {
        for name in self.names() {
            self.read(&name);
        }
        let segments = self.segments(timeline);
        for pair in segments.windows(2) {
            assert_eq!(number(&pair[0]) + 1, number(&pair[1]), "a gap after {} in {segments:?}", pair[0]);
        }
    }

    /// Puts the raw WAL file into a directory of PostgreSQL's.
    pub fn copy_raw(&self, name: &str, into: &Path) {
        let path = into.join(name);
        fs::write(&path, self.read(name)).unwrap();
        self.world.give_to_postgres(&path);
    }

    /// Takes one object away.
    pub fn take_out(&self, name: &str) {
        fs::rename(self.object(name), self.aside(name)).expect("the object to be there");
    }

    pub fn put_back(&self, name: &str) {
        fs::rename(self.aside(name), self.object(name)).expect("the object to be aside");
    }

    fn aside(&self, name: &str) -> PathBuf {
        self.world.path(&format!("{name}.aside"))
    }

    /// Flips one bit, or flips it back.
    pub fn flip_bit(&self, name: &str, spot: Spot) {
        let path = self.object(name);
        let mut object = fs::read(&path).unwrap();
        let trailer = object.len() - TRAILER;
        let frame_end = trailer - 8;
        let at = match spot {
            Spot::FirstByte => 0,
            Spot::MiddleOfFrame => frame_end / 2,
            Spot::EndOfFrame => frame_end - 1,
            Spot::HashInTrailer => {
                let field = b"\"sha256\":\"";
                let found = object[trailer..].windows(field.len()).position(|window| window == field);
                trailer + found.expect("a hash in the trailer") + field.len() + 7
            }
            Spot::LastByte => object.len() - 1,
        };
        object[at] ^= 0x04;
        fs::write(&path, object).unwrap();
    }
}

/// The WAL file of which `NAME.partial.<16 hex>` is a variant.
fn without_variant(name: &str) -> &str {
    match name.rsplit_once('.') {
        Some((file, hash)) if hash.len() == 16 => file,
        _ => name,
    }
}

/// A segment's place in its timeline, for names whose middle part does not change.
fn number(segment: &str) -> u64 {
    u64::from_str_radix(&segment[8..], 16).expect("a segment name")
}
