//! Every setting, once.

/// Whose setting it is, or who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// `wal-push`, `[push]`
    Push,
    /// `wal-fetch`, `[fetch]`
    Fetch,
    /// `wal-archive`, and what stands at the top of the file
    Archive,
}

impl Program {
    /// The section of the configuration file.
    pub fn section(self) -> Option<&'static str> {
        match self {
            Program::Push => Some("push"),
            Program::Fetch => Some("fetch"),
            Program::Archive => None,
        }
    }
}

/// What values a setting takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// `--name`, or `true`/`false` elsewhere.
    Nothing,
    /// One value.
    One(&'static str),
    /// `--name` may be repeated; a comma list in the environment, an array in the file.
    Many(&'static str),
}

/// A setting.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// The flag without its dashes.
    pub name: &'static str,
    /// The programs that have it.
    pub programs: &'static [Program],
    /// Its values, with their name in the help.
    pub takes: Takes,
    /// Where nothing is set; `None`: nothing.
    pub default: Option<&'static str>,
    /// WAL-G's variables that mean the same.
    pub wal_g: &'static [&'static str],
    /// One line.
    pub help: &'static str,
}

use Program::{Archive, Fetch, Push};
use Takes::{Many, Nothing, One};

/// All of them, in the order of the help.
pub const SETTINGS: [Setting; 11] = [
    Setting {
        name: "archive",
        programs: &[Push, Fetch, Archive],
        takes: Many("URL"),
        default: None,
        wal_g: &["WALG_FILE_PREFIX", "WALG_S3_PREFIX"],
        help: "A destination: /directory or file:///directory; repeat it for several copies",
    },
    Setting {
        name: "config",
        programs: &[Push, Fetch, Archive],
        takes: One("FILE"),
        default: None,
        wal_g: &[],
        help: "The configuration file (default: /etc/wal-archive/config.toml where it exists)",
    },
    Setting {
        name: "timeout",
        programs: &[Push, Fetch],
        takes: One("DURATION"),
        default: None,
        wal_g: &[],
        help: "The longest the whole call may take, such as 30s or 2min (default of wal-push: 2min and 1s per MiB; of wal-fetch: 5min in the abort form, 20s in the retry form)",
    },
    Setting {
        name: "spool-dir",
        programs: &[Push, Fetch],
        takes: One("DIRECTORY"),
        default: None,
        wal_g: &[],
        help: "The private cache directory (default: the data directory's path with .wal-spool)",
    },
    Setting {
        name: "log-format",
        programs: &[Push, Fetch, Archive],
        takes: One("FORMAT"),
        default: Some("text"),
        wal_g: &[],
        help: "How messages on stderr look: text or json",
    },
    Setting {
        name: "no-header-check",
        programs: &[Push, Fetch],
        takes: Nothing,
        default: Some("false"),
        wal_g: &[],
        help: "Do not look at WAL pages: only for forks of PostgreSQL that encrypt them",
    },
    Setting {
        name: "level",
        programs: &[Push],
        takes: One("N"),
        default: Some("1"),
        wal_g: &[],
        help: "zstd compression level, -5 to 19",
    },
    Setting {
        name: "client-encryption",
        programs: &[Push],
        takes: One("none"),
        default: None,
        wal_g: &[],
        help: "Say \"none\" to archive without client-side encryption although WAL-G's encryption variables are set",
    },
    Setting {
        name: "on-error",
        programs: &[Fetch],
        takes: One("FORM"),
        default: Some("auto"),
        wal_g: &[],
        help: "The form of error codes: auto, retry (2 and 20 to 24) or abort (202 and 220 to 224)",
    },
    Setting {
        name: "allow-empty",
        programs: &[Fetch],
        takes: Nothing,
        default: Some("false"),
        wal_g: &[],
        help: "Believe that a file is missing even where the destination shows no sign of being an archive",
    },
    Setting {
        name: "accept-gap",
        programs: &[Fetch],
        takes: Many("SEGMENT"),
        default: None,
        wal_g: &[],
        help: "A segment that is lost for good: answer that it is missing although later ones are there",
    },
];

/// Variables that make WAL-G encrypt what it archives.
pub(super) const WAL_G_ENCRYPTION: [&str; 11] = [
    "WALG_CSE_KMS_ID",
    "WALG_LIBSODIUM_KEY",
    "WALG_LIBSODIUM_KEY_PATH",
    "WALG_GPG_KEY_ID",
    "WALE_GPG_KEY_ID",
    "WALG_PGP_KEY",
    "WALG_PGP_KEY_PATH",
    "WALG_ENVELOPE_PGP_KEY",
    "WALG_ENVELOPE_PGP_KEY_PATH",
    "WALG_ENVELOPE_PGP_YC_CSE_KMS_KEY_ID",
    "YC_CSE_KMS_KEY_ID",
];

impl Setting {
    /// Its environment variable.
    pub fn variable(&self) -> String {
        match self.name {
            "archive" => "WAL_ARCHIVE".to_owned(),
            name => format!("WAL_ARCHIVE_{}", name.replace('-', "_").to_uppercase()),
        }
    }

    /// Its key in the configuration file.
    pub fn key(&self) -> String {
        self.name.replace('-', "_")
    }

    /// Whether the file may hold it at the top: what every program has. (The file does not name
    /// itself.)
    pub fn is_common(&self) -> bool {
        self.programs.len() > 1 && self.name != "config"
    }

    /// The values in the text of an environment variable.
    pub(super) fn split(&self, text: &str) -> Vec<String> {
        match self.takes {
            Many(_) => {
                text.split(',').map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect()
            }
            One(_) | Nothing => vec![text.to_owned()],
        }
    }
}
