use super::super::table::{LEVEL, REGION, TIMEOUT};
use super::super::{Environment, Flags};
use super::*;
use std::fs;
use std::os::unix::fs::symlink;
use tempfile::TempDir;

/// Two data directories, `a` and `b`, a link to the first, and a third one that no file names.
fn machine() -> TempDir {
    let base = tempfile::tempdir().unwrap();
    for name in ["a", "b", "other"] {
        fs::create_dir(base.path().join(name)).unwrap();
    }
    symlink(base.path().join("a"), base.path().join("link")).unwrap();
    base
}

/// With `@` for the machine's folder.
fn layers(
    machine: &TempDir,
    flags: &[(&'static str, &str)],
    variables: &[(&str, &str)],
    file: &str,
) -> Layers {
    let flags: Flags = flags.iter().map(|(name, value)| (*name, vec![(*value).to_owned()])).collect();
    let environment: Environment =
        variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let text = file.replace('@', machine.path().to_str().unwrap());
    let file = Some(ConfigFile::parse(Path::new("/c.toml"), &text).unwrap());
    Layers { flags, environment, file, chosen: None }
}

/// What a call in a directory of the machine gets.
fn choice(machine: &TempDir, mut layers: Layers, directory: Option<&str>) -> Result<Option<String>, Error> {
    let path = directory.map(|name| machine.path().join(name));
    layers.choose(Caller { data_directory: path.as_deref(), archive_by: ArchiveBy::Settings })?;
    Ok(layers.cluster().map(|chosen| format!("{} by {}", chosen.name, chosen.by)))
}

const TWO: &str =
    "[cluster.a]\npgdata = \"@/a\"\narchive = \"/a\"\n[cluster.b]\npgdata = \"@/b\"\narchive = \"/b\"\n";

#[test]
fn the_data_directory_chooses_the_cluster_by_whatever_name() {
    let machine = machine();
    let choose =
        |directory| choice(&machine, layers(&machine, &[], &[], TWO), Some(directory)).unwrap().unwrap();
    assert_eq!(choose("a"), "a by /c.toml (cluster.a.pgdata)");
    assert_eq!(choose("link"), "a by /c.toml (cluster.a.pgdata)");
    assert_eq!(choose("b"), "b by /c.toml (cluster.b.pgdata)");
}

#[test]
fn a_flag_chooses_before_the_environment_before_the_data_directory() {
    let machine = machine();
    let variable = [("WAL_ARCHIVE_CLUSTER", "b")];
    let choose = |flags: &[(&'static str, &str)]| {
        choice(&machine, layers(&machine, flags, &variable, TWO), Some("a")).unwrap().unwrap()
    };
    assert_eq!(choose(&[("cluster", "a")]), "a by --cluster");
    assert_eq!(choose(&[]), "b by environment WAL_ARCHIVE_CLUSTER");
}

#[test]
fn none_that_fits_is_an_error_that_names_them() {
    let machine = machine();
    let error =
        |file: &str, directory| choice(&machine, layers(&machine, &[], &[], file), directory).unwrap_err();
    let folder = machine.path().display();
    let both = format!("\"a\" is for \"{folder}/a\", \"b\" is for \"{folder}/b\"");
    let other = error(TWO, Some("other"));
    assert_eq!(
        other.message,
        format!("no cluster of \"/c.toml\" is for the data directory \"{folder}/other\": {both}")
    );
    assert!(other.hint.unwrap().contains("--cluster"));
    assert_eq!(
        error(TWO, None).message,
        format!("no data directory tells which cluster of \"/c.toml\" is meant: {both}")
    );
    // A second one without pgdata is not the only one.
    let open = "[cluster.a]\npgdata = \"@/a\"\n[cluster.b]\narchive = \"/b\"\n";
    assert!(error(open, Some("other")).message.ends_with("\"b\" names no pgdata"));
    // One that is not there is nobody's, and not that of a call in a directory that is not there either.
    let gone = "[cluster.a]\npgdata = \"@/gone\"\n";
    assert!(error(gone, Some("gone")).message.contains("no cluster"));
}

#[test]
fn two_that_fit_are_an_error_that_names_them() {
    let machine = machine();
    let file =
        "[cluster.a]\npgdata = \"@/a\"\n[cluster.b]\npgdata = \"@/link\"\n[cluster.c]\npgdata = \"@/b\"\n";
    let error = choice(&machine, layers(&machine, &[], &[], file), Some("a")).unwrap_err();
    assert!(error.message.contains("the clusters \"a\" and \"b\" of \"/c.toml\""), "{error}");
    assert!(error.hint.unwrap().contains("pgdata"));
    let named = layers(&machine, &[("cluster", "b")], &[], file);
    assert_eq!(choice(&machine, named, Some("a")).unwrap().unwrap(), "b by --cluster");
}

#[test]
fn the_only_cluster_serves_every_call_unless_it_names_a_data_directory() {
    let machine = machine();
    let open = || layers(&machine, &[], &[], "[cluster.a]\narchive = \"/a\"\n");
    for directory in [Some("other"), None] {
        let found = choice(&machine, open(), directory).unwrap().unwrap();
        assert_eq!(found, "a by /c.toml (its only cluster)");
    }
    let bound = || layers(&machine, &[], &[], "[cluster.a]\npgdata = \"@/a\"\n");
    assert!(choice(&machine, bound(), Some("a")).unwrap().is_some());
    assert!(choice(&machine, bound(), Some("other")).is_err());
    assert!(choice(&machine, bound(), None).is_err());
}

#[test]
fn a_call_that_names_its_destinations_needs_no_cluster_but_takes_the_one_that_fits() {
    let machine = machine();
    for (flags, variables) in [(&[("archive", "/x")][..], &[][..]), (&[][..], &[("WAL_ARCHIVE", "/x")][..])] {
        let choose =
            |directory| choice(&machine, layers(&machine, flags, variables, TWO), directory).unwrap();
        assert_eq!((choose(Some("other")), choose(None)), (None, None));
        assert!(choose(Some("a")).is_some());
    }
    let mut by_arguments = layers(&machine, &[], &[], TWO);
    by_arguments.choose(Caller { data_directory: None, archive_by: ArchiveBy::Arguments }).unwrap();
    assert_eq!(by_arguments.cluster(), None);
    // WAL-G's variables come after the file, so they name nothing here.
    let theirs = layers(&machine, &[], &[("WALG_FILE_PREFIX", "/x")], TWO);
    assert!(choice(&machine, theirs, Some("other")).is_err());
}

#[test]
fn a_cluster_that_is_named_and_not_there_is_an_error_that_says_which_are() {
    let machine = machine();
    let error = |name, file: &str| {
        let error =
            choice(&machine, layers(&machine, &[("cluster", name)], &[], file), Some("a")).unwrap_err();
        assert!(error.message.starts_with("--cluster: ") && error.hint.is_some(), "{error}");
        error.message
    };
    assert!(error("c", TWO).contains("no cluster \"c\"; it has \"a\", \"b\""));
    assert!(error("c", "archive = \"/a\"").contains("has no clusters"));
    for bad in ["", "a b", "a.b", "ä", &"x".repeat(64)] {
        assert!(
            error(Box::leak(bad.to_owned().into_boxed_str()), TWO)
                .contains("cannot be the name of a cluster")
        );
    }
}

#[test]
fn a_clusters_settings_come_before_those_of_all_each_with_its_section_first() {
    let machine = machine();
    let file = "timeout = \"1s\"\n[push]\ntimeout = \"2s\"\nlevel = 2\n[s3]\nregion = \"all\"\nprofile = \"all\"\n\
                [cluster.a]\ntimeout = \"3s\"\n[cluster.a.push]\ntimeout = \"4s\"\n[cluster.a.s3]\nregion = \"a\"\n\
                [[cluster.a.destination]]\nurl = \"s3://one\"\n[[cluster.a.destination]]\nurl = \"s3://two\"\nregion = \"own\"\n\
                [cluster.b]\narchive = \"s3://b\"\n";
    let of = |name, flags: &[(&'static str, &str)], variables: &[(&str, &str)]| {
        let mut layers = layers(&machine, &[flags, &[("cluster", name)]].concat(), variables, file);
        layers.choose(Caller::default()).unwrap();
        layers
    };
    let seconds = |layers: &Layers, program| layers.get(&TIMEOUT, program).unwrap().unwrap().as_secs();
    let (a, b) = (of("a", &[], &[]), of("b", &[], &[]));
    assert_eq!((seconds(&a, Program::Push), seconds(&a, Program::Fetch)), (4, 3));
    assert_eq!((seconds(&b, Program::Push), seconds(&b, Program::Fetch)), (2, 1));
    assert_eq!(a.get(&LEVEL, Program::Push).unwrap(), 2, "what it does not set is that of all");
    let regions = |layers: &Layers| {
        let archive = layers.push().unwrap().common.archive.into_iter();
        archive.map(|place| (place.s3.region.unwrap(), place.s3.profile.unwrap())).collect::<Vec<_>>()
    };
    let pair = |region: &str| (region.to_owned(), "all".to_owned());
    assert_eq!(regions(&a), [pair("a"), pair("own")]);
    assert_eq!(regions(&b), [pair("all")]);
    let above = of("a", &[("timeout", "9s")], &[("WAL_ARCHIVE_REGION", "env")]);
    assert_eq!(seconds(&above, Program::Push), 9);
    assert_eq!(regions(&above), [pair("env"), pair("env")]);
    assert_eq!(
        above.resolve(&REGION.row, Program::Push).unwrap().origin.to_string(),
        "environment WAL_ARCHIVE_REGION"
    );
    let own = a.own_settings();
    assert_eq!(
        (own.len(), own[0].0, own[0].2.origin.to_string()),
        (1, 2, "/c.toml (cluster.a.destination 2: region)".to_owned())
    );
    let replaced = of("a", &[("archive", "/x")], &[]).push().unwrap().common.archive;
    assert_eq!(replaced.iter().map(ToString::to_string).collect::<Vec<_>>(), ["/x"]);
}

#[test]
fn what_a_cluster_may_not_hold_is_an_error_that_names_it() {
    for (text, reason) in [
        ("cluster = 1", "does not name a cluster"),
        ("[cluster]\na = 1", "does not name a cluster"),
        ("[cluster.\"a b\"]\n", "\"a b\" cannot be the name of a cluster"),
        ("[cluster.\"\"]\n", "\"\" cannot be the name of a cluster"),
        ("[cluster.a]\narchives = []", "[cluster.a]: unknown key \"archives\""),
        ("[cluster.a.b]\narchive = \"/a\"", "[cluster.a]: unknown key \"b\""),
        ("[cluster.a]\ncluster = \"b\"", "[cluster.a]: unknown key \"cluster\""),
        ("[cluster.a]\nlevel = 1", "[cluster.a]: unknown key \"level\""),
        ("[cluster.a.push]\nprefetch = 1", "[cluster.a]: unknown key \"prefetch\" in [push]"),
        ("[cluster.a.s3]\nzone = 1", "[cluster.a]: unknown key \"zone\" in [s3]"),
        (
            "[cluster.a]\narchive = \"/a\"\n[[cluster.a.destination]]\nurl = \"/b\"",
            "[cluster.a]: both \"archive\"",
        ),
        ("archive = \"/a\"\n[cluster.a]\n", "\"archive\" is set at the top"),
        ("[[destination]]\nurl = \"/a\"\n[cluster.a]\n", "\"destination\" is set at the top"),
        ("pgdata = \"/a\"\n[cluster.a]\n", "\"pgdata\" is set at the top"),
    ] {
        let error = ConfigFile::parse(Path::new("/c.toml"), text).err().unwrap();
        assert!(
            error.message.contains(reason) && error.message.starts_with("\"/c.toml\": "),
            "{text:?}: {error}"
        );
        // An unknown key needs no advice.
        let plain = reason.starts_with("[cluster.a]: ");
        assert_eq!(error.hint.is_none(), plain, "{text:?}: {error}");
    }
    let machine = machine();
    let relative = layers(&machine, &[], &[], "[cluster.a]\npgdata = \"data\"\n[cluster.b]\n");
    let error = choice(&machine, relative, Some("a")).unwrap_err();
    assert_eq!(error.message, "/c.toml (cluster.a.pgdata): \"data\" is not an absolute path");
}

#[test]
fn a_file_without_clusters_may_be_for_one_data_directory() {
    let machine = machine();
    let file = "pgdata = \"@/a\"\narchive = \"/a\"\n";
    let choose = |flags: &[(&'static str, &str)], directory| {
        choice(&machine, layers(&machine, flags, &[], file), directory)
    };
    for directory in [Some("a"), Some("link"), None] {
        assert_eq!(choose(&[], directory).unwrap(), None);
    }
    let error = choose(&[], Some("other")).unwrap_err();
    assert!(error.message.contains("/a\" and not for") && error.hint.is_some(), "{error}");
    assert_eq!(choose(&[("archive", "/x")], Some("other")).unwrap(), None);
}

#[test]
fn every_cluster_has_its_own_settings_and_one_archive_for_all_is_refused() {
    let machine = machine();
    let all = layers(&machine, &[], &[("WAL_ARCHIVE_CLUSTER", "a")], TWO).for_each_cluster().unwrap();
    let archives: Vec<_> =
        all.iter().map(|layers| layers.push().unwrap().common.archive[0].to_string()).collect();
    assert_eq!(archives, ["/a", "/b"]);
    assert_eq!(all[1].pgdata().unwrap(), Some(machine.path().join("b")));
    let refused = layers(&machine, &[], &[("WAL_ARCHIVE", "/x")], TWO).for_each_cluster().err().unwrap();
    assert!(refused.message.contains("environment WAL_ARCHIVE names one archive"), "{refused}");
    let none = layers(&machine, &[], &[], "archive = \"/a\"").for_each_cluster().err().unwrap();
    assert_eq!(none.message, "\"/c.toml\" has no clusters");
}

#[test]
fn secrets_of_a_cluster_are_secrets() {
    for text in [
        "[cluster.a.s3]\naccess_key_id = \"x\"",
        "[[cluster.a.destination]]\nurl = \"s3://b\"\nproxy = \"http://a:b@c\"",
    ] {
        assert!(ConfigFile::parse(Path::new("/c.toml"), text).unwrap().holds_secrets(), "{text}");
    }
    assert!(!ConfigFile::parse(Path::new("/c.toml"), TWO).unwrap().holds_secrets());
}
