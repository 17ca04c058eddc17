use super::table::ARCHIVE;
use super::*;
use crate::host::data_directory::DataDirectory;
use crate::storage::s3::{Encryption, S3Settings};
use std::time::Duration;

fn layers(flags: &[(&'static str, &str)], environment: &[(&str, &str)], file: Option<&str>) -> Layers {
    let mut given = Flags::new();
    for (name, value) in flags {
        given.entry(name).or_default().push((*value).to_owned());
    }
    let environment = environment.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    let file = file.map(|text| ConfigFile::parse(Path::new("/c.toml"), text).unwrap());
    Layers { flags: given, environment, file, chosen: None }
}

fn archive(layers: &Layers) -> (Vec<String>, String) {
    let resolved = layers.resolve(&ARCHIVE.row, Program::Push).unwrap();
    (resolved.values, resolved.origin.to_string())
}

#[test]
fn a_flag_wins_over_the_environment_over_the_file_over_wal_g() {
    let file = Some("archive = [\"/file\", \"/file2\"]");
    let both = [("WAL_ARCHIVE", "/env, /env2"), ("WALG_FILE_PREFIX", "/walg")];
    let found = |l: Layers| archive(&l);
    assert_eq!(
        found(layers(&[("archive", "/flag")], &both, file)),
        (vec!["/flag".into()], "--archive".into())
    );
    assert_eq!(
        found(layers(&[], &both, file)),
        (vec!["/env".into(), "/env2".into()], "environment WAL_ARCHIVE".into())
    );
    assert_eq!(
        found(layers(&[], &both[1..], file)),
        (vec!["/file".into(), "/file2".into()], "/c.toml (archive)".into())
    );
    assert_eq!(
        found(layers(&[], &both[1..], None)),
        (vec!["/walg".into()], "environment WALG_FILE_PREFIX".into())
    );
    assert_eq!(found(layers(&[], &[], None)), (vec![], "default".into()));
}

#[test]
fn two_prefixes_of_wal_g_are_ambiguous() {
    let both = layers(&[], &[("WALG_FILE_PREFIX", "/a"), ("WALG_S3_PREFIX", "s3://b")], None);
    assert!(both.push().unwrap_err().message.contains("both set"));
}

#[test]
fn a_section_wins_over_the_top_of_the_file() {
    let file = "archive = [\"/a\"]\ntimeout = \"1min\"\n[push]\ntimeout = \"5s\"\nlevel = 3\n[fetch]\non_error = \"retry\"\n";
    let layers = layers(&[], &[], Some(file));
    let push = layers.push().unwrap();
    assert_eq!((push.level, push.common.timeout), (3, Some(Duration::from_secs(5))));
    let fetch = layers.fetch().unwrap();
    assert_eq!((fetch.on_error, fetch.common.timeout), (OnError::Retry, Some(Duration::from_secs(60))));
}

#[test]
fn destinations_may_be_tables() {
    let layers =
        layers(&[], &[], Some("[[destination]]\nurl = \"/a\"\n[[destination]]\nurl = \"file:///b\"\n"));
    let archive: Vec<_> = layers.push().unwrap().common.archive.iter().map(ToString::to_string).collect();
    assert_eq!(archive, ["/a", "/b"]);
}

#[test]
fn an_unknown_key_or_a_wrong_shape_is_an_error() {
    for (text, reason) in [
        ("archives = []", "unknown key \"archives\""),
        ("level = 1", "unknown key \"level\""),
        ("config = \"/x\"", "unknown key \"config\""),
        ("[push]\non_error = \"retry\"", "unknown key \"on_error\" in [push]"),
        ("[push]\nlevel = [1]", "\"level\" must be one value"),
        ("[fetch]\nallow_empty = \"yes\"", "must be true or false"),
        ("archive = [1]", "array of strings"),
        ("push = 1", "unknown key \"push\""),
        ("[[destination]]\nurl = \"/a\"\nzone = \"x\"", "unknown key \"zone\" in [[destination]]"),
        ("[s3]\nzone = \"x\"", "unknown key \"zone\" in [s3]"),
        ("[s3]\nregion = true", "\"region\" must be one value"),
        ("region = \"x\"", "unknown key \"region\""),
        ("[push]\nregion = \"x\"", "unknown key \"region\" in [push]"),
        ("[[destination]]\n", "needs a \"url\""),
        ("archive = [\"/a\"]\n[[destination]]\nurl = \"/b\"", "keep one"),
        ("archive = [", "not TOML, line 1"),
        ("\n\narchive = 'a\n", "line 3"),
    ] {
        let error = ConfigFile::parse(Path::new("/c.toml"), text).err().unwrap().to_string();
        assert!(
            error.contains(reason) && error.contains("/c.toml") && !error.contains('\n'),
            "{text:?}: {error}"
        );
    }
}

#[test]
fn a_bad_value_is_an_error_that_says_where_it_stands() {
    let at = [("archive", "/a")];
    let message = |l: Layers| (l.push().err(), l.fetch().err());
    let (push, _) = message(layers(&[at[0], ("level", "20")], &[], None));
    assert_eq!(push.unwrap().message, "--level: \"20\" is not a number from -5 to 19");
    let (push, fetch) = message(layers(&at, &[("WAL_ARCHIVE_TIMEOUT", "30")], None));
    assert!(push.unwrap().message.starts_with("environment WAL_ARCHIVE_TIMEOUT: \"30\" is not a duration"));
    assert!(fetch.is_some());
    let (_, fetch) = message(layers(&at, &[], Some("[fetch]\naccept_gap = [\"xyz\"]")));
    let expected = "/c.toml (fetch.accept_gap): \"xyz\" is not the name of a segment or a timeline history";
    assert_eq!(fetch.unwrap().message, expected);
    for bad in ["relative", "s3://", "ftp://a/b", "/a/../b"] {
        assert!(layers(&[("archive", bad)], &[], None).push().is_err(), "{bad}");
    }
    assert!(layers(&[at[0], at[0]], &[], None).push().unwrap_err().message.contains("named twice"));
    assert!(layers(&[], &[], None).push().unwrap_err().message.contains("no archive is named"));
}

#[test]
fn durations_carry_a_unit() {
    for (text, seconds) in
        [("500ms", 0.5), ("30s", 30.0), ("2min", 120.0), ("1h", 3600.0), ("1min 30s", 90.0)]
    {
        assert_eq!(values::duration(text).unwrap().as_secs_f64(), seconds, "{text}");
    }
    for bad in ["", "30", "0s", "-1s", "s", "99999999999999y"] {
        assert!(values::duration(bad).is_err(), "{bad}");
    }
}

#[test]
fn nobodys_wal_silently_becomes_plaintext() {
    for variable in table::WAL_G_ENCRYPTION {
        let theirs = [("WALG_FILE_PREFIX", "/a"), (variable, "secret")];
        let error = layers(&[], &theirs, None).push().unwrap_err();
        assert!(error.message.contains(variable) && !error.to_string().contains("secret"), "{error}");
        assert!(layers(&[], &theirs, Some("[push]\nclient_encryption = \"none\"")).push().is_ok());
        assert!(layers(&[], &theirs, None).fetch().is_ok(), "only push is refused");
    }
    assert!(layers(&[("archive", "/a"), ("client-encryption", "gpg")], &[], None).push().is_err());
}

#[test]
fn every_setting_has_a_flag_a_variable_and_a_key_of_its_own() {
    for (index, setting) in SETTINGS.iter().enumerate() {
        assert!(SETTINGS.iter().skip(index + 1).all(|other| other.name != setting.name));
        assert!(setting.variable().is_none_or(|name| name.starts_with("WAL_ARCHIVE")));
    }
    let strangers =
        layers(&[], &[("WAL_ARCHIVE_PORT", "tcp://x"), ("WAL_ARCHIVE_LEVEL", "1"), ("HOME", "/")], None);
    assert_eq!(strangers.unknown_variables(), ["WAL_ARCHIVE_PORT"]);
}

#[test]
fn an_archive_inside_the_data_directory_is_refused() {
    let base = tempfile::tempdir().unwrap();
    let data = base.path().join("data");
    std::fs::create_dir_all(data.join("archive")).unwrap();
    std::fs::create_dir_all(base.path().join("wal/archive")).unwrap();
    std::fs::write(data.join("PG_VERSION"), "15\n").unwrap();
    std::os::unix::fs::symlink(data.join("archive"), base.path().join("link")).unwrap();
    std::os::unix::fs::symlink(base.path().join("wal"), data.join("pg_wal")).unwrap();
    let directory = DataDirectory::at(&data);
    let refused = |path: &Path| {
        let settings = layers(&[("archive", path.to_str().unwrap())], &[], None).push().unwrap();
        settings.common.check_directories(directory.as_ref()).is_err()
    };
    assert!(refused(&data.join("archive")) && refused(&base.path().join("link")) && refused(&data));
    assert!(refused(&data.join("pg_wal/archive")) && refused(&base.path().join("wal/archive")));
    assert!(!refused(&base.path().join("data-archive")));
}

#[test]
fn one_directory_by_two_names_is_one_copy() {
    let base = tempfile::tempdir().unwrap();
    let path = |name: &str| base.path().join(name);
    std::fs::create_dir(path("one")).unwrap();
    std::fs::create_dir(path("two")).unwrap();
    std::os::unix::fs::symlink(path("one"), path("link")).unwrap();
    let check = |names: [&str; 2]| {
        let names = names.map(|name| path(name).to_str().unwrap().to_owned());
        let settings = layers(&names.each_ref().map(|name| ("archive", name.as_str())), &[], None);
        settings.fetch().unwrap().common.check_directories(None)
    };
    let error = check(["one", "link"]).unwrap_err();
    assert!(error.message.contains("are the same directory"), "{error}");
    check(["one", "two"]).unwrap();
    check(["one", "unmounted"]).unwrap();
}

#[test]
fn only_a_file_that_is_not_there_is_no_configuration() {
    use std::os::unix::fs::symlink;
    let base = tempfile::tempdir().unwrap();
    let path = |name: &str| base.path().join(name);
    let read = |name: &str| ConfigFile::read_if_there(&path(name)).map(|file| file.is_some());
    assert_eq!(read("config.toml"), Ok(false));
    assert_eq!(read("no/config.toml"), Ok(false));
    std::fs::write(path("config.toml"), "").unwrap();
    assert_eq!(read("config.toml"), Ok(true));
    symlink(path("nowhere"), path("link")).unwrap();
    let message = |name: &str| read(name).unwrap_err().message;
    assert!(message("link").starts_with("cannot read"));
    assert!(message("link/config.toml").contains("leads nowhere"));
    assert!(message("config.toml/config.toml").starts_with("cannot read"), "not a directory");
    std::fs::create_dir(path("directory")).unwrap();
    assert!(message("directory").starts_with("cannot read"));
}

fn s3(layers: &Layers) -> Vec<S3Settings> {
    layers.push().unwrap().common.archive.into_iter().map(|destination| destination.s3).collect()
}

#[test]
fn a_destination_has_its_own_s3_settings_before_those_of_all() {
    let file = "[s3]\nendpoint = \"https://all:9000\"\nregion = \"all\"\nsse = \"aws:kms\"\n\
                [[destination]]\nurl = \"s3://one\"\nregion = \"own\"\npath_style = false\n\
                [[destination]]\nurl = \"/directory\"\n[[destination]]\nurl = \"s3://two/p\"\n";
    let found = s3(&layers(&[], &[("AWS_ENDPOINT", "https://walg:1")], Some(file)));
    assert_eq!((found[0].region.as_deref(), found[0].path_style), (Some("own"), Some(false)));
    assert_eq!((found[2].region.as_deref(), found[2].path_style), (Some("all"), None));
    assert_eq!(found[1], S3Settings::default());
    for at in [0, 2] {
        assert_eq!(found[at].endpoint.as_deref(), Some("https://all:9000"));
        assert_eq!(found[at].encryption, Some(Encryption::Kms(None)));
    }
    let found = s3(&layers(&[("region", "flag")], &[("WAL_ARCHIVE_ENDPOINT", "http://env:1/")], Some(file)));
    assert_eq!(found[0].region.as_deref(), Some("flag"));
    assert_eq!(found[2].endpoint.as_deref(), Some("http://env:1"));
}

#[test]
fn wal_gs_s3_variables_are_taken() {
    let theirs = [
        ("WALG_S3_PREFIX", "s3://bucket/prefix"),
        ("AWS_ENDPOINT", "https://store:9000"),
        ("AWS_S3_FORCE_PATH_STYLE", "true"),
        ("WALG_S3_CA_CERT_FILE", "/ca.pem"),
        ("WALG_S3_STORAGE_CLASS", "STANDARD_IA"),
        ("WALG_S3_SSE", "aws:kms"),
        ("WALG_S3_SSE_KMS_ID", "key"),
    ];
    let found = s3(&layers(&[], &theirs, None)).remove(0);
    let expected = S3Settings {
        endpoint: Some("https://store:9000".to_owned()),
        path_style: Some(true),
        ca_bundle: Some("/ca.pem".into()),
        storage_class: Some("STANDARD_IA".to_owned()),
        encryption: Some(Encryption::Kms(Some("key".to_owned()))),
        ..S3Settings::default()
    };
    assert_eq!(found, expected);
}

#[test]
fn a_wrong_s3_setting_is_an_error() {
    for (text, reason) in [
        ("endpoint = \"store\"", "a URL such as https://"),
        ("path_style = \"perhaps\"", "true or false"),
        ("sse = \"AES\"", "AES256 or aws:kms"),
        ("sse_kms_key_id = \"x\"", "needs sse"),
        ("access_key_id = \"x\"", "need each other"),
        ("ca_bundle = \"ca.pem\"", "an absolute path"),
        ("conditional_writes = \"no\"", "required or unsupported"),
        ("request_checksums = \"no\"", "when-supported or when-required"),
    ] {
        let file = format!("archive = [\"s3://bucket\"]\n[s3]\n{text}\n");
        let error = layers(&[], &[], Some(&file)).push().unwrap_err();
        assert!(error.message.contains(reason), "{text}: {error}");
    }
}

#[test]
fn secrets_are_not_shown() {
    let file = "archive = [\"s3://b\"]\n[s3]\naccess_key_id = \"AKID\"\nsecret_access_key = \"SECRET\"\n";
    let shown = format!("{:?}", layers(&[], &[], Some(file)).push().unwrap());
    assert!(shown.contains("s3") && !shown.contains("AKID") && !shown.contains("SECRET"), "{shown}");
}

#[test]
fn a_destination_named_on_the_command_line_has_the_settings_of_its_own_table_or_those_of_s3() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("c.toml");
    let text = "[s3]\nregion = \"here\"\n[[destination]]\nurl = \"s3://one/a\"\nregion = \"there\"\n";
    std::fs::write(&file, text).unwrap();
    let flags = |value: &std::path::Path| Flags::from([("config", vec![value.display().to_string()])]);
    let layers = Layers::read(flags(&file), Environment::new()).unwrap();
    let region = |url: &str| layers.destination(url).unwrap().s3.region;
    assert_eq!(region("s3://one/a/"), Some("there".to_owned()));
    assert_eq!(region("s3://two"), Some("here".to_owned()));
    assert_eq!(region("/directory"), None);
    assert!(layers.destination("relative").is_err());
    // Without any archive; but not with one that cannot be understood.
    std::fs::write(&file, "").unwrap();
    let layers = Layers::read(flags(&file), Environment::new()).unwrap();
    assert!(layers.destination("/directory").is_ok());
    std::fs::write(&file, "archive = \"relative\"").unwrap();
    let layers = Layers::read(flags(&file), Environment::new()).unwrap();
    assert!(layers.destination("/directory").is_err());
}

#[test]
fn a_prefetched_file_is_proved_under_what_decides_what_may_be_believed_and_nothing_else() {
    let terms = |text: &str| {
        let flags = text.split_whitespace().map(|flag| flag.split_once('=').unwrap());
        let mut all = Flags::new();
        for (name, value) in [("archive", "/a"), ("archive", "s3://b/p")].into_iter().chain(flags) {
            let name = SETTINGS.iter().map(|setting| setting.name).find(|known| *known == name).unwrap();
            all.entry(name).or_default().push(value.to_owned());
        }
        Layers::read(all, Environment::new()).unwrap().fetch().unwrap().terms()
    };
    for same in [
        "prefetch=2 timeout=1s log-format=json spool-dir=/s",
        "on-error=abort allow-empty=true accept-gap=000000010000000000000001 partial=true",
        "storage-class=STANDARD_IA sse=AES256 tags=a=b request-checksums=when-required",
    ] {
        assert_eq!(terms(same), terms(""), "{same}");
    }
    for other in [
        "archive=/c",
        "no-header-check=true",
        "endpoint=http://127.0.0.1:9000",
        "region=eu-central-1",
        "path-style=true",
        "profile=other",
        "ca-bundle=/ca.pem",
        "proxy=http://127.0.0.1:3128",
        "no-proxy=127.0.0.1",
    ] {
        assert_ne!(terms(other), terms(""), "{other}");
    }
}

#[test]
fn a_restore_command_works_in_another_directory_than_the_one_that_the_file_is_bound_to() {
    let command = |file: &str| {
        let options = [("spool-dir", "/s p"), ("on-error", "abort")];
        layers(&[], &[], Some(file)).fetch_command(Path::new("/usr/bin/wal-fetch"), &options).unwrap()
    };
    assert_eq!(
        command("archive = [\"/a\"]\n"),
        "/usr/bin/wal-fetch --config /c.toml --spool-dir '/s p' --on-error abort %f %p"
    );
    let bound = command("archive = [\"/a\"]\npgdata = \"/data\"\n");
    assert!(bound.contains(" --archive /a --spool-dir "), "{bound}");
}

#[test]
fn no_argument_takes_destination_tables_to_another_directory_than_the_one_that_the_file_is_bound_to() {
    let elsewhere =
        |file: &str, server: &str| layers(&[], &[], Some(file)).refuse_elsewhere(Path::new(server));
    let bound = "pgdata = \"/data\"\n[[destination]]\nurl = \"/a\"\n";
    let refused = elsewhere(bound, "/other").unwrap_err();
    assert!(refused.message.contains("for the data directory \"/data\" and not for \"/other\""), "{refused}");
    assert!(refused.hint.unwrap().contains("[cluster.NAME]"));
    assert!(elsewhere(bound, "/data").is_ok());
    assert!(elsewhere("[[destination]]\nurl = \"/a\"\n", "/other").is_ok());
    assert!(elsewhere("archive = [\"/a\"]\npgdata = \"/data\"\n", "/other").is_ok());
}
