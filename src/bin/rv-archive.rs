//! Writes any stream to files `log-<id>.gz`, with every line unchanged.

fn main() -> std::process::ExitCode {
    rv::main::<rv::ArchiveArgs>()
}
