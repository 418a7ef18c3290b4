//! any stream -> Elasticsearch `_bulk`.

fn main() -> std::process::ExitCode {
    rv::main::<rv::EsSinkArgs>()
}
