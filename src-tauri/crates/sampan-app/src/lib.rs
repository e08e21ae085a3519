//! sampan-app
