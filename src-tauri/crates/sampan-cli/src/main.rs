//! sampan-cli
fn main() {}
