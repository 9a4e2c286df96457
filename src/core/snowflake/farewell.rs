//! Last words to Snowflake that nobody waits for: the abort of a statement, the end of a session. They are said in the
//! background; only a process that ends waits a moment for them.

use std::future::Future;
use std::sync::LazyLock;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How many are being said.
static UNSAID: LazyLock<watch::Sender<usize>> = LazyLock::new(|| watch::Sender::new(0));

/// Says it in the background, also if nobody waits for what this returns. Without a runtime the process is ending, and the server
/// notices by itself that the client is gone.
pub(crate) fn say(words: impl Future<Output = ()> + Send + 'static) -> Option<JoinHandle<()>> {
    let runtime = Handle::try_current().ok()?;
    let said = Unsaid::begin();
    Some(runtime.spawn(async move {
        words.await;
        drop(said);
    }))
}

/// Waits until everything has been said that was begun in this process.
pub async fn all_said() {
    // It fails only if the sender is gone, which is never.
    let _ = UNSAID.subscribe().wait_for(|unsaid| *unsaid == 0).await;
}

/// Counts one, however it ends.
struct Unsaid;

impl Unsaid {
    fn begin() -> Self {
        UNSAID.send_modify(|unsaid| *unsaid += 1);
        Self
    }
}

impl Drop for Unsaid {
    fn drop(&mut self) {
        UNSAID.send_modify(|unsaid| *unsaid -= 1);
    }
}
