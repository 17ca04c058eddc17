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
    /// Variables of WAL-G and AWS that mean the same; the first that is set counts.
    pub wal_g: &'static [&'static str],
    /// Whether it says how to reach a bucket: then it stands in `[s3]`, or with its destination.
    pub s3: bool,
    /// Whether it must never be shown, nor stand on a command line.
    pub secret: bool,
    /// One line.
    pub help: &'static str,
}

/// What most settings have.
const PLAIN: Setting = Setting {
    name: "",
    programs: &[],
    takes: Nothing,
    default: None,
    wal_g: &[],
    s3: false,
    secret: false,
    help: "",
};

/// What every setting of `[s3]` has.
const S3: Setting = Setting { programs: &[Push, Fetch, Archive], takes: One("VALUE"), s3: true, ..PLAIN };

use Program::{Archive, Fetch, Push};
use Takes::{Many, Nothing, One};

/// All of them, in the order of the help.
pub const SETTINGS: [Setting; 32] = [
    Setting {
        name: "archive",
        programs: &[Push, Fetch, Archive],
        takes: Many("URL"),
        wal_g: &["WALG_FILE_PREFIX", "WALG_S3_PREFIX"],
        help: "A destination: /directory, file:///directory or s3://bucket/prefix; repeat it for several copies",
        ..PLAIN
    },
    Setting {
        name: "config",
        programs: &[Push, Fetch, Archive],
        takes: One("FILE"),
        help: "The configuration file (default: /etc/wal-archive/config.toml where it exists)",
        ..PLAIN
    },
    Setting {
        name: "timeout",
        programs: &[Push, Fetch],
        takes: One("DURATION"),
        help: "The longest the whole call may take, such as 30s or 2min (default of wal-push: 2min and 1s per MiB; of wal-fetch: 5min in the abort form, 20s in the retry form)",
        ..PLAIN
    },
    Setting {
        name: "spool-dir",
        programs: &[Push, Fetch],
        takes: One("DIRECTORY"),
        help: "The private cache directory (default: the data directory's path with .wal-spool)",
        ..PLAIN
    },
    Setting {
        name: "log-format",
        programs: &[Push, Fetch, Archive],
        takes: One("FORMAT"),
        default: Some("text"),
        help: "How messages on stderr look: text or json",
        ..PLAIN
    },
    Setting {
        name: "no-header-check",
        programs: &[Push, Fetch],
        takes: Nothing,
        default: Some("false"),
        help: "Do not look at WAL pages: only for forks of PostgreSQL that encrypt them",
        ..PLAIN
    },
    Setting {
        name: "level",
        programs: &[Push],
        takes: One("N"),
        default: Some("1"),
        help: "zstd compression level, -5 to 19",
        ..PLAIN
    },
    Setting {
        name: "look-ahead",
        programs: &[Push],
        takes: One("N"),
        default: Some("32"),
        help: "How many more files may be archived in one call, so that their own calls are short; 0: none",
        ..PLAIN
    },
    Setting {
        name: "jobs",
        programs: &[Push],
        takes: One("N"),
        default: Some("4"),
        help: "How many files are compressed at once when looking ahead, 1 to 64",
        ..PLAIN
    },
    Setting {
        name: "drop-cache",
        programs: &[Push],
        takes: Nothing,
        default: Some("false"),
        help: "Let the system forget the pages of archived files: for machines where nobody reads them again",
        ..PLAIN
    },
    Setting {
        name: "client-encryption",
        programs: &[Push],
        takes: One("none"),
        help: "Say \"none\" to archive without client-side encryption although WAL-G's encryption variables are set",
        ..PLAIN
    },
    Setting {
        name: "on-error",
        programs: &[Fetch],
        takes: One("FORM"),
        default: Some("auto"),
        help: "The form of error codes: auto, retry (2 and 20 to 24) or abort (202 and 220 to 224)",
        ..PLAIN
    },
    Setting {
        name: "allow-empty",
        programs: &[Fetch],
        takes: Nothing,
        default: Some("false"),
        help: "Believe that a file is missing even where the destination shows no sign of being an archive",
        ..PLAIN
    },
    Setting {
        name: "accept-gap",
        programs: &[Fetch],
        takes: Many("NAME"),
        help: "A segment or timeline history that is lost for good: answer that it is missing although what follows it is \
               there",
        ..PLAIN
    },
    Setting {
        name: "prefetch",
        programs: &[Fetch],
        takes: One("N"),
        default: Some("8"),
        help: "How many segments to bring ahead in the background, at most 1 GiB; 0: none",
        ..PLAIN
    },
    Setting {
        name: "partial",
        programs: &[Fetch],
        takes: Nothing,
        default: Some("false"),
        help: "Give SEGMENT.partial for a segment that is not there: to recover what \"wal-archive drain\" stored last",
        ..PLAIN
    },
    Setting {
        name: "endpoint",
        takes: One("URL"),
        wal_g: &["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"],
        help: "The store's URL, where it is not AWS: https://host:port",
        ..S3
    },
    Setting {
        name: "region",
        takes: One("NAME"),
        help: "The bucket's region (default: AWS_REGION or the profile's; us-east-1 with an endpoint)",
        ..S3
    },
    Setting {
        name: "path-style",
        takes: One("BOOLEAN"),
        wal_g: &["AWS_S3_FORCE_PATH_STYLE"],
        help: "Whether the bucket stands in the path and not in the host name (default: with an endpoint)",
        ..S3
    },
    Setting {
        name: "profile",
        takes: One("NAME"),
        help: "A profile of ~/.aws/config and ~/.aws/credentials (default: AWS_PROFILE)",
        ..S3
    },
    Setting {
        name: "access-key-id",
        secret: true,
        help: "With secret_access_key, used instead of the AWS credentials chain",
        ..S3
    },
    Setting { name: "secret-access-key", secret: true, help: "See access_key_id", ..S3 },
    Setting { name: "session-token", secret: true, help: "Of temporary credentials", ..S3 },
    Setting {
        name: "ca-bundle",
        takes: One("FILE"),
        wal_g: &["WALG_S3_CA_CERT_FILE", "AWS_CA_BUNDLE"],
        help: "PEM certificates to trust beside the system's",
        ..S3
    },
    Setting {
        name: "proxy",
        takes: One("URL"),
        help: "A proxy: http://host:port (default: HTTPS_PROXY or HTTP_PROXY by the endpoint)",
        ..S3
    },
    Setting {
        name: "no-proxy",
        takes: One("HOSTS"),
        help: "Hosts, domains and networks that are reached without the proxy, with commas between (default: NO_PROXY)",
        ..S3
    },
    Setting {
        name: "storage-class",
        takes: One("CLASS"),
        wal_g: &["WALG_S3_STORAGE_CLASS"],
        help: "Such as STANDARD_IA (default: the bucket's)",
        ..S3
    },
    Setting {
        name: "sse",
        takes: One("MODE"),
        wal_g: &["WALG_S3_SSE"],
        help: "Encryption by the store: AES256 or aws:kms (default: the bucket's)",
        ..S3
    },
    Setting {
        name: "sse-kms-key-id",
        takes: One("ID"),
        wal_g: &["WALG_S3_SSE_KMS_ID"],
        help: "The key of aws:kms (default: the account's)",
        ..S3
    },
    Setting { name: "tags", takes: One("TAGS"), help: "Tags of each object: key=value&key=value", ..S3 },
    Setting {
        name: "request-checksums",
        takes: One("WHEN"),
        help: "Checksums of uploads: when-supported (the default) or when-required",
        ..S3
    },
    Setting {
        name: "conditional-writes",
        takes: One("MODE"),
        help: "required (the default), or unsupported to accept silent overwrites by a racing server",
        ..S3
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
        self.programs.len() > 1 && self.name != "config" && !self.s3
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
