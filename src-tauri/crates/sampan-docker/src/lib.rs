//! sampan-docker
