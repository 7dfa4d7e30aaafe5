//! `oneknock`: everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    oneknock::main()
}
