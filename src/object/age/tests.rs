//! The test vectors of age itself, each through the same functions as our objects.

use super::header::{Header, Malformed};
use super::identities::Identities;
use super::sealed::mac_fits;
use super::stream::Decryptor;
use crate::object::Sha256Sum;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

/// What became of a vector, in its own words.
fn outcome(file: &[u8], identities: &Identities, content: &mut Vec<u8>) -> &'static str {
    let Ok(header) = Header::read(file) else { return "header failure" };
    let unwrapped: Result<_, Malformed> = identities.unwrap(&header);
    let Ok(found) = unwrapped else { return "header failure" };
    let Some((_, file_key)) = found else { return "no match" };
    if !mac_fits(&file_key, &header).unwrap() {
        return "HMAC failure";
    }
    let mut payload = &file[header.text().len()..];
    if payload.len() < 16 {
        return "header failure"; // that is where the vectors count the nonce
    }
    let read = Decryptor::new(&file_key, &mut payload).read_to_end(content);
    if read.is_ok() { "success" } else { "payload failure" }
}

/// A full chunk whose mark contradicts whether more follows is not given here; age gives it before it fails.
const GIVES_LESS: [&str; 3] = ["stream_no_final", "stream_trailing_garbage", "stream_two_final_chunks"];

#[test]
fn the_vectors_of_age_end_as_they_say() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/age/cctv");
    let mut seen = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let bytes = std::fs::read(&path).unwrap();
        let end = bytes.windows(2).position(|two| two == b"\n\n").unwrap();
        let (mut about, mut identities) = (BTreeMap::new(), String::new());
        for line in std::str::from_utf8(&bytes[..end]).unwrap().lines() {
            let (key, value) = line.split_once(": ").unwrap();
            match key {
                "identity" => identities = format!("{identities}{value}\n"),
                _ => drop(about.insert(key, value)),
            }
        }
        let mut file = bytes[end + 2..].to_vec();
        if about.contains_key("compressed") {
            file.clear();
            flate2::read::ZlibDecoder::new(&bytes[end + 2..]).read_to_end(&mut file).unwrap();
        }
        let (expect, mut content) = (about["expect"], Vec::new());
        // Post-quantum identities are no keys here.
        let identities = Identities::parse(&identities).unwrap_or_default();
        let came = outcome(&file, &identities, &mut content);
        if ["armor_", "hybrid", "scrypt"].iter().any(|kind| name.starts_with(kind)) {
            assert!(matches!(came, "header failure" | "no match"), "{name}: {came}");
        } else {
            assert_eq!(came, expect, "{name}");
            if let Some(sum) =
                about.get("payload").filter(|_| !GIVES_LESS.iter().any(|less| name.starts_with(less)))
            {
                assert_eq!(Sha256Sum::of(&content).to_string(), *sum, "{name}");
            }
        }
        *seen.entry(expect.to_owned()).or_insert(0) += 1;
    }
    let all = [
        ("HMAC failure", 1),
        ("header failure", 32),
        ("no match", 3),
        ("payload failure", 18),
        ("success", 18),
    ];
    assert_eq!(seen.iter().map(|(expect, count)| (expect.as_str(), *count)).collect::<Vec<_>>(), all);
}
