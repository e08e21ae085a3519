//! sampan-mirror
