//! sampan-stats
