//! Who we are: trust, password, md5, SCRAM-SHA-256.

use super::channel::Channel;
use super::{Cause, Result, protocol};
use crate::failure::Failure;
use fallible_iterator::FallibleIterator;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use postgres_protocol::message::backend::Message;
use postgres_protocol::message::frontend;

/// Answers what the server asks until it is satisfied.
pub(super) fn authenticate(channel: &mut Channel, user: &str, password: Option<&str>) -> Result<()> {
    loop {
        match channel.receive()? {
            Message::AuthenticationOk => return Ok(()),
            Message::AuthenticationCleartextPassword => {
                let password = needed(channel, user, password)?;
                channel.send(|out| frontend::password_message(password.as_bytes(), out))?;
            }
            Message::AuthenticationMd5Password(body) => {
                let password = needed(channel, user, password)?;
                let hash = md5_hash(user.as_bytes(), password.as_bytes(), body.salt());
                channel.send(|out| frontend::password_message(hash.as_bytes(), out))?;
            }
            Message::AuthenticationSasl(body) => {
                let offered: Vec<&str> = body.mechanisms().collect().map_err(|error| odd(&error))?;
                if !offered.contains(&SCRAM_SHA_256) {
                    return Err(undone(channel, &offered.join(" or ")));
                }
                scram(channel, needed(channel, user, password)?)?;
            }
            Message::AuthenticationGss | Message::AuthenticationSspi => {
                return Err(undone(channel, "GSSAPI"));
            }
            Message::AuthenticationKerberosV5 | Message::AuthenticationScmCredential => {
                return Err(undone(channel, "an authentication that PostgreSQL no longer has"));
            }
            _ => return Err(protocol("answers something else than a question for a password")),
        }
    }
}

fn scram(channel: &mut Channel, password: &str) -> Result<()> {
    let mut scram = ScramSha256::new(password.as_bytes(), ChannelBinding::unsupported());
    channel.send(|out| frontend::sasl_initial_response(SCRAM_SHA_256, scram.message(), out))?;
    let Message::AuthenticationSaslContinue(body) = channel.receive()? else {
        return Err(protocol("breaks SCRAM off"));
    };
    scram.update(body.data()).map_err(|error| odd(&error))?;
    channel.send(|out| frontend::sasl_response(scram.message(), out))?;
    let Message::AuthenticationSaslFinal(body) = channel.receive()? else {
        return Err(protocol("breaks SCRAM off"));
    };
    // The proof that the server knows the password, too.
    scram.finish(body.data()).map_err(|error| odd(&error))
}

fn odd(error: &std::io::Error) -> Failure<Cause> {
    protocol(format!("cannot prove that it knows the password: {error}"))
}

fn needed<'p>(channel: &Channel, user: &str, password: Option<&'p str>) -> Result<&'p str> {
    password.ok_or_else(|| {
        let what = format!("the server at \"{}\" wants a password of \"{user}\"", channel.place());
        Failure::new(Cause::Settings, what)
            .hint("write HOST:PORT:replication:USER:PASSWORD into ~/.pgpass, which only its owner may read")
    })
}

fn undone(channel: &Channel, how: &str) -> Failure<Cause> {
    let what = format!("the server at \"{}\" wants {how}, which is not supported here", channel.place());
    Failure::new(Cause::Settings, what).hint("give the role a line with scram-sha-256 or peer in pg_hba.conf")
}
