//! sampan-testkit
