//! sampan-upstream
