//! Puts a program between the topics of a broker.

fn main() -> std::process::ExitCode {
    rv::main::<rv::BridgeArgs>()
}
