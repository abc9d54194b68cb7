//! A store behind a URL: S3 and its compatibles, Google Cloud Storage, Azure.
//!
//! The calls block while a thread of this store's own speaks to it. Each is tried a few times
//! within a bound of time; whoever calls decides when to come again. An object longer than a part
//! goes up in parts, and no such store can put parts only if nobody has the name: for those the
//! name is looked at first. They are snapshots and segments, of which any two with one name are
//! equal.

use super::spool::{Scratch, Spool};
use super::{Listed, Listing, Store, join, last_part};
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::path::Path;
use object_store::{
    BackoffConfig, ClientConfigKey, Error, ObjectStore, ObjectStoreExt, PutMode, PutPayload,
    RetryConfig, WriteMultipart,
};
use std::fmt;
use std::io::{self, ErrorKind};
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};

/// Longer objects go up in parts of this length, and down in ranges of it.
const PART_BYTES: usize = 8 << 20;
/// No store takes more parts of one object.
const PARTS_MAX: usize = 10_000;
/// Parts of one object that are under way at a time: what its transfer takes memory for.
const PARTS_AT_ONCE: usize = 4;
/// One request, body and all; long enough for a part at 300 kB/s.
const REQUEST_TIMEOUT: &str = "30s";
const CONNECT_TIMEOUT: &str = "5s";
/// One call of this store, with its retries; a request that has begun goes on to its own end.
const RETRY_FOR: Duration = Duration::from_secs(10);
const RETRIES_MAX: usize = 3;
/// Heads of objects that are asked for at a time: each waits for the way there and back.
const READERS: usize = 16;

/// An object store, and the thread that speaks to it.
pub struct Remote {
    url: String,
    prefix: Path,
    /// Where long objects are fetched to.
    scratch: Scratch,
    store: Box<dyn ObjectStore>,
    runtime: Runtime,
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Remote").field(&self.url).finish()
    }
}

impl Remote {
    /// The store of `url`, with credentials, region and endpoint from the environment.
    pub fn open(url: &str, scratch: &Scratch) -> io::Result<Remote> {
        let url = url.trim_end_matches('/');
        let refuse = |why: &str| io::Error::new(ErrorKind::InvalidInput, format!("{url}: {why}"));
        let (scheme, rest) = url.split_once("://").ok_or_else(|| refuse("no URL"))?;
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        // An error of the store would print it.
        if bucket.is_empty() || bucket.contains('@') {
            return Err(refuse("expected SCHEME://BUCKET/PREFIX"));
        }
        let prefix = Path::parse(prefix).map_err(|error| refuse(&error.to_string()))?;
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("object-store")
            .enable_all()
            .build()?;
        Ok(Remote {
            store: build(scheme, bucket).map_err(|error| refuse(&error.to_string()))?,
            url: url.to_string(),
            prefix,
            scratch: scratch.clone(),
            runtime,
        })
    }

    fn path(&self, name: &str) -> Path {
        let parts = name.split('/').filter(|part| !part.is_empty());
        parts.fold(self.prefix.clone(), |path, part| path.join(part))
    }

    fn run<T>(&self, work: impl Future<Output = object_store::Result<T>>) -> io::Result<T> {
        self.runtime.block_on(work).map_err(of_store)
    }

    async fn put_in_parts(&self, path: &Path, bytes: &Bytes) -> object_store::Result<()> {
        let part = PART_BYTES.max(bytes.len().div_ceil(PARTS_MAX));
        let upload = self.store.put_multipart(path).await?;
        let mut writer = WriteMultipart::new_with_chunk_size(upload, part);
        let mut rest = bytes.clone();
        while !rest.is_empty() {
            if let Err(error) = writer.wait_for_capacity(PARTS_AT_ONCE).await {
                // What is left of it is swept by the store, if it can be reached at all.
                let _ = writer.abort().await;
                return Err(error);
            }
            writer.put(rest.split_to(part.min(rest.len())));
        }
        writer.finish().await.map(drop)
    }
}

fn build(scheme: &str, bucket: &str) -> object_store::Result<Box<dyn ObjectStore>> {
    let retry = RetryConfig {
        backoff: BackoffConfig::default(),
        max_retries: RETRIES_MAX,
        retry_timeout: RETRY_FOR,
    };
    let client = [
        (ClientConfigKey::Timeout, REQUEST_TIMEOUT),
        (ClientConfigKey::ConnectTimeout, CONNECT_TIMEOUT),
    ];
    Ok(match scheme {
        "gs" => {
            let mut builder = GoogleCloudStorageBuilder::from_env()
                .with_bucket_name(bucket)
                .with_retry(retry);
            for (key, value) in client {
                builder = builder.with_config(GoogleConfigKey::Client(key), value);
            }
            Box::new(builder.build()?)
        }
        "az" => {
            let mut builder = MicrosoftAzureBuilder::from_env()
                .with_container_name(bucket)
                .with_retry(retry);
            for (key, value) in client {
                builder = builder.with_config(AzureConfigKey::Client(key), value);
            }
            Box::new(builder.build()?)
        }
        _ => {
            let mut builder = AmazonS3Builder::from_env()
                .with_bucket_name(bucket)
                .with_retry(retry);
            for (key, value) in client {
                builder = builder.with_config(AmazonS3ConfigKey::Client(key), value);
            }
            let endpoint = builder.get_config_value(&AmazonS3ConfigKey::Endpoint);
            if endpoint.is_some_and(|endpoint| is_plain_loopback(&endpoint)) {
                builder = builder.with_allow_http(true);
            }
            Box::new(builder.build()?)
        }
    })
}

/// Nobody listens in on the way to this machine itself.
fn is_plain_loopback(endpoint: &str) -> bool {
    let Some(rest) = endpoint.strip_prefix("http://") else {
        return false;
    };
    let authority = rest.split('/').next().unwrap_or("");
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next(),
        None => authority.split(':').next(),
    };
    let host = host.unwrap_or("");
    host == "localhost"
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|ip| ip.is_loopback())
}

fn of_store(error: Error) -> io::Error {
    let kind = match &error {
        Error::NotFound { .. } => ErrorKind::NotFound,
        Error::AlreadyExists { .. } | Error::Precondition { .. } => ErrorKind::AlreadyExists,
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => {
            ErrorKind::PermissionDenied
        }
        _ => ErrorKind::Other,
    };
    io::Error::new(kind, error)
}

/// The crate below has no kind for this answer, and tells it in words.
fn is_out_of_range(error: &io::Error) -> bool {
    let story = format!("{error:?}");
    story.contains("416") || story.contains("InvalidRange") || story.contains("StartTooLarge")
}

impl Store for Remote {
    fn place(&self, name: &str) -> String {
        join(&self.url, name)
    }

    fn put_if_absent(&self, name: &str, bytes: &Bytes) -> io::Result<bool> {
        let path = self.path(name);
        let put = self.run(async {
            if bytes.len() <= PART_BYTES * 2 {
                let payload = PutPayload::from_bytes(bytes.clone());
                let mode = PutMode::Create;
                return self
                    .store
                    .put_opts(&path, payload, mode.into())
                    .await
                    .map(|_| true);
            }
            match self.store.head(&path).await {
                Ok(_) => Ok(false),
                Err(Error::NotFound { .. }) => {
                    self.put_in_parts(&path, bytes).await?;
                    Ok(true)
                }
                Err(error) => Err(error),
            }
        });
        match put {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
            put => put,
        }
    }

    fn replace(&self, name: &str, bytes: &Bytes) -> io::Result<()> {
        let path = self.path(name);
        self.run(async {
            if bytes.len() > PART_BYTES * 2 {
                return self.put_in_parts(&path, bytes).await;
            }
            let payload = PutPayload::from_bytes(bytes.clone());
            self.store.put(&path, payload).await.map(drop)
        })
    }

    fn get(&self, name: &str) -> io::Result<Bytes> {
        let mut spool = Spool::new(&self.scratch);
        self.fetch(name, &mut |piece| spool.take(piece))?;
        spool.into_bytes()
    }

    fn fetch(&self, name: &str, take: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let path = &self.path(name);
        self.runtime.block_on(async {
            let length = self.store.head(path).await.map_err(of_store)?.size;
            let range = |at: u64| at..length.min(at + PART_BYTES as u64);
            let reads = (0..length).step_by(PART_BYTES);
            let reads = reads.map(|at| self.store.get_range(path, range(at)));
            let mut pieces = futures_util::stream::iter(reads).buffered(PARTS_AT_ONCE);
            while let Some(piece) = pieces.next().await {
                take(&piece.map_err(of_store)?)?;
            }
            Ok(())
        })
    }

    fn get_range(&self, name: &str, offset: u64, len: u64) -> io::Result<Bytes> {
        let path = self.path(name);
        let range = offset..offset.saturating_add(len);
        let read = self.run(self.store.get_range(&path, range));
        // A store refuses a range that begins behind the end, such as any of an empty object. That
        // is an answer: nothing is there.
        match read {
            Err(error) if is_out_of_range(&error) && self.length(name)? <= offset => {
                Ok(Bytes::new())
            }
            read => read,
        }
    }

    fn length(&self, name: &str) -> io::Result<u64> {
        let path = self.path(name);
        Ok(self.run(self.store.head(&path))?.size)
    }

    fn list(&self, name: &str) -> io::Result<Listing> {
        let path = self.path(name);
        let found = self.run(self.store.list_with_delimiter(Some(&path)))?;
        let mut below: Vec<String> = found
            .common_prefixes
            .iter()
            .map(|prefix| last_part(prefix.as_ref()).to_string())
            .collect();
        let mut objects: Vec<Listed> = found.objects.into_iter().map(listed).collect();
        below.sort_unstable();
        objects.sort_unstable();
        Ok(Listing { below, objects })
    }

    fn list_behind(&self, name: &str, behind: &str) -> io::Result<Vec<Listed>> {
        let (path, offset) = (self.path(name), self.path(&join(name, behind)));
        let found = self.store.list_with_offset(Some(&path), &offset);
        let mut objects = self.run(found.map_ok(listed).try_collect::<Vec<_>>())?;
        objects.sort_unstable();
        Ok(objects)
    }

    fn delete(&self, name: &str) -> io::Result<()> {
        let path = self.path(name);
        self.run(self.store.delete(&path))
    }

    fn readers(&self) -> usize {
        READERS
    }

    fn is_far(&self) -> bool {
        true
    }
}

fn listed(meta: object_store::ObjectMeta) -> Listed {
    Listed {
        name: last_part(meta.location.as_ref()).to_string(),
        bytes: meta.size,
        modified_ns: u64::try_from(meta.last_modified.timestamp_nanos_opt().unwrap_or(0))
            .unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_spoken_to_in_the_open() {
        for plain in [
            "http://127.0.0.1:5000",
            "http://localhost:5000/",
            "http://[::1]:5000",
        ] {
            assert!(is_plain_loopback(plain), "{plain}");
        }
        for other in [
            "https://127.0.0.1:5000",
            "http://10.0.0.1",
            "http://127.0.0.1.example.com",
            "http://",
        ] {
            assert!(!is_plain_loopback(other), "{other}");
        }
    }

    #[test]
    fn a_url_without_a_bucket_or_with_a_password_is_refused() {
        let scratch = Scratch::of_command();
        for url in ["s3://", "s3:///prefix", "s3://key:secret@bucket/prefix"] {
            assert!(Remote::open(url, &scratch).is_err(), "{url}");
        }
    }
}
