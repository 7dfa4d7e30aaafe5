//! `oneknockd`: see the library.

fn main() {}
