//! Every storage backend and wrapper keeps the contract of `storage::Storage`.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test"
)]

mod support;

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use wal_archive::object::Key;
use wal_archive::storage::attended::Attended;
use wal_archive::storage::deadline::Deadline;
use wal_archive::storage::faulty::{Fault, Faulty, Request};
use wal_archive::storage::giving_up::GivingUp;
use wal_archive::storage::keyed::Keyed;
use wal_archive::storage::local::Local;
use wal_archive::storage::memory::Memory;
use wal_archive::storage::retry::{Attempts, Retry};
use wal_archive::storage::s3::{Keys, S3, S3Settings, Secret};
use wal_archive::storage::{Body, Range, Shared, Storage, conformance};

/// Empty local stores below one temporary directory that lives as long as the test.
fn local_stores() -> (tempfile::TempDir, impl Fn() -> Shared) {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let base = folder.path().to_owned();
    let count = AtomicUsize::new(0);
    let fresh = move || -> Shared {
        let root = base.join(count.fetch_add(1, Ordering::Relaxed).to_string());
        std::fs::create_dir(&root).expect("a root");
        Arc::new(Local::new(root))
    };
    (folder, fresh)
}

fn far_away() -> Instant {
    Instant::now() + Duration::from_secs(600)
}

#[test]
fn memory_keeps_the_contract() {
    conformance::run(&|| Arc::new(Memory::default()));
}

#[test]
fn local_keeps_the_contract() {
    let (_folder, fresh) = local_stores();
    conformance::run(&fresh);
}

#[test]
fn deadline_over_memory_keeps_the_contract() {
    conformance::run(&|| Arc::new(Deadline::new(Arc::new(Memory::default()), far_away())));
}

#[test]
fn deadline_over_local_keeps_the_contract() {
    let (_folder, fresh) = local_stores();
    conformance::run(&|| Arc::new(Deadline::new(fresh(), far_away())));
}

#[test]
fn patience_and_giving_up_over_memory_and_local_keep_the_contract() {
    let (_folder, fresh) = local_stores();
    let patient = |store| -> Shared {
        Arc::new(GivingUp::new(Arc::new(Deadline::each(store, Duration::from_secs(600)))))
    };
    conformance::run(&|| patient(Arc::new(Memory::default())));
    conformance::run(&|| patient(fresh()));
}

#[test]
fn attended_over_local_keeps_the_contract() {
    let (_folder, fresh) = local_stores();
    conformance::run(&|| Arc::new(Attended::new(fresh(), Box::new(|| None))));
}

#[test]
fn keyed_over_memory_and_local_keeps_the_contract() {
    let (_folder, fresh) = local_stores();
    conformance::run(&|| Arc::new(Keyed::new(Arc::new(Memory::default()), Arc::default())));
    conformance::run(&|| Arc::new(Keyed::new(fresh(), Arc::default())));
}

#[test]
fn faulty_without_faults_keeps_the_contract() {
    conformance::run(&|| Arc::new(Faulty::new(Arc::new(Memory::default()), Box::new(|_, _| Fault::None))));
}

#[test]
fn faulty_over_local_without_faults_keeps_the_contract() {
    let (_folder, fresh) = local_stores();
    conformance::run(&|| Arc::new(Faulty::new(fresh(), Box::new(|_, _| Fault::None))));
}

/// Empty prefixes of one bucket of a server that lives as long as the test.
fn s3_stores() -> Option<(support::s3::Server, impl Fn() -> Shared)> {
    let server = support::s3::Server::start()?;
    let settings = S3Settings {
        endpoint: Some(server.endpoint()),
        keys: Some(Keys {
            access_key_id: Secret::new(support::s3::ACCESS_KEY.to_owned()),
            secret_access_key: Secret::new(support::s3::SECRET_KEY.to_owned()),
            session_token: None,
        }),
        ..S3Settings::default()
    };
    let count = AtomicUsize::new(0);
    let fresh = move || -> Shared {
        let prefix = format!("prefix/{}", count.fetch_add(1, Ordering::Relaxed));
        Arc::new(S3::new(support::s3::BUCKET.to_owned(), prefix, settings.clone()))
    };
    Some((server, fresh))
}

#[test]
fn s3_keeps_the_contract() {
    let Some((_server, fresh)) = s3_stores() else { return };
    conformance::run(&fresh);
    fresh().prove_create().expect("the server honours conditions");
}

#[test]
fn s3_with_every_wrapper_keeps_the_contract() {
    let Some((_server, fresh)) = s3_stores() else { return };
    conformance::run(&|| {
        let retried: Shared = Arc::new(Retry::new(fresh(), Attempts::default()));
        let faultless: Shared = Arc::new(Faulty::new(retried, Box::new(|_, _| Fault::None)));
        Arc::new(Deadline::new(faultless, far_away()))
    });
}

#[test]
fn retry_over_memory_keeps_the_contract() {
    conformance::run(&|| Arc::new(Retry::new(Arc::new(Memory::default()), Attempts::default())));
}

#[test]
fn a_body_that_breaks_off_is_taken_up_where_it_broke() {
    let attempts = Attempts { count: 3, pause: Duration::from_millis(1) };
    let key = Key::parse("wal_005/object").unwrap();
    let content: Vec<u8> = (0..1000u32).map(|i| (i * 7) as u8).collect();
    for (breaks, range, reads) in [
        (0, Range::Whole, true),
        (2, Range::Whole, true),
        (2, Range::Last(900), true),
        (3, Range::Whole, false),
    ] {
        let memory: Shared = Arc::new(Memory::default());
        memory.create(&key, &Body::from(content.clone())).unwrap();
        let count = AtomicUsize::new(0);
        let plan = move |request, _: &str| match request {
            Request::Get if count.fetch_add(1, Ordering::Relaxed) < breaks => Fault::BreakAfter(300),
            _ => Fault::None,
        };
        let store = Retry::new(Arc::new(Faulty::new(memory, Box::new(plan))), attempts);
        let mut bytes = Vec::new();
        let read = store.get(&key, range).unwrap().body.read_to_end(&mut bytes);
        assert_eq!(read.is_ok(), reads, "{breaks} breaks");
        assert!(!reads || bytes == content[range.start(1000) as usize..], "{range:?}, {breaks} breaks");
    }
}

#[test]
fn a_listing_that_breaks_off_is_taken_up_behind_its_last_key() {
    let attempts = Attempts { count: 3, pause: Duration::from_millis(1) };
    let names: Vec<String> = (0..10).map(|number| format!("wal_005/{number}")).collect();
    // After so many keys each time; only where it does not go on are there too many.
    for (breaks, keys, reads) in [(0, 2, true), (1, 2, true), (5, 2, true), (3, 0, true), (4, 0, false)] {
        let memory: Shared = Arc::new(Memory::default());
        for name in &names {
            memory.create(&Key::parse(name).unwrap(), &Body::from(vec![1])).unwrap();
        }
        let count = AtomicUsize::new(0);
        let plan = move |request, _: &str| match request {
            Request::List if count.fetch_add(1, Ordering::Relaxed) < breaks => Fault::BreakAfter(keys),
            _ => Fault::None,
        };
        let store = Retry::new(Arc::new(Faulty::new(memory, Box::new(plan))), attempts);
        let listed = store.list("wal_005/", "").unwrap().map(|entry| entry.map(|entry| entry.key));
        match listed.collect::<wal_archive::storage::Result<Vec<_>>>() {
            Ok(listed) => assert!(reads && listed == names, "{breaks} breaks: {listed:?}"),
            Err(error) => assert!(!reads, "{breaks} breaks: {error}"),
        }
    }
}

#[test]
fn a_body_is_not_taken_up_in_another_object() {
    let key = Key::parse("wal_005/object").unwrap();
    let memory = Arc::new(Memory::default());
    memory.create(&key, &Body::from(vec![1; 1000])).unwrap();
    let plan = |request, _: &str| match request {
        Request::Get => Fault::BreakAfter(300),
        _ => Fault::None,
    };
    let attempts = Attempts { count: 3, pause: Duration::from_millis(1) };
    let store = Retry::new(Arc::new(Faulty::new(memory.clone(), Box::new(plan))), attempts);
    let mut body = store.get(&key, Range::Whole).unwrap().body;
    body.by_ref().take(300).read_to_end(&mut Vec::new()).unwrap();
    memory.delete(&key).unwrap();
    memory.create(&key, &Body::from(vec![2; 1001])).unwrap();
    let error = body.read_to_end(&mut Vec::new()).unwrap_err().to_string();
    assert!(error.contains("was replaced while it was read"), "{error}");
}

#[test]
fn retry_over_faulty_keeps_the_contract_while_every_other_request_fails() {
    let attempts = Attempts { count: 5, pause: Duration::from_millis(1) };
    conformance::run(&|| {
        let count = AtomicUsize::new(0);
        let plan = move |_, _: &str| match count.fetch_add(1, Ordering::Relaxed) % 3 {
            0 => Fault::Before(wal_archive::storage::Kind::Unavailable),
            _ => Fault::None,
        };
        Arc::new(Retry::new(Arc::new(Faulty::new(Arc::new(Memory::default()), Box::new(plan))), attempts))
    });
}
