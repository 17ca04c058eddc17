//! Which requests go through a proxy.
//!
//! Those to the store do, where one is set. Those for credentials only where they leave the
//! neighbourhood: instance and container hand out credentials in clear, over addresses that no
//! proxy can reach, and that no proxy may read.

use super::settings::{S3Settings, without_password};
use crate::storage::{Error, Kind, Result};
use aws_smithy_http_client::proxy::ProxyConfig;
use std::env;

/// Where instance, container and node hand out credentials: link-local and loopback addresses,
/// and those of EC2 and EKS in IPv6.
const NEAR: &str = "169.254.0.0/16,fe80::/10,fd00:ec2::/32,127.0.0.0/8,::1,localhost";

/// The proxies of one destination.
pub(super) struct Proxies {
    /// For requests to the store.
    pub(super) store: ProxyConfig,
    /// For the requests of the credentials chain.
    pub(super) credentials: ProxyConfig,
    /// Whether the store's proxy itself is asked over TLS.
    pub(super) tls: bool,
}

impl Proxies {
    pub(super) fn of(settings: &S3Settings, plain: bool) -> Result<Self> {
        Proxies::by(settings, plain, &|name| env::var(name).ok().filter(|value| !value.is_empty()))
    }

    fn by(settings: &S3Settings, plain: bool, variable: &dyn Fn(&str) -> Option<String>) -> Result<Self> {
        let any = |names: &[&str]| names.iter().find_map(|name| variable(name));
        let passed = settings.no_proxy.clone().or_else(|| any(&["NO_PROXY", "no_proxy"])).unwrap_or_default();
        let of_scheme = |names: &[&str]| {
            settings.proxy.clone().or_else(|| any(names)).or_else(|| any(&["ALL_PROXY", "all_proxy"]))
        };
        let https = of_scheme(&["HTTPS_PROXY", "https_proxy"]);
        let http = of_scheme(&["HTTP_PROXY", "http_proxy"]);
        let to_the_store = if plain { http } else { https.clone() };
        Ok(Proxies {
            tls: to_the_store.as_deref().is_some_and(|url| url.starts_with("https://")),
            store: match to_the_store {
                Some(url) => config(&url, ProxyConfig::all)?.no_proxy(&passed),
                None => ProxyConfig::disabled(),
            },
            // Over http nothing but the neighbourhood hands out credentials.
            credentials: match https {
                Some(url) => config(&url, ProxyConfig::https)?.no_proxy(format!("{passed},{NEAR}")),
                None => ProxyConfig::disabled(),
            },
        })
    }
}

type Made = std::result::Result<ProxyConfig, aws_smithy_http_client::proxy::ProxyError>;

fn config(url: &str, make: impl Fn(String) -> Made) -> Result<ProxyConfig> {
    // As everywhere in the environment, a scheme may be missing.
    let full = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
    // What the library says of it would show the password.
    make(full).map_err(|_| {
        let what = format!("the proxy \"{}\" is no URL", without_password(url));
        Error::new(Kind::Invalid, what).hint("write http://host:port")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(settings: &S3Settings, plain: bool, variables: &[(&str, &str)]) -> [String; 2] {
        let variable = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        let proxies = Proxies::by(settings, plain, &variable).unwrap();
        [format!("{:?}", proxies.store), format!("{:?}", proxies.credentials)]
    }

    #[test]
    fn the_setting_comes_before_the_environment_and_the_scheme_chooses_the_variable() {
        let variables = [("HTTP_PROXY", "http://plain:1"), ("HTTPS_PROXY", "tls:2"), ("NO_PROXY", "near.by")];
        let none = S3Settings::default();
        let [store, credentials] = shown(&none, true, &variables);
        assert!(store.contains("plain:1") && store.contains("near.by"), "{store}");
        assert!(credentials.contains("tls:2") && credentials.contains("near.by,169.254"), "{credentials}");
        assert!(shown(&none, false, &variables)[0].contains("tls:2"));
        let set = S3Settings {
            proxy: Some("http://set:3".to_owned()),
            no_proxy: Some("other".to_owned()),
            ..none.clone()
        };
        let [store, credentials] = shown(&set, true, &variables);
        assert!(store.contains("set:3") && store.contains("other") && !store.contains("near.by"), "{store}");
        assert!(credentials.contains("set:3"), "{credentials}");
        assert!(shown(&none, true, &[]).iter().all(|proxy| proxy.contains("Disabled")));
    }

    #[test]
    fn an_error_shows_no_password() {
        let proxy = Some("http://me:hush@a b:1".to_owned());
        let error = Proxies::by(&S3Settings { proxy, ..S3Settings::default() }, true, &|_| None);
        let said = error.err().unwrap().to_string();
        assert!(said.contains("********@a b:1") && !said.contains("hush"), "{said}");
    }
}
