//! Sends any stream to Elasticsearch through `_bulk`.

fn main() -> std::process::ExitCode {
    rv::main::<rv::EsSinkArgs>()
}
