//! The server's side of oneknock.
