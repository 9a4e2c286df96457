//! A case: its name, the items of the protocol that it proves, and how it runs.

use std::pin::Pin;
use std::time::Duration;

use crate::world::{Shared, World};

/// The longest that a case may take.
const DEADLINE: Duration = Duration::from_secs(120);

type Run = Box<dyn Fn(World) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

pub struct Case {
    pub name: &'static str,
    pub items: &'static [&'static str],
    alone: bool,
    body: Run,
}

/// A case that runs beside others.
pub fn case<F, R>(name: &'static str, items: &'static [&'static str], body: F) -> Case
where
    F: Fn(World) -> R + Send + Sync + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    Case {
        name,
        items,
        alone: false,
        body: Box::new(move |world| Box::pin(body(world))),
    }
}

impl Case {
    /// A case that changes what the stand-in does to everybody.
    pub fn alone(mut self) -> Self {
        self.alone = true;
        self
    }

    pub async fn run(&self, shared: &Shared) {
        let work = async {
            let world = World::new(shared, self.alone).await;
            (self.body)(world.clone()).await;
            if self.alone {
                world.back_to_normal().await;
            }
        };
        tokio::time::timeout(DEADLINE, work)
            .await
            .unwrap_or_else(|_| panic!("{} did not end within {DEADLINE:?}", self.name));
    }
}
