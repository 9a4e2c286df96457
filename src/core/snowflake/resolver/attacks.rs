//! Names that anybody may use, and that lead into this machine: whoever owns a name decides what is answered, and may answer
//! something else each time. Without the filter, all of them are ways to the listeners here.

use std::collections::VecDeque;
use std::io::Write;
use std::sync::Mutex;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::timeout;

use super::super::http::Http;
use super::*;

const DEADLINE: Duration = Duration::from_secs(20);
const HOSTS: [&str; 5] = [
    "evil.snowflakecomputing.com",
    "bucket.s3.us-west-2.amazonaws.com",
    "evil.blob.core.windows.net",
    "storage.googleapis.com",
    "idp.example.com",
];
const PLACES: [&str; 2] = ["127.0.0.1", "127.8.8.8"];
/// Each a name server's answers, one after the other, of which the last is repeated.
const ANSWERS: [&[&str]; 10] = [
    &["127.0.0.1"],
    &["127.8.8.8"],
    &["0.0.0.0"],
    &["::ffff:127.0.0.1"],
    &["::1"],
    &["::"],
    &["127.8.8.8 127.0.0.1"],
    // Public when it is looked at, and something else when it is used.
    &["8.8.8.8", "127.0.0.1"],
    &["2606:4700::1111", "::ffff:127.0.0.1"],
    &["8.8.8.8 8.8.4.4", "8.8.8.8", "127.8.8.8"],
];

/// Places of this machine. From where somebody comes is told.
struct Listeners {
    port: u16,
    came: UnboundedReceiver<SocketAddr>,
    places: Vec<IpAddr>,
}

impl Listeners {
    async fn start() -> Self {
        let first = TcpListener::bind((PLACES[0], 0)).await.unwrap();
        let port = first.local_addr().unwrap().port();
        let second = TcpListener::bind((PLACES[1], port)).await.unwrap();
        // Not every machine has this one.
        let third = TcpListener::bind((Ipv6Addr::LOCALHOST, port)).await.ok();
        let (told, came) = unbounded_channel();
        let mut places = Vec::new();
        for listener in [Some(first), Some(second), third].into_iter().flatten() {
            places.push(listener.local_addr().unwrap().ip());
            let told = told.clone();
            tokio::spawn(async move {
                while let Ok((_, from)) = listener.accept().await {
                    if told.send(from).is_err() {
                        break;
                    }
                }
            });
        }
        Self { port, came, places }
    }

    fn has_v6(&self) -> bool {
        self.places.iter().any(IpAddr::is_ipv6)
    }

    /// Whether somebody comes.
    async fn are_reached(&mut self) -> bool {
        timeout(DEADLINE, self.came.recv()).await.is_ok()
    }

    /// How many have come. Each listener takes connections in their order, so that ours, seen, prove all before them.
    async fn count(&mut self) -> usize {
        let mut ours = Vec::new();
        for place in &self.places {
            let connection = TcpStream::connect((*place, self.port)).await.unwrap();
            ours.push(connection.local_addr().unwrap());
        }
        let mut others = 0;
        while !ours.is_empty() {
            let from = timeout(DEADLINE, self.came.recv()).await.unwrap().unwrap();
            let before = ours.len();
            ours.retain(|our| *our != from);
            others += usize::from(ours.len() == before);
        }
        others
    }
}

/// A name server that answers this.
fn answering(answers: &[&str]) -> Lookup {
    let answers: VecDeque<Vec<SocketAddr>> = answers
        .iter()
        .map(|answer| {
            let addresses = answer.split(' ').map(|address| address.parse().unwrap());
            addresses
                .map(|address: IpAddr| (address, 0).into())
                .collect()
        })
        .collect();
    let answers = Mutex::new(answers);
    Arc::new(move |_| {
        let mut answers = answers.lock().unwrap();
        let answer = answers[0].clone();
        if answers.len() > 1 {
            answers.pop_front();
        }
        Box::pin(async { Ok(answer) })
    })
}

/// What there is without the filter.
struct Unfiltered(Lookup);

impl Resolve for Unfiltered {
    fn resolve(&self, name: Name) -> Resolving {
        let found = (self.0)(name.as_str().to_owned());
        Box::pin(async {
            let addresses: Addrs = Box::new(found.await?.into_iter());
            Ok(addresses)
        })
    }
}

#[tokio::test]
async fn no_name_leads_into_this_machine() {
    let mut listeners = Listeners::start().await;
    let (mut tried, mut reached, mut connections) = (0, 0, 0);
    for host in HOSTS {
        for answers in ANSWERS {
            let needs_v6 = answers
                .iter()
                .all(|answer| answer.starts_with("::") && !answer.contains('.'));
            if needs_v6 && !listeners.has_v6() {
                continue;
            }
            tried += 1;
            let url = format!("http://{host}:{}/", listeners.port);
            // The most that a setting allows without naming the host.
            let network = Network {
                allow_private_endpoints: true,
                connect_timeout: Duration::from_secs(5),
                ..Network::default()
            };
            let resolver = FilteringResolver {
                lookup: answering(answers),
                ..FilteringResolver::new(&network)
            };
            for _ in 1..answers.len() {
                assert!(resolver.resolve(host.parse().unwrap()).await.is_ok());
            }
            let http = Http::with_resolver(&network, resolver).unwrap();
            let request = http.client.get(&url).build().unwrap();
            assert!(http.execute(request).await.is_err(), "{host} {answers:?}");
            connections += listeners.count().await;

            let naive = Unfiltered(answering(answers));
            for _ in 1..answers.len() {
                assert!(naive.resolve(host.parse().unwrap()).await.is_ok());
            }
            let client = reqwest::Client::builder()
                .no_proxy()
                .dns_resolver(Arc::new(naive));
            // It may still try again when the next case is counted: it has listeners of its own.
            let mut open = Listeners::start().await;
            let url = format!("http://{host}:{}/", open.port);
            let sent = client.build().unwrap().get(&url).send();
            let (_, is_reached) = tokio::join!(sent, open.are_reached());
            reached += usize::from(is_reached);
        }
    }
    // Past the harness, which keeps what tests print to itself.
    writeln!(
        std::io::stdout(),
        "\nsecurity: suite=ssrf names={tried} connections={connections} reached_without_guard={reached}"
    )
    .unwrap();
    assert_eq!(connections, 0);
    assert_eq!(reached, tried);
}
