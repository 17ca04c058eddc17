//! See `wal_archive::cli::push`.

fn main() -> std::process::ExitCode {
    wal_archive::cli::push::main()
}
