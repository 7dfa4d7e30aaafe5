//! The laptop's side of oneknock.
