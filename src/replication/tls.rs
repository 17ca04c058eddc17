//! TLS to a server, as `sslmode` has it: asked for before the first message, by rustls.
//!
//! As with libpq `prefer` and `require` encrypt and do not look at the certificate; `verify-ca` wants one of
//! an authority in `sslrootcert`, `verify-full` also the host's name in it. Client certificates are not
//! supported.

use super::parameters::{Encryption, Tls};
use super::{Cause, Result, protocol, settings};
use crate::failure::Failure;
use bytes::BytesMut;
use postgres_protocol::message::frontend;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::{CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore};
use rustls::{SignatureScheme, StreamOwned};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

/// An encrypted connection.
pub(super) type Encrypted = StreamOwned<ClientConnection, TcpStream>;

/// Asks for encryption; `Err` of the inner result: the server has none, and the connection goes on without.
pub(super) fn ask(
    mut stream: TcpStream,
    name: &str,
    tls: &Tls,
) -> Result<std::result::Result<Box<Encrypted>, TcpStream>> {
    let mut request = BytesMut::new();
    frontend::ssl_request(&mut request);
    let mut answer = [0];
    // One byte and no more: what follows it is not encrypted, and would be believed.
    let asked = stream.write_all(&request).and_then(|()| stream.read_exact(&mut answer));
    asked.map_err(|error| failed(name, &error.to_string()))?;
    match (answer, tls.encryption) {
        ([b'S'], _) => begin(stream, name, tls).map(Ok),
        ([b'N'], Encryption::IfPossible) => Ok(Err(stream)),
        ([b'N'], _) => Err(settings(format!("the server at \"{name}\" has no TLS, which sslmode asks for"))
            .hint("set ssl = on there, or connect over its Unix socket")),
        _ => Err(protocol("does not know the request for TLS")),
    }
}

fn failed(name: &str, why: &str) -> Failure<Cause> {
    Failure::new(Cause::Connection, format!("no TLS with the server at \"{name}\": {why}"))
}

fn begin(stream: TcpStream, name: &str, tls: &Tls) -> Result<Box<Encrypted>> {
    let provider = Arc::new(ring::default_provider());
    let verifier = verifier(tls, &provider)?;
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(name, &error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    let host = ServerName::try_from(name.to_owned())
        .map_err(|_| settings(format!("\"{name}\" is no name that a certificate can have")))?;
    let connection = ClientConnection::new(Arc::new(config), host);
    let mut encrypted =
        StreamOwned::new(connection.map_err(|error| failed(name, &error.to_string()))?, stream);
    // So that a certificate that is refused is said here, and not of the first message.
    let shaken = encrypted.conn.complete_io(&mut encrypted.sock);
    shaken.map_err(|error| refused(name, tls, &error))?;
    Ok(Box::new(encrypted))
}

fn refused(name: &str, tls: &Tls, error: &io::Error) -> Failure<Cause> {
    let failure = failed(name, &error.to_string());
    match tls.encryption {
        Encryption::Authority | Encryption::Host => Failure { kind: Cause::Settings, ..failure }.hint(
            "sslrootcert must hold the authority of its certificate, which with verify-full names this host",
        ),
        _ => failure,
    }
}

fn verifier(tls: &Tls, provider: &Arc<CryptoProvider>) -> Result<Arc<dyn ServerCertVerifier>> {
    let known = || -> Result<Arc<WebPkiServerVerifier>> {
        let path = tls.root.as_ref().ok_or_else(|| {
            settings("sslmode asks for a certificate that is checked, and no sslrootcert is there").hint(
                "write the authority's certificate into ~/.postgresql/root.crt, or name it with sslrootcert",
            )
        })?;
        let unread = |why: String| settings(format!("cannot read sslrootcert \"{}\": {why}", path.display()));
        let mut roots = RootCertStore::empty();
        let certificates = CertificateDer::pem_file_iter(path).map_err(|error| unread(error.to_string()))?;
        for certificate in certificates {
            let added = certificate.map_err(|error| error.to_string());
            added.and_then(|one| roots.add(one).map_err(|error| error.to_string())).map_err(unread)?;
        }
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .build()
            .map_err(|error| unread(error.to_string()))
    };
    Ok(match tls.encryption {
        Encryption::Host => known()?,
        Encryption::Authority => Arc::new(AnyName(known()?)),
        Encryption::Off | Encryption::IfPossible | Encryption::Required => {
            Arc::new(Anybody(provider.clone()))
        }
    })
}

/// Checks everything but whose name a certificate has.
#[derive(Debug)]
struct AnyName(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        use CertificateError::{NotValidForName, NotValidForNameContext};
        // The name is looked at last.
        match self.0.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            Err(rustls::Error::InvalidCertificate(NotValidForName | NotValidForNameContext { .. })) => {
                Ok(ServerCertVerified::assertion())
            }
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// Takes any certificate, as `require` does.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
