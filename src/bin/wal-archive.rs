//! See `wal_archive::cli::admin`.

fn main() -> std::process::ExitCode {
    wal_archive::cli::admin::main()
}
