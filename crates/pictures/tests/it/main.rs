//! Pictures against the reference processor and Pillow, and hostile files.

mod golden;
mod hostile;
mod pillow;
