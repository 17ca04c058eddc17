//! From settings to a client: one runtime for the process, made by the first request.

use super::dates::Dates;
use super::proxy::Proxies;
use super::resolved::Resolved;
use super::settings::{RequestChecksums, S3Settings};
use super::whole::Whole;
use crate::storage::{Error, Kind, Result};
use aws_config::BehaviorVersion;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::{
    Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation, SharedHttpClient,
};
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode};
use aws_smithy_http_client::{Builder, Connector};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use std::sync::OnceLock;
use std::time::Duration;
use tokio::runtime::Runtime;

/// Until a connection stands.
const CONNECT: Duration = Duration::from_secs(5);
/// Until the answer to a request without a body begins.
const STALL: Duration = Duration::from_secs(15);
/// Of one request, body included; a segment over a slow line takes its time.
const ATTEMPT: Duration = Duration::from_secs(110);

/// The process's only runtime.
pub(super) fn runtime() -> Result<&'static Runtime> {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    if let Some(runtime) = RUNTIME.get() {
        return Ok(runtime);
    }
    let failed = |error| Error::new(Kind::Unavailable, "cannot start the network runtime").caused_by(error);
    // The runtime panics where the system has no thread left for it.
    #[expect(clippy::disallowed_methods, reason = "joined, so that it takes no thread from the runtime")]
    let probe = std::thread::Builder::new().spawn(|| ()).map_err(failed)?;
    let _ = probe.join(); // it does nothing
    let made = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let made = made.map_err(failed)?;
    Ok(RUNTIME.get_or_init(|| made))
}

fn timeouts() -> aws_config::timeout::TimeoutConfigBuilder {
    TimeoutConfig::builder()
        .connect_timeout(CONNECT)
        .operation_attempt_timeout(ATTEMPT)
        .operation_timeout(ATTEMPT)
}

/// For requests with a body: the SDK counts the time of sending it as time of waiting for the
/// answer, and a large body over a slow line takes longer than any answer may. A line that
/// stands still is noticed by the SDK's protection against stalled streams.
pub(super) fn while_sending() -> aws_sdk_s3::config::Builder {
    aws_sdk_s3::Config::builder().timeout_config(timeouts().disable_read_timeout().build())
}

/// Makes a client. Nothing is sent to S3 yet, but the chain may ask for credentials' places.
pub(super) async fn connect(
    bucket: &str,
    settings: &S3Settings,
    resolved: &Resolved,
    dates: Dates,
) -> Result<Client> {
    refuse(bucket, resolved)?;
    let proxies = Proxies::of(settings, resolved.is_plain())?;
    let tls = !resolved.is_plain() || proxies.tls;
    let store = http_client(tls.then(|| tls_context(settings)).transpose()?, proxies.store);
    // Static keys are asked of nobody.
    let tls = settings.keys.is_none().then(|| tls_context(settings)).transpose()?;
    let mut loader =
        aws_config::defaults(BehaviorVersion::latest()).http_client(http_client(tls, proxies.credentials));
    if let Some(profile) = &settings.profile {
        loader = loader.profile_name(profile);
    }
    if let Some(keys) = &settings.keys {
        let token = keys.session_token.as_ref().map(|token| token.reveal().to_owned());
        let (id, secret) = (keys.access_key_id.reveal(), keys.secret_access_key.reveal());
        loader = loader.credentials_provider(Credentials::new(id, secret, token, None, "wal-archive"));
    }
    if let Some(region) = &resolved.region {
        // With an endpoint there always is one, so that no instance is asked for it.
        loader = loader.region(Region::new(region.clone()));
    }
    let shared = loader.load().await;
    if shared.region().is_none() {
        return Err(Error::new(Kind::Invalid, "no AWS region is known")
            .hint("set region in the [s3] section, AWS_REGION, or the profile"));
    }
    let mut config = aws_sdk_s3::config::Builder::from(&shared)
        .http_client(store)
        // Repeating is the business of `storage::retry`, which says what it did.
        .retry_config(RetryConfig::disabled())
        .timeout_config(timeouts().read_timeout(STALL).build())
        .request_checksum_calculation(match settings.request_checksums {
            RequestChecksums::WhenSupported => RequestChecksumCalculation::WhenSupported,
            RequestChecksums::WhenRequired => RequestChecksumCalculation::WhenRequired,
        })
        // What is read is proved by its own SHA-256.
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
        .interceptor(dates)
        .interceptor(Whole)
        .force_path_style(settings.path_style.unwrap_or(resolved.endpoint.is_some()));
    if let Some(endpoint) = &resolved.endpoint {
        // Without the slash the SDK's rules write the bucket's name behind that of a folder.
        config = config.endpoint_url(format!("{endpoint}/"));
    }
    Ok(Client::from_conf(config.build()))
}

/// What could only fail later, and less clearly.
fn refuse(bucket: &str, resolved: &Resolved) -> Result<()> {
    if bucket.ends_with("--x-s3") {
        let what =
            format!("\"{bucket}\" is a directory bucket (S3 Express One Zone), which cannot hold an archive");
        return Err(Error::new(Kind::Invalid, what)
            .hint("use a general purpose bucket: a directory bucket does not list in the order of names"));
    }
    if let Some(way) = resolved.unsupported {
        let what = format!("the profile takes its credentials from {way}, which this program does not do");
        return Err(Error::new(Kind::Denied, what).hint(
            "give keys (aws configure export-credentials shows what they are now), or use a role of this machine",
        ));
    }
    Ok(())
}

/// An HTTP client; without TLS where it is not needed, as reading the system's certificates costs
/// more than a request.
fn http_client(tls: Option<TlsContext>, proxy: ProxyConfig) -> SharedHttpClient {
    let Some(tls) = tls else {
        return Builder::new().build_with_connector_fn(move |config, components| {
            let mut builder = Connector::builder().proxy_config(proxy.clone());
            builder.set_connector_settings(config.cloned());
            if let Some(components) = components {
                builder.set_sleep_impl(components.sleep_impl());
            }
            builder.build_http()
        });
    };
    Builder::new().build_with_connector_fn(move |config, components| {
        let mut builder = Connector::builder()
            .proxy_config(proxy.clone())
            .tls_provider(Provider::Rustls(CryptoMode::Ring))
            .tls_context(tls.clone());
        builder.set_connector_settings(config.cloned());
        if let Some(components) = components {
            builder.set_sleep_impl(components.sleep_impl());
        }
        builder.build()
    })
}

fn tls_context(settings: &S3Settings) -> Result<TlsContext> {
    let mut trusted = TrustStore::default();
    if let Some(path) = &settings.ca_bundle {
        let invalid =
            |what: &str| Error::new(Kind::Invalid, format!("CA bundle \"{}\": {what}", path.display()));
        let pem = std::fs::read(path).map_err(|error| invalid("cannot be read").caused_by(error))?;
        // The library panics over a file it cannot parse, so it is parsed here first.
        let certificates: std::result::Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
        match certificates {
            Ok(certificates) if !certificates.is_empty() => {}
            Ok(_) => return Err(invalid("holds no PEM certificate")),
            Err(error) => return Err(invalid("is not PEM").caused_by(error)),
        }
        trusted.add_pem_certificate(pem);
    }
    let context = TlsContext::builder().with_trust_store(trusted).build();
    context.map_err(|error| Error::new(Kind::Invalid, "cannot set up TLS").caused_by(error))
}
