//! An S3-compatible server on loopback: moto, which `./test.sh` installs beside the Python clients.

use crate::cluster::PATIENCE;
use crate::poll::until;
use crate::ports::{self, Range};
use crate::process::signal;
use rustix::process::Signal;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const BUCKET: &str = "bucket";

/// The server; it ends when this is dropped, and forgets everything then.
pub struct S3 {
    server: Child,
    range: Range,
}

impl S3 {
    /// Starts it with `python`'s environment, and makes a bucket.
    pub fn start(python: &Path) -> S3 {
        let range = ports::claim();
        let port = range.base.to_string();
        let server = Command::new(python)
            .args(["-m", "moto.server", "-H", "127.0.0.1", "-p", &port])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let server = server.unwrap_or_else(|e| panic!("{}: {e}: ./test.sh", python.display()));
        let s3 = S3 { server, range };
        until("the S3 server makes a bucket", PATIENCE, || {
            s3.make_bucket().filter(|answer| answer.contains(" 200 "))
        });
        s3
    }

    fn make_bucket(&self) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.range.base)).ok()?;
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .ok()?;
        let request = format!(
            "PUT /{BUCKET} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\
             Connection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }

    /// A place in it.
    pub fn url(&self, prefix: &str) -> String {
        format!("s3://{BUCKET}/{prefix}")
    }

    /// What whoever speaks to it has in its environment.
    pub fn environment(&self) -> [(&'static str, String); 4] {
        [
            ("AWS_ACCESS_KEY_ID", "testing".to_string()),
            ("AWS_SECRET_ACCESS_KEY", "testing".to_string()),
            ("AWS_REGION", "us-east-1".to_string()),
            (
                "AWS_ENDPOINT_URL",
                format!("http://127.0.0.1:{}", self.range.base),
            ),
        ]
    }

    /// It answers nobody until `resume`.
    pub fn pause(&self) {
        signal(self.server.id(), Signal::STOP);
    }

    pub fn resume(&self) {
        signal(self.server.id(), Signal::CONT);
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        // A stopped process is killed, too.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
