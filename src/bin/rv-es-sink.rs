//! any stream -> Elasticsearch `_bulk`.

fn main() -> std::process::ExitCode {
    rv::stage::cli::main::<rv::observe::es_sink::EsSinkArgs>()
}
