//! Compares two models on the same requests.

fn main() -> std::process::ExitCode {
    rv::main::<rv::CompareArgs>()
}
