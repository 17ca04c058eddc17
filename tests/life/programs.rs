//! The programs, as a life calls them: the only file here that knows the library's workflows.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use wal_archive::archive::forms::Forms;
use wal_archive::archive::identity;
use wal_archive::archive::intake::Intake;
use wal_archive::archive::object::Opener;
use wal_archive::archive::quarantine::{Subject, chosen, find, set_aside};
use wal_archive::check::{self, Check, Least, Place, Rights, State, Thresholds};
use wal_archive::copy;
use wal_archive::drain::{self, Became, Drain};
use wal_archive::expire;
use wal_archive::expire::plan::{Plan, Rules};
use wal_archive::fetch::{self, Answer, Context, Fetch};
use wal_archive::host::data_directory::DataDirectory;
use wal_archive::object::Checks;
use wal_archive::object::age::{Identities, Keyring};
use wal_archive::push::{self, Cause, Push};
use wal_archive::spool::Spool;
use wal_archive::storage::Shared;
use wal_archive::storage::keyed::Keyed;
use wal_archive::verify::{self, Depth, Options, Verified};
use wal_archive::wal::{SegmentSize, SystemId, WalName};

/// What a program is run with: the settings of one node.
pub struct Site {
    pub data: PathBuf,
    pub spool: bool,
    pub destinations: Vec<Shared>,
}

/// What came of `wal-push`.
#[derive(Debug)]
pub enum Pushed {
    Stored,
    /// Whether something else holds the name, or what is there is damaged; and what was said.
    Refused {
        conflict: bool,
        said: String,
    },
}

/// What came of `wal-fetch`.
#[derive(Debug)]
pub enum Fetched {
    Delivered,
    Absent,
    Failed(String),
}

/// As a server that archives opens it.
fn with_public_keys(destination: &Shared) -> Shared {
    let keys = Keyring { identities: Identities::NONE, ..destination.keys().clone() };
    Arc::new(Keyed::new(Arc::clone(destination), Arc::new(keys)))
}

impl Site {
    fn directory(&self) -> Option<DataDirectory> {
        DataDirectory::at(&self.data)
    }

    fn spool(&self) -> Option<Spool> {
        self.spool.then(|| Spool::open(spool_of(&self.data)).unwrap())
    }

    pub fn push(&self, name: WalName, look_ahead: usize) -> Pushed {
        let (directory, spool) = (self.directory(), self.spool());
        let path = self.data.join("pg_wal").join(name.to_string());
        let destinations: Vec<_> = self.destinations.iter().map(with_public_keys).collect();
        let request = Push {
            name,
            path: &path,
            destinations: &destinations,
            intake: Intake {
                data_directory: directory,
                spool,
                level: 1,
                checks: Checks::Header,
                drop_cache: false,
                forms: Forms::of(&destinations),
                urgent: true,
            },
            look_ahead,
            jobs: 4,
            timeout: None,
        };
        match push::push(&request) {
            Ok(()) => Pushed::Stored,
            Err(failures) => {
                let said: Vec<_> = failures.iter().map(ToString::to_string).collect();
                let conflict = failures.iter().any(|failure| failure.kind == Cause::Conflict);
                Pushed::Refused { conflict, said: said.join("; ") }
            }
        }
    }

    pub fn fetch(&self, name: WalName, to: &str, timeout: Duration) -> Fetched {
        let path = self.data.join("pg_wal").join(to);
        let (data_directory, spool) = (self.directory(), self.spool());
        let context = Context { data_directory, spool, ..Context::of(self.destinations.clone()) };
        match fetch::fetch(&Fetch::new(name, &path, &context, timeout)) {
            Ok(Answer::Delivered) => Fetched::Delivered,
            Ok(Answer::Absent) => Fetched::Absent,
            Err(failures) => {
                let said: Vec<_> = failures.iter().map(ToString::to_string).collect();
                Fetched::Failed(said.join("; "))
            }
        }
    }
}

/// `wal-archive quarantine NAME` at one destination; the keys that were moved.
pub fn quarantine(storage: &Shared, subject: &str) -> Result<Vec<(String, WalName)>, String> {
    let subject = Subject::parse(subject).ok_or("neither a name nor a key")?;
    let opener = Opener::of_any_cluster(Checks::Header);
    let said = |error: wal_archive::storage::Error| error.to_string();
    let found = find(storage.as_ref(), &subject, &opener).map_err(said)?;
    let mut moved = Vec::new();
    for examined in chosen(&found, false) {
        set_aside(storage.as_ref(), examined, subject.name(), false).map_err(said)?;
        moved.push((examined.key.to_string(), subject.name()));
    }
    Ok(moved)
}

/// `wal-archive init`, once, before everything else.
pub fn init(storage: &Shared, system_id: SystemId, segment_size: SegmentSize) {
    identity::init(storage.as_ref(), system_id, segment_size, Checks::Header).unwrap();
}

/// Where the spool of a data directory is.
pub fn spool_of(data: &Path) -> PathBuf {
    data.with_extension("wal-spool")
}

/// `wal-archive verify --records`.
pub fn verify(storages: &[Shared], now: SystemTime) -> Result<Verified, String> {
    let options = Options {
        depth: Depth::Records,
        since: None,
        label: None,
        accepted: Vec::new(),
        accepted_histories: Vec::new(),
        jobs: 2,
        checks: Checks::Header,
    };
    let report = verify::verify(storages, &options, now, &mut |_, _| {});
    report.map_err(|failure| format!("verify fails: {failure}"))
}

/// `wal-archive check --pgdata`; its state, and what it objects to.
pub fn check(places: Vec<(Shared, Option<PathBuf>)>, data: &Path) -> (State, String) {
    let places: Vec<_> = places
        .into_iter()
        .map(|(storage, directory)| Place { storage, directory, unconditional: false, storage_class: None })
        .collect();
    let request = Check {
        places: &places,
        directories: &[],
        spools: &[],
        rights: Rights::All,
        data_directory: Some(data),
        connection: None,
        switch: false,
        thresholds: Thresholds {
            backlog_age: [Duration::from_secs(1 << 30); 2],
            backlog_files: [1 << 30; 2],
            free: [Least::Bytes(0); 2],
            clock: Duration::from_secs(1 << 30),
            backup_age: [None, None],
            rehearsal_age: None,
        },
        timeout: Duration::from_secs(60),
    };
    let report = check::check(&request);
    let said = report.findings.iter().filter(|finding| finding.kind > State::Ok);
    (report.state(), said.map(|finding| finding.reason.clone()).collect::<Vec<_>>().join("; "))
}

/// `wal-archive drain`; what is in every destination now.
pub fn drain(site: &Site) -> Vec<WalName> {
    let (directory, spool) = (site.directory(), site.spool());
    let request = Drain {
        pg_wal: &site.data.join("pg_wal"),
        data_directory: directory.as_ref(),
        destinations: &site.destinations,
        live: false,
        dry_run: false,
        spool: spool.as_ref(),
        level: 1,
        jobs: 2,
        timeout: None,
    };
    let Ok(report) = drain::drain(&request) else { return Vec::new() };
    let there = |file: &drain::DrainedFile| matches!(file.became, Became::Stored | Became::There);
    report.files.into_iter().filter(there).map(|file| file.item.name).collect()
}

/// `wal-archive copy`.
pub fn copy(from: &Shared, to: &Shared, repair: bool) {
    let request = copy::Request {
        from,
        to,
        checks: Checks::Header,
        level: 1,
        repair,
        encrypted: copy::Encrypted::PassOn,
        jobs: 2,
        progress: &|_| {},
    };
    let _ = copy::copy(&request); // what it could not do is in what it left
}

/// `wal-archive expire --label '*' --keep-backups N --yes`; the plan that was carried out.
pub fn expire(storages: &[Shared], keep: usize) -> Option<Plan> {
    let archive = expire::look(storages).ok()?;
    let named = archive.labelled(&["*".to_owned()]).ok()?;
    let rules = Rules { keep_backups: Some(keep), ..Rules::default() };
    let plan = expire::plan::plan(&archive.facts, &archive.places, named, &rules, SystemTime::now()).ok()?;
    for storage in storages {
        let _ = expire::apply(storage.as_ref(), &plan, SystemTime::now(), &|_| {}); // a part of it may be gone
    }
    Some(plan)
}
