//! The control socket, as a program that means no good could use it.

use crate::Site;
use crate::wait;
use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

/// Where the daemon is asked.
pub fn socket(site: &Site) -> PathBuf {
    site.dir.join("run/control")
}

/// A connection to it, which waits for nothing for ever.
pub fn connect(site: &Site) -> UnixStream {
    let stream = UnixStream::connect(socket(site)).unwrap();
    stream.set_read_timeout(Some(wait::DEADLINE)).unwrap();
    stream.set_write_timeout(Some(wait::DEADLINE)).unwrap();
    stream
}

/// Sends bytes as they are; gives the first line that comes back, if one does.
pub fn say(site: &Site, bytes: &[u8]) -> String {
    let mut stream = connect(site);
    // The daemon may have had enough before all is sent.
    let _ = stream.write_all(bytes);
    let mut line = String::new();
    let _ = BufReader::new(stream).read_line(&mut line);
    line
}

/// What `oneknockctl status --json` says.
pub fn status(site: &Site) -> Value {
    site.ctl(&["status", "--json"]).json()
}
