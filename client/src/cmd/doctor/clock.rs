//! Whether this computer's clock is right, as far as anybody here knows.

use super::PATIENCE;
use std::io::Read;
use std::process::{Command, Stdio};
use std::sync::mpsc::sync_channel;

/// As systemd knows it; elsewhere nobody is asked.
pub(super) fn is_synchronised() -> Option<bool> {
    let mut ask = Command::new("timedatectl");
    let ask = ask.args(["show", "--property=NTPSynchronized", "--value"]);
    let mut asked = ask
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let mut out = asked.stdout.take()?;
    let (tell, told) = sync_channel(1);
    std::thread::spawn(move || {
        let mut said = Vec::new();
        // Nobody waits for it any more where telling fails.
        let _ = out.read_to_end(&mut said).map(|_| tell.send(said));
    });
    let said = told.recv_timeout(PATIENCE).ok();
    // One that says nothing, or does not end, is not waited for.
    let _ = asked.kill();
    let _ = asked.wait();
    match said?.trim_ascii() {
        b"yes" => Some(true),
        b"no" => Some(false),
        _ => None,
    }
}
