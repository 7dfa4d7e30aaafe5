//! `oneknockctl`: see the library.

fn main() {}
