//! The other side of `gridctl bench fetch`: nginx, which sends a file with sendfile, and a client that reads it over HTTP.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use rustix::process::Signal;

use crate::failure::{Failure, Result};
use crate::limits::{BENCH_TRANSFER_TIMEOUT, KILL_TIMEOUT, PROBE_PAUSE, READY_TIMEOUT};
use crate::ports;
use crate::process::{self, Process};

/// Bytes of one read.
const READ_BYTES: usize = 1024 * 1024;

/// A running nginx; it ends when this is dropped.
pub(crate) struct Nginx {
    pub(crate) version: String,
    address: String,
    master: Child,
}

fn failed(cause: impl std::fmt::Display) -> Failure {
    Failure::new(format!("nginx does not run: {cause}"), "--nginx FILE, or --nginx none")
}

/// All its files lie in `folder`; what it serves lies in `root`. As many worker processes as this machine has cores.
fn configuration(folder: &Path, root: &Path, port: u16, is_root: bool) -> String {
    let (folder, root) = (folder.display(), root.display());
    // The files belong to whoever runs the benchmark; nginx would give up its rights to read them.
    let user = if is_root { "user root;\n" } else { "" };
    format!(
        "{user}worker_processes auto;\ndaemon off;\npid {folder}/nginx.pid;\nerror_log {folder}/nginx-error.log;\n\
         events {{ worker_connections 256; }}\n\
         http {{\n  access_log off;\n  sendfile on;\n  tcp_nopush on;\n  client_body_temp_path {folder}/body;\n  \
         proxy_temp_path {folder}/proxy;\n  fastcgi_temp_path {folder}/fastcgi;\n  uwsgi_temp_path {folder}/uwsgi;\n  \
         scgi_temp_path {folder}/scgi;\n  server {{ listen 127.0.0.1:{port}; root {root}; }}\n}}\n"
    )
}

impl Nginx {
    /// Serves the files of `root`.
    pub(crate) fn start(program: &Path, folder: &Path, root: &Path) -> Result<Self> {
        let version = Command::new(program).arg("-v").output().map_err(failed)?;
        let version = String::from_utf8_lossy(&version.stderr).trim().to_owned();
        let version = version.rsplit("version: ").next().unwrap_or_default().to_owned();
        fs::create_dir_all(folder).map_err(failed)?;
        let port = ports::choose(1, u64::from(std::process::id()) * 11)?[0];
        let file = folder.join("nginx.conf");
        let text = configuration(folder, root, port, rustix::process::getuid().is_root());
        fs::write(&file, text).map_err(failed)?;
        let master = Command::new(program)
            .arg("-p")
            .arg(folder)
            .arg("-c")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(failed)?;
        let mut nginx = Self { version, address: format!("127.0.0.1:{port}"), master };
        let begin = Instant::now();
        while TcpStream::connect(&nginx.address).is_err() {
            if begin.elapsed() > READY_TIMEOUT || nginx.master.try_wait().map_err(failed)?.is_some() {
                let log = fs::read_to_string(folder.join("nginx-error.log")).unwrap_or_default();
                return Err(failed(log.lines().last().unwrap_or("it does not listen")));
            }
            std::thread::sleep(PROBE_PAUSE);
        }
        Ok(nginx)
    }

    /// One download of the file `name`; `sink` gets the bytes in order. Gives their number.
    pub(crate) fn get(address: &str, name: &str, sink: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<u64> {
        let mut stream = TcpStream::connect(address).map_err(failed)?;
        stream.set_read_timeout(Some(BENCH_TRANSFER_TIMEOUT)).map_err(failed)?;
        let request = format!("GET /{name} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).map_err(failed)?;
        read_answer(stream, sink)
    }

    /// HOST:PORT.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    fn processes(&self) -> Vec<Process> {
        let root = Process::of(self.master.id().cast_signed());
        process::family(Path::new("/nowhere/nginx"), &root.into_iter().collect::<Vec<_>>())
    }

    /// Seconds of CPU so far.
    pub(crate) fn cpu_seconds(&self) -> f64 {
        self.processes().iter().map(Process::cpu_seconds).sum()
    }
}

fn read_answer(stream: impl Read, sink: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<u64> {
    let mut reader = BufReader::with_capacity(READ_BYTES, stream);
    let (mut line, mut length) = (String::new(), None);
    for number in 0.. {
        line.clear();
        if reader.read_line(&mut line).map_err(failed)? == 0 {
            return Err(failed("it ended the connection in the head of its answer"));
        }
        if number == 0 && line.split_whitespace().nth(1) != Some("200") {
            return Err(failed(format!("it answered {}", line.trim())));
        }
        let Some((name, value)) = line.trim().split_once(':') else {
            if number > 0 {
                break;
            }
            continue;
        };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse::<u64>().ok();
        }
    }
    let length = length.ok_or_else(|| failed("its answer has no length"))?;
    let mut got = 0;
    while got < length {
        let data = reader.fill_buf().map_err(failed)?;
        if data.is_empty() {
            return Err(failed(format!("{got} bytes came instead of {length}")));
        }
        let count = data.len();
        sink(data)?;
        got += count as u64;
        reader.consume(count);
    }
    Ok(got)
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // The master takes its workers with it; they would stay behind a SIGKILL.
        let processes = self.processes();
        if let Some(master) = Process::of(self.master.id().cast_signed()) {
            master.signal(Signal::TERM);
        }
        for process in processes {
            if !process.wait_gone(KILL_TIMEOUT) {
                process.signal(Signal::KILL);
            }
        }
        let _ = self.master.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(text: &str) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        read_answer(text.as_bytes(), &mut |data| {
            bytes.extend_from_slice(data);
            Ok(())
        })?;
        Ok(bytes)
    }

    #[test]
    fn a_body_is_as_long_as_the_answer_says_and_an_error_is_none() {
        let good = "HTTP/1.1 200 OK\r\nServer: nginx\r\nContent-Length: 5\r\n\r\nhello";
        assert_eq!(answer(good).expect("it is whole"), b"hello");
        for wrong in [
            "HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n",
            "",
        ] {
            assert!(answer(wrong).is_err(), "{wrong}");
        }
    }
}
