//! The administration; all of it is in the library.

fn main() -> std::process::ExitCode {
    oneknockd::ctl::main()
}
