//! See `wal_archive::cli::archive`.

fn main() -> std::process::ExitCode {
    wal_archive::cli::archive::main()
}
