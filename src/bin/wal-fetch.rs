//! See `wal_archive::cli::fetch`.

fn main() -> std::process::ExitCode {
    wal_archive::cli::fetch::main()
}
