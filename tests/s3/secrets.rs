//! No secret in any output, whatever goes wrong and however much is logged.

use crate::bucket::Bucket;
use crate::support::proxy::Fate;
use crate::support::s3::SECRET_KEY;
use crate::util::Run;
use std::fs;

const ONE: &str = "000000010000000000000001";
const TOKEN: &str = "session-token-8c1e55";

#[test]
fn no_secret_is_ever_shown() {
    let Some(bucket) = Bucket::new() else { return };
    bucket.sandbox.segment(ONE);
    let config = bucket.sandbox.path("c.toml");
    fs::write(
        &config,
        format!("[s3]\naccess_key_id = \"AKIDEXAMPLE\"\nsecret_access_key = \"{SECRET_KEY}\"\nsession_token = \"{TOKEN}\"\n"),
    )
    .unwrap();
    let mut outputs = Vec::new();
    for fate in
        [Fate::Pass, Fate::Answer(403, "AccessDenied"), Fate::Answer(500, "InternalError"), Fate::ResetBefore]
    {
        bucket.planned(move |_| fate.clone());
        for (program, args) in [
            ("wal-push", vec![format!("pg_wal/{ONE}")]),
            ("wal-fetch", ["--timeout", "8s", ONE, "pg_wal/RECOVERYXLOG"].map(str::to_owned).to_vec()),
            ("wal-archive", vec!["config".to_owned()]),
            ("wal-archive", vec!["config".to_owned(), "--json".to_owned()]),
        ] {
            for with_file in [true, false] {
                let mut command = bucket.program(program);
                command.env("AWS_SESSION_TOKEN", TOKEN).env("RUST_LOG", "trace").args(["-vvv"]);
                if with_file {
                    command.arg("--config").arg(&config);
                }
                outputs.push(Run::of(command.args(&args)));
            }
        }
    }
    assert!(
        outputs.iter().any(|run| run.code == Some(0))
            && outputs.iter().any(|run| run.stderr.contains("attempt"))
    );
    for run in outputs {
        for secret in [SECRET_KEY, TOKEN, "AKIDEXAMPLE", "Authorization", "authorization:", "Signature="] {
            assert!(!run.stdout.contains(secret) && !run.stderr.contains(secret), "{secret}: {run:?}");
        }
    }
}
