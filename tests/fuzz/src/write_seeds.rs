//! Writes the seeds into a directory.
#![allow(clippy::unwrap_used, reason = "a tool for one script")]

fn main() {
    let directory = std::path::PathBuf::from(std::env::args_os().nth(1).unwrap());
    for (name, bytes) in holdfast_fuzz::seeds::all() {
        std::fs::write(directory.join(name), bytes).unwrap();
    }
}
