//! One file over HTTP, timed: the same server and the same file everywhere, and two receivers.
//!
//! The server is busybox's httpd with a sparse file, which is read from memory once it has been read: the first transfer of
//! each server is not counted. One receiver is busybox's wget, the only one there is in a pod; the other is this process,
//! which takes what the kernel has in larger pieces. Their figures are not to be compared with each other.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use crate::Result;

/// What is transferred, in bytes.
pub(crate) const SIZE: u64 = 1 << 30;
/// The file's name below the server's root.
pub(crate) const FILE: &str = "zeros";
/// Where all servers listen.
pub(crate) const PORT: u16 = 8080;

/// How much is read at once.
const PIECE: usize = 1 << 20;
/// How long a server may take to appear, and a piece to arrive.
const PATIENCE: Duration = Duration::from_secs(20);
/// The longest head of an answer.
const HEAD: usize = 8192;

/// The file's URL at a server.
pub(crate) fn url(server: SocketAddr) -> String {
    format!("http://{server}/{FILE}")
}

/// The seconds in what `time -p` has written.
pub(crate) fn seconds_of_time(stderr: &str) -> Result<f64> {
    let seconds = stderr.lines().find_map(|line| line.strip_prefix("real ")?.trim().parse().ok());
    seconds
        .filter(|seconds| *seconds > 0.0)
        .ok_or_else(|| format!("`time` told nothing usable:\n{stderr}").into())
}

/// Gigabits a second.
pub(crate) fn rate(seconds: f64) -> f64 {
    SIZE as f64 * 8.0 / seconds / 1e9
}

/// Waits for a server to accept connections.
pub(crate) fn wait_for(server: SocketAddr) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match TcpStream::connect_timeout(&server, PATIENCE) {
            Ok(_) => return Ok(()),
            // A server that has just been started, or whose Service kube-proxy does not know yet, tells nobody when it
            // can be reached.
            Err(error) if error.kind() == ErrorKind::ConnectionRefused && Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(50));
            }
            Err(error) => return Err(format!("no connection to {server}: {error}").into()),
        }
    }
}

/// Receives the file in this process; the seconds from connecting to the last byte.
pub(crate) fn receive(server: SocketAddr) -> Result<f64> {
    receive_sized(server, SIZE).map_err(|error| format!("{}: {error}", url(server)).into())
}

fn receive_sized(server: SocketAddr, size: u64) -> Result<f64> {
    let mut piece = vec![0; PIECE];
    let start = Instant::now();
    let mut stream = TcpStream::connect_timeout(&server, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET /{FILE} HTTP/1.0\r\n\r\n")?;
    let mut received = after_head(&mut stream)?;
    loop {
        match stream.read(&mut piece)? {
            0 => break,
            length => received += length as u64,
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    if received != size {
        return Err(format!("{received} bytes came, not {size}").into());
    }
    Ok(seconds)
}

/// Reads past the head of an answer; how much of the body came with it.
fn after_head(stream: &mut TcpStream) -> Result<u64> {
    const END: &[u8] = b"\r\n\r\n";
    let mut answer = Vec::new();
    let mut piece = [0; HEAD];
    loop {
        let length = stream.read(&mut piece)?;
        answer.extend_from_slice(&piece[..length]);
        let end = answer.windows(END.len()).position(|window| window == END);
        if length > 0 && end.is_none() && answer.len() < HEAD {
            continue;
        }
        let head = String::from_utf8_lossy(&answer[..end.unwrap_or(answer.len())]);
        let status = head.lines().next().unwrap_or_default();
        return match end {
            Some(end) if status.split(' ').nth(1) == Some("200") => {
                Ok((answer.len() - end - END.len()) as u64)
            }
            _ => Err(format!("the server answered {status:?}").into()),
        };
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use kiln_integration::outside::skip_request;

    use super::*;

    /// A server that sends an answer in these pieces.
    fn server(pieces: &'static [&'static str]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port of the loopback interface");
        let address = listener.local_addr().expect("it is bound");
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("somebody asks");
            skip_request(&mut stream);
            for piece in pieces {
                stream.write_all(piece.as_bytes()).expect("it is read");
                thread::sleep(Duration::from_millis(10));
            }
        });
        address
    }

    fn told(pieces: &'static [&'static str]) -> String {
        receive_sized(server(pieces), 7).map_or_else(|error| error.to_string(), |_| "received".to_owned())
    }

    #[test]
    fn only_the_whole_file_counts() {
        assert_eq!(told(&["HTTP/1.1 200 OK\r\nA: b\r\n\r\n", "content"]), "received");
        assert_eq!(told(&["HTTP/1.1 200 OK\r\nA: b\r\n\r", "\ncon", "tent"]), "received");
        assert_eq!(told(&["HTTP/1.1 200 OK\r\n\r\nconten"]), "6 bytes came, not 7");
        let not_found = "the server answered \"HTTP/1.1 404 Not Found\"";
        assert_eq!(told(&["HTTP/1.1 404 Not Found\r\n\r\ncontent"]), not_found);
        assert_eq!(told(&[]), "the server answered \"\"");
    }

    #[test]
    fn what_time_writes_is_read() {
        let seconds = seconds_of_time("real 0.79\nuser 0.00\nsys 0.49\n").expect("it is there");
        assert!((rate(seconds) - 10.87).abs() < 0.01, "{}", rate(seconds));
        assert!(seconds_of_time("wget: server returned error: HTTP/1.1 404 Not Found\n").is_err());
        assert!(seconds_of_time("real 0.00\n").is_err());
    }
}
