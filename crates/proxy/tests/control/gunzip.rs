//! Expands what the proxy has compressed, by another hand: the `gzip` of the system.

use std::io::Write as _;
use std::process::{Command, Stdio};

pub fn expanded(page: &[u8]) -> Vec<u8> {
    let mut gzip = Command::new("gzip")
        .arg("-dc")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = gzip.stdin.take().unwrap();
    let page = page.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&page).unwrap());
    let out = gzip.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(out.status.success());
    out.stdout
}
