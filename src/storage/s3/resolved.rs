//! Where requests go, found from settings, environment and the AWS files, without asking anybody.
//!
//! The AWS files are read by the SDK's own reader, and what is found here is what the client is
//! given, so that a proof is remembered for the very store that is used. It costs two small files
//! where no endpoint is set, and nothing else; a marked push pays it.

use super::settings::{ConditionalWrites, S3Settings, without_password};
use aws_runtime::env_config::EnvConfigValue;
use aws_runtime::env_config::file::EnvConfigFiles;
use aws_runtime::env_config::section::{EnvConfigSections, Profile};
use aws_runtime::env_config::source;
use aws_types::os_shim_internal::{Env, Fs};
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

/// The region of stores that have none: they do not care, but a signature needs one.
const ANY_REGION: &str = "us-east-1";

/// What the settings and the machine say about a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Resolved {
    /// Without a slash at its end. `None`: AWS.
    pub(super) endpoint: Option<String>,
    /// `None`: the instance may be asked.
    pub(super) region: Option<String>,
    /// What a profile wants that this program does not do.
    pub(super) unsupported: Option<&'static str>,
}

impl Resolved {
    pub(super) fn of(settings: &S3Settings) -> Self {
        Resolved::by(settings, &Env::real(), &Fs::real())
    }

    fn by(settings: &S3Settings, env: &Env, fs: &Fs) -> Self {
        let files = Files::read(settings, env, fs);
        let endpoint = settings.endpoint.clone().or_else(|| files.endpoint(env));
        let endpoint = endpoint.map(|endpoint| endpoint.trim_end_matches('/').to_owned());
        let region = settings.region.clone().or_else(|| files.region(env));
        let region = region.or_else(|| endpoint.is_some().then(|| ANY_REGION.to_owned()));
        Resolved { endpoint, region, unsupported: files.unsupported(settings, env) }
    }

    /// Whether everybody can read what is sent, and change it.
    pub(super) fn is_plain(&self) -> bool {
        let scheme = self.endpoint.as_deref().and_then(|endpoint| endpoint.split("://").next());
        scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case("http"))
    }
}

/// What tells a store, and the way it is written to, from every other one.
pub(super) fn address(place: &str, settings: &S3Settings) -> String {
    let (env, fs) = (Env::real(), Fs::real());
    // The files need not be read where they have no say.
    let store = match &settings.endpoint {
        Some(endpoint) => without_password(endpoint),
        None => match Resolved::by(settings, &env, &fs) {
            Resolved { endpoint: Some(endpoint), .. } => without_password(&endpoint),
            Resolved { region, .. } => format!("AWS {}", region.unwrap_or_default()),
        },
    };
    let mode = match settings.conditional_writes {
        ConditionalWrites::Required => "",
        ConditionalWrites::Unsupported => ", unconditional",
    };
    format!("{place} at {store}{mode}")
}

/// The AWS files; without a profile where there are none, or none that can be read.
struct Files(Option<EnvConfigSections>);

impl Files {
    fn read(settings: &S3Settings, env: &Env, fs: &Fs) -> Self {
        let source = at_once(source::load(env, fs, &EnvConfigFiles::default())).and_then(Result::ok);
        Files(source.and_then(|mut source| {
            if let Some(profile) = &settings.profile {
                source.profile = profile.clone().into();
            }
            EnvConfigSections::parse(source).ok()
        }))
    }

    fn profile(&self) -> Option<&Profile> {
        let sections = self.0.as_ref()?;
        sections.get_profile(sections.selected_profile())
    }

    fn endpoint(&self, env: &Env) -> Option<String> {
        let ignored = EnvConfigValue::new()
            .env("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS")
            .profile("ignore_configured_endpoint_urls")
            .load(env, self.0.as_ref())
            .is_some_and(|(value, _)| value.eq_ignore_ascii_case("true"));
        let configured = EnvConfigValue::new()
            .env("AWS_ENDPOINT_URL")
            .profile("endpoint_url")
            .service_id("S3")
            .load(env, self.0.as_ref())
            .map(|(value, _)| value.into_owned());
        configured.filter(|_| !ignored)
    }

    fn region(&self, env: &Env) -> Option<String> {
        let set = |name: &str| env.get(name).ok().filter(|region| !region.is_empty());
        set("AWS_REGION")
            .or_else(|| set("AWS_DEFAULT_REGION"))
            .or_else(|| self.profile()?.get("region").map(str::to_owned))
    }

    /// The chain asks a profile after the environment only.
    fn unsupported(&self, settings: &S3Settings, env: &Env) -> Option<&'static str> {
        if settings.keys.is_some() || (settings.profile.is_none() && env.get("AWS_ACCESS_KEY_ID").is_ok()) {
            return None;
        }
        let profile = self.profile()?;
        let has = |name: &str| profile.get(name).is_some();
        match (has("aws_access_key_id") || has("role_arn"), has("sso_session") || has("sso_start_url")) {
            (true, _) => None,
            (false, true) => Some("single sign-on (sso_session)"),
            (false, false) => has("credential_process").then_some("credential_process"),
        }
    }
}

/// The SDK's reader is `async` by its type only: it reads files where it is called.
fn at_once<F: Future>(future: F) -> Option<F::Output> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::s3::{Keys, Secret};

    const CONFIG: &str = "[default]\nregion = eu-1\nendpoint_url = http://all:1\n\
        [profile s3]\nservices = own\n[services own]\ns3 =\n  endpoint_url = https://s3:2\n\
        [profile off]\nendpoint_url = http://all:1\nignore_configured_endpoint_urls = true\n\
        [profile sso]\nsso_session = x\n[profile process]\ncredential_process = /bin/keys\n";

    fn resolved(settings: S3Settings, variables: &[(&str, &str)]) -> Resolved {
        let variables = [variables, &[("HOME", "/home/me")]].concat();
        let fs = Fs::from_slice(&[("/home/me/.aws/config", CONFIG)]);
        Resolved::by(&settings, &Env::from_slice(&variables), &fs)
    }

    fn profile(name: &str) -> S3Settings {
        S3Settings { profile: Some(name.to_owned()), ..S3Settings::default() }
    }

    #[test]
    fn the_endpoint_is_the_settings_then_the_environments_then_the_profiles() {
        let set = S3Settings { endpoint: Some("https://own:3".to_owned()), ..S3Settings::default() };
        let endpoint = |settings, variables: &[_]| resolved(settings, variables).endpoint;
        let variable = [("AWS_ENDPOINT_URL", "http://variable:4")];
        assert_eq!(endpoint(set, &variable).as_deref(), Some("https://own:3"));
        assert_eq!(endpoint(S3Settings::default(), &variable).as_deref(), Some("http://variable:4"));
        assert_eq!(endpoint(S3Settings::default(), &[]).as_deref(), Some("http://all:1"));
        assert_eq!(
            endpoint(S3Settings::default(), &[("AWS_PROFILE", "s3")]).as_deref(),
            Some("https://s3:2")
        );
        assert_eq!(endpoint(profile("s3"), &[]).as_deref(), Some("https://s3:2"));
        assert_eq!(endpoint(profile("off"), &[]), None);
        assert_eq!(endpoint(profile("no such"), &[]), None);
    }

    #[test]
    fn with_an_endpoint_there_is_always_a_region_and_without_one_only_where_it_is_said() {
        let region = |settings, variables: &[_]| resolved(settings, variables).region;
        assert_eq!(region(S3Settings::default(), &[]).as_deref(), Some("eu-1"));
        assert_eq!(region(S3Settings::default(), &[("AWS_REGION", "eu-2")]).as_deref(), Some("eu-2"));
        assert_eq!(region(profile("s3"), &[]).as_deref(), Some("us-east-1"));
        assert_eq!(region(profile("off"), &[]), None);
    }

    #[test]
    fn only_http_is_plain() {
        let plain = |endpoint: &str| {
            let settings = S3Settings { endpoint: Some(endpoint.to_owned()), ..S3Settings::default() };
            resolved(settings, &[]).is_plain()
        };
        assert!(plain("http://x") && plain("HTTP://x") && !plain("https://x"));
        assert!(resolved(S3Settings::default(), &[]).is_plain(), "the profile's counts, too");
        assert!(!resolved(profile("off"), &[]).is_plain(), "AWS is always asked by https");
    }

    #[test]
    fn what_a_profile_wants_and_nobody_does_is_known_before_the_first_request() {
        let unsupported = |settings, variables: &[_]| resolved(settings, variables).unsupported;
        assert_eq!(unsupported(profile("sso"), &[]), Some("single sign-on (sso_session)"));
        assert_eq!(unsupported(profile("process"), &[]), Some("credential_process"));
        assert_eq!(unsupported(profile("s3"), &[]), None);
        let variables = [("AWS_PROFILE", "sso"), ("AWS_ACCESS_KEY_ID", "x")];
        assert_eq!(unsupported(S3Settings::default(), &variables), None, "the environment's keys come first");
        let secret = |text: &str| Secret::new(text.to_owned());
        let keys = Keys { access_key_id: secret("x"), secret_access_key: secret("y"), session_token: None };
        let configured = S3Settings { keys: Some(keys), ..profile("sso") };
        assert_eq!(unsupported(configured, &[]), None, "and those of the configuration before all");
    }
}
