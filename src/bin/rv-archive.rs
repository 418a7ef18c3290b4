//! any stream -> `log-<id>.gz`: keeps every line as it came.

fn main() -> std::process::ExitCode {
    rv::main::<rv::ArchiveArgs>()
}
