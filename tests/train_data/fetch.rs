//! Fetching, from a server of our own: the right file, mirrors that fail, files that are not the expected ones.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;

use brain_blitz::formats::digest::sha256;
use brain_blitz::train::data::fetch::{Remote, fetch};
use tempfile::tempdir;

const FILE: &[u8] = b"what the file should hold";

/// A server that answers as many requests as there are answers; gives its address.
fn serve(answers: Vec<(&'static str, Vec<u8>)>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}/f", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for (status, body) in answers {
            let mut stream = listener.accept().unwrap().0;
            let _ = stream.read(&mut [0; 4096]);
            let head = format!(
                "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                body.len()
            );
            let _ = stream.write_all(&[head.as_bytes(), &body].concat());
        }
    });
    address
}

/// An address where nobody listens.
fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}/f", listener.local_addr().unwrap())
}

fn get(urls: Vec<String>, target: &Path) -> brain_blitz::Result<()> {
    let remote = Remote {
        urls,
        sha256: &sha256(FILE),
        size: FILE.len() as u64,
    };
    fetch(&remote, target)
}

#[test]
fn the_first_mirror_with_the_right_file_gives_it() {
    let folder = tempdir().unwrap();
    let target = folder.path().join("made/by/it/file");
    let damaged = b"what the file should h0ld".to_vec();
    let mirrors = vec![
        nobody(),
        serve(vec![("404 Not Found", vec![])]),
        serve(vec![("200 OK", damaged)]),
        serve(vec![("200 OK", FILE.to_vec())]),
    ];
    get(mirrors, &target).unwrap();
    assert_eq!(fs::read(&target).unwrap(), FILE);
}

#[test]
fn without_a_mirror_that_has_it_the_error_says_what_to_do_and_nothing_is_left() {
    let folder = tempdir().unwrap();
    let target = folder.path().join("file");
    let longer = [FILE, b"!"].concat();
    let mirrors = vec![
        serve(vec![("200 OK", longer)]),
        serve(vec![("200 OK", FILE[1..].to_vec())]),
        serve(vec![("500 Internal Server Error", vec![])]),
    ];
    let error = get(mirrors.clone(), &target).unwrap_err().to_string();
    let lines: Vec<&str> = error.lines().collect();
    assert_eq!(lines.len(), 4, "{error}");
    assert!(
        lines[0].contains("put the file there") && lines[0].contains("BB_DATA"),
        "{error}"
    );
    for (line, mirror) in lines[1..].iter().zip(&mirrors) {
        assert!(line.contains(mirror), "{error}");
    }
    assert!(
        lines[1].ends_with("sent more than the 25 bytes of the file"),
        "{error}"
    );
    assert!(lines[2].contains("sent 24 bytes with SHA-256"), "{error}");
    assert!(lines[3].contains("500"), "{error}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_target_that_cannot_be_written_is_not_blamed_on_the_mirrors() {
    let folder = tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let error = get(vec![nobody()], &file.join("below"))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("below") && !error.contains("put the file there"),
        "{error}"
    );
}
