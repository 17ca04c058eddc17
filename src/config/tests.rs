use super::*;

fn layers(flags: &[(&'static str, &str)], environment: &[(&str, &str)], file: Option<&str>) -> Layers {
    let mut given = Flags::new();
    for (name, value) in flags {
        given.entry(name).or_default().push((*value).to_owned());
    }
    let environment = environment.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    let file = file.map(|text| ConfigFile::parse(Path::new("/c.toml"), text).unwrap());
    Layers { flags: given, environment, file }
}

fn archive(layers: &Layers) -> (Vec<String>, String) {
    let resolved = layers.setting("archive", Program::Push).unwrap();
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
        ("[[destination]]\nurl = \"/a\"\nregion = \"x\"", "unknown key \"region\""),
        ("[[destination]]\n", "needs a \"url\""),
        ("archive = [\"/a\"]\n[[destination]]\nurl = \"/b\"", "keep one"),
        ("archive = [", "not TOML, line 1"),
        ("\n\narchive = 'a\n", "line 3"),
    ] {
        let error = ConfigFile::parse(Path::new("/c.toml"), text).err().unwrap_or_default();
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
    assert_eq!(fetch.unwrap().message, "/c.toml (fetch.accept_gap): \"xyz\" is not the name of a segment");
    for bad in ["relative", "s3://bucket/prefix", "/a/../b"] {
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
        assert!(setting.variable().starts_with("WAL_ARCHIVE"));
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
    std::os::unix::fs::symlink(data.join("archive"), base.path().join("link")).unwrap();
    let refused = |path: &Path| {
        let settings = layers(&[("archive", path.to_str().unwrap())], &[], None).push().unwrap();
        settings.common.refuse_inside(&data).is_err()
    };
    assert!(refused(&data.join("archive")) && refused(&base.path().join("link")) && refused(&data));
    assert!(!refused(&base.path().join("data-archive")));
}
