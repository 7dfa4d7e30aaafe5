//! The daemon by a clock that a test sets.

fn main() -> std::process::ExitCode {
    oneknock_tests::clock::daemon()
}
