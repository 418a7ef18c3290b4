//! any stream -> `log-<id>.gz`: keeps every line as it came.

fn main() -> std::process::ExitCode {
    rv::stage::cli::main::<rv::observe::archive::ArchiveArgs>()
}
