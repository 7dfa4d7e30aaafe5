//! Writes the manual's pages into a folder: `manuals FOLDER`.

use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    let (Some(folder), None) = (args.next(), args.next()) else {
        eprintln!("manuals: it takes a folder, and nothing else");
        return ExitCode::from(2);
    };
    for (name, text) in oneknock_tests::manual::pages() {
        let path = PathBuf::from(&folder).join(name);
        if let Err(error) = std::fs::write(&path, text) {
            eprintln!("manuals: {}: {error}", path.display());
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
