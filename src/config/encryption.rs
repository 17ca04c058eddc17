//! The settings of `[encryption]`: for whom archives are encrypted, and what decrypts them.
//!
//! Public keys are read here. A private one is only named: who decrypts, reads it ([`Common::unlocked`]).

use super::table::{
    COMPARE_RECIPIENTS, ENCRYPTION, IDENTITY_COMMAND, IDENTITY_FILE, RECIPIENTS, RECIPIENTS_FILE, REQUIRED,
};
use super::{Common, Error, Layers, Origin, Program, Setting};
use crate::failure::Failure;
use crate::host::identities::{IdentityError, IdentitySource};
use crate::object::age::{self, Keyring, MAX_RECIPIENTS, Recipient};
use crate::storage::Destination;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a command of an admin's call may take to print an identity.
const PATIENCE: Duration = Duration::from_secs(120);

/// What the section says.
#[derive(Clone)]
pub(super) struct Settings {
    keys: Arc<Keyring>,
    pub(super) identity: Option<IdentitySource>,
}

impl Layers {
    /// The section in force.
    pub(super) fn encryption(&self) -> Result<Settings, Error> {
        let mut recipients = self.recipients(&RECIPIENTS)?;
        let file = self.get(&RECIPIENTS_FILE, Program::Archive)?;
        if let Some(path) = file {
            let unreadable = |error: String| {
                Error::new((), format!("cannot read the recipients in \"{}\": {error}", path.display()))
            };
            let text = std::fs::read_to_string(&path).map_err(|error| unreadable(error.to_string()))?;
            let more = age::recipients(&text)
                .map_err(|(line, error)| with_hint(unreadable(format!("line {line}: it is {error}"))))?;
            recipients.extend(more);
        }
        recipients.dedup();
        if recipients.len() > MAX_RECIPIENTS {
            let what =
                format!("there are {} recipients; an object has at most {MAX_RECIPIENTS}", recipients.len());
            return Err(Error::new((), what));
        }
        let command = self.get(&IDENTITY_COMMAND, Program::Archive)?;
        let identity = match (self.get(&IDENTITY_FILE, Program::Archive)?, command.as_slice()) {
            (Some(_), [_, ..]) => {
                return Err(Error::new((), "identity_file and identity_command exclude each other")
                    .hint("keep one of them in [encryption]"));
            }
            (Some(path), []) => Some(IdentitySource::File(path)),
            (None, []) => None,
            (None, _) => Some(IdentitySource::Command(command)),
        };
        let required = self.get(&REQUIRED, Program::Archive)?;
        let required = required.unwrap_or(!recipients.is_empty() || identity.is_some());
        let compare = self.recipients(&COMPARE_RECIPIENTS)?;
        let keys = Arc::new(Keyring { recipients, compare, required, ..Keyring::default() });
        Ok(Settings { keys, identity })
    }

    fn recipients(&self, setting: &Setting<Vec<String>>) -> Result<Vec<Recipient>, Error> {
        let found = &self.resolve(&setting.row, Program::Archive)?;
        let read =
            |text: &String| text.parse().map_err(|error| with_hint(not_a_recipient(&found.origin, error)));
        setting.value(found)?.iter().map(read).collect()
    }

    /// The keys of one destination, counted from 0 where it has settings of its own.
    pub(super) fn keys(
        &self,
        settings: &Settings,
        own: Option<usize>,
    ) -> Result<Option<Arc<Keyring>>, Error> {
        let said = own.and_then(|own| self.file.as_ref()?.get_own(&ENCRYPTION.row, own, self.cluster_name()));
        Ok(match said.map(|found| ENCRYPTION.value(&found)).transpose()?.flatten() {
            Some(()) => None,
            None => Some(Arc::clone(&settings.keys)),
        })
    }
}

/// Without the text: it may be a private key.
fn not_a_recipient(origin: &Origin, error: age::KeyError) -> Error {
    Error::new((), format!("{origin}: one of the recipients is {error}"))
}

fn with_hint(error: Error) -> Error {
    error.hint("a recipient is the public key age1… that \"wal-archive keygen\" or \"age-keygen\" shows; the private key is named by identity_file or identity_command")
}

impl Common {
    /// The destinations with the private keys at hand. Where one of them needs none, what is wrong with the
    /// keys is no reason not to ask it.
    pub fn unlocked(&self, deadline: Instant) -> Result<Vec<Destination>, IdentityError> {
        unlocked(&self.archive, self.identity.as_ref(), deadline)
    }
}

/// The same for a call of an admin's.
pub(super) fn unlocked_for_admin(
    destinations: &[Destination],
    settings: &Settings,
) -> Result<Vec<Destination>, Error> {
    unlocked(destinations, settings.identity.as_ref(), Instant::now() + PATIENCE)
        .map_err(|error| Failure::new((), error.message).hint(error.hint))
}

fn unlocked(
    destinations: &[Destination],
    identity: Option<&IdentitySource>,
    deadline: Instant,
) -> Result<Vec<Destination>, IdentityError> {
    let Some(source) = identity else { return Ok(destinations.to_vec()) };
    let identities = match source.load(deadline) {
        Ok(identities) => identities,
        Err(error) if destinations.iter().any(|destination| destination.keys.is_none()) => {
            Failure::warn(error.message, error.hint);
            return Ok(destinations.to_vec());
        }
        Err(error) => return Err(error),
    };
    let unlock = |keys: &Arc<Keyring>| Keyring { identities: identities.clone(), ..(**keys).clone() };
    let unlocked = destinations.iter().map(|destination| {
        let keys = destination.keys.as_ref().map(|keys| Arc::new(unlock(keys)));
        Destination { keys, ..destination.clone() }
    });
    Ok(unlocked.collect())
}
