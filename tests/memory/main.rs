//! How much memory large uploads take: files go through a slow store, and the process's peak is compared with what it used
//! before. The store runs in the same process and throws everything away, so its buffers count as well.
//!
//! `SIZE_MB` sets the size of a file, `RATE_MB` how many megabytes a second the store takes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod store;

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bridge_core::config::{Account, AllowedHosts, ConnectionSettings, Credentials, Network};
use bridge_core::memory::{MemoryLimit, SendMemory};
use bridge_core::snowflake::{Session, SessionOptions};

use store::{Cloud, Store};

/// What an upload may add to the memory of a process, of any size and on any cloud.
const LIMIT_MB: u64 = 64;
const MB: u64 = 1024 * 1024;

/// Uploads at once where memory is shared.
const UPLOADS: usize = 6;
/// The size of their files.
const MANY_MB: u64 = 32;

/// One test, so that nothing else fills the memory meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_files_take_little_memory() {
    let size = number("SIZE_MB", 64) * MB;
    let rate = number("RATE_MB", 400) * MB;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("part-00000.parquet");
    // A hole takes no disk and reads as zeros, which encryption makes as random as anything.
    File::create(&path).unwrap().set_len(size).unwrap();

    // Once, before the first upload: what one leaves behind must not make the next look better.
    let idle = status("VmRSS");
    for cloud in [Cloud::Amazon, Cloud::Azure, Cloud::Google] {
        let store = Store::start(cloud, rate).await;
        let mut session = login(store.port, SendMemory::default()).await;
        forget_peak();
        let told = Arc::new(AtomicU64::new(0));
        let progress = {
            let told = Arc::clone(&told);
            move |bytes| told.store(bytes, Ordering::Relaxed)
        };
        session
            .put(&path, "~/big/1/", "part-00000.parquet", &progress)
            .await
            .unwrap();
        let peak = status("VmHWM").saturating_sub(idle);
        println!(
            "memory: cloud={cloud:?} size_mb={} peak_above_idle_mb={} requests={}",
            size / MB,
            peak / MB,
            store.requests()
        );
        assert_eq!(told.load(Ordering::Relaxed), size);
        // PKCS#7 adds a whole block to a whole number of blocks.
        assert_eq!(store.received(), size + 16);
        assert!(
            peak <= LIMIT_MB * MB,
            "{cloud:?}: {} MB more than idle",
            peak / MB
        );
    }
    // A few parts of each are enough to meet the limit.
    let size = size.min(MANY_MB * MB);
    File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(size)
        .unwrap();
    // Half of the limit is for parts, of 8 MB each. Each upload has two under way where it may.
    for (limit_mb, at_once) in [(32, 2), (512, 2 * UPLOADS)] {
        let (peak, most) = many(&path, size, rate, limit_mb * MB, at_once).await;
        println!(
            "memory: uploads={UPLOADS} size_mb={} max_memory_mb={limit_mb} parts_at_once={most} peak_above_idle_mb={}",
            size / MB,
            peak.saturating_sub(idle) / MB,
        );
        assert_eq!(most, at_once, "parts at once");
    }
}

/// The peak of the process while many uploads share one limit, and the most parts that were on their way at once. The
/// store has the first of them wait for as many as there should be.
async fn many(path: &Path, size: u64, rate: u64, limit: u64, at_once: usize) -> (u64, usize) {
    let store = Store::start_with_meeting(Cloud::Amazon, rate, at_once).await;
    let memory = SendMemory::new(MemoryLimit::new(limit));
    forget_peak();
    let uploads = (0..UPLOADS).map(|number| {
        let (memory, path, port) = (memory.clone(), path.to_owned(), store.port);
        tokio::spawn(async move {
            let directory = format!("~/many/{number}/");
            login(port, memory)
                .await
                .put(&path, &directory, "part-00000.parquet", &|_| {})
                .await
                .unwrap();
        })
    });
    for upload in uploads.collect::<Vec<_>>() {
        upload.await.unwrap();
    }
    assert_eq!(store.received(), UPLOADS as u64 * (size + 16));
    (status("VmHWM"), store.most_at_once())
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |value| {
        value
            .parse()
            .unwrap_or_else(|_| panic!("{variable} is a number of megabytes, not {value:?}"))
    })
}

async fn login(port: u16, send_memory: SendMemory) -> Session {
    let hosts = format!("http://127.0.0.1:{port}, http://*.blob.localhost:{port}");
    let network = Network {
        allowed_hosts: AllowedHosts::parse(&hosts).unwrap(),
        stall_timeout: Duration::from_secs(60),
        send_memory,
        ..Network::default()
    };
    let settings = ConnectionSettings {
        account: Account::parse("127.0.0.1", &network.allowed_hosts).unwrap(),
        username: "loader".to_owned(),
        credentials: Credentials::Password("password".into()),
        warehouse: None,
        database: None,
        schema: None,
        role: None,
    };
    Session::login(&settings, &network, &SessionOptions::default())
        .await
        .unwrap()
}

/// A line of the kernel's account of this process, in bytes.
fn status(name: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    let kilobytes: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kilobytes * 1024
}

/// Sets `VmHWM` back to what is used now; 5 is what proc(5) has for that.
fn forget_peak() {
    fs::write("/proc/self/clear_refs", "5").unwrap();
}
