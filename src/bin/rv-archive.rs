//! Any stream to `log-<id>.gz`: keeps every line unchanged.

fn main() -> std::process::ExitCode {
    rv::main::<rv::ArchiveArgs>()
}
