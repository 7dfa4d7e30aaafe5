//! `oneknock`: see the library.

fn main() {}
