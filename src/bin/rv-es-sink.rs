//! Any stream to Elasticsearch `_bulk`.

fn main() -> std::process::ExitCode {
    rv::main::<rv::EsSinkArgs>()
}
