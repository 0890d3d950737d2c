//! The time until the receiver answers, whatever SSM and SNS do: its own binary, and both services over real sockets.

use std::{
    collections::HashSet,
    convert::Infallible,
    fmt::Write,
    future::pending,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{ConnectInfo, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use futures_util::{future::try_join_all, stream};
use infra::{functions, workspace::Workspace};
use serde_json::{Value, json};
use shared::{
    events::{
        delivery_log::{DeliveryRecord, Outcome},
        unverified::UnverifiedRecord,
    },
    registration::keyring::{KEY_BYTES, Keyring},
};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    task::JoinHandle,
    time::{sleep, timeout},
};

use crate::environment::{ACCEPTED, Receiver, event, stored};

/// The most time until an answer. Tableau reads for three seconds, of which the network and a cold start take their part.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(2400);

/// How often a case is tried until it is answered as it should be: on a busy machine the receiver's timers are late.
const TRIES: usize = 3;

/// The topic for people.
const ALERTS_TOPIC: &str = "arn:aws:sns:us-east-1:000000000000:alerts";

/// How long a slow error takes: with three attempts more than there is time for.
const SLOW: Duration = Duration::from_millis(900);

/// The pause between two bytes of an answer without end.
const DRIP_INTERVAL: Duration = Duration::from_millis(100);

/// How long a connection is waited for until the listener counts as clogged.
const CLOGGED_AFTER: Duration = Duration::from_millis(200);

/// A service's behaviour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// No connection is accepted.
    HangsAtConnect,
    /// Requests are read and not answered.
    HangsAfterTheRequest,
    /// Answers begin and do not end.
    DripsBytes,
    /// Nothing is answered any more, on the connections that worked before and on new ones.
    FallsSilent,
    /// Nothing is answered any more on the connections that worked before.
    LosesItsConnections,
    /// Each request is answered with an error, late.
    Answers500Slowly,
}

/// A call that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    /// Reading the signing keys.
    Ssm,
    /// Publishing to one topic.
    Events,
    Alerts,
    /// Publishing to both.
    Both,
}

/// SSM and SNS.
#[derive(Debug)]
struct Aws {
    fault: Fault,
    call: Call,
    /// Whether the fault has begun.
    is_faulty: AtomicBool,
    /// The other ends of the connections that requests came by before the fault began.
    connections: Mutex<HashSet<SocketAddr>>,
}

/// A listener that accepts no connection, with those that keep it from that.
struct Clogged {
    address: String,
    _listener: TcpListener,
    _connections: Vec<TcpStream>,
}

impl Clogged {
    async fn listen() -> anyhow::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.bind("127.0.0.1:0".parse()?)?;
        let listener = socket.listen(1)?;
        let address = listener.local_addr()?;
        let mut connections = Vec::new();
        while let Ok(connection) = timeout(CLOGGED_AFTER, TcpStream::connect(address)).await {
            connections.push(connection?);
        }
        Ok(Self { address: format!("http://{address}"), _listener: listener, _connections: connections })
    }
}

impl Aws {
    /// Starts a service at an address of its own, so that it has connections of its own.
    async fn serve(self: &Arc<Self>) -> anyhow::Result<(String, JoinHandle<std::io::Result<()>>)> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = format!("http://{}", listener.local_addr()?);
        let router = Router::new().fallback(Self::answer).with_state(Arc::clone(self));
        let service = router.into_make_service_with_connect_info::<SocketAddr>();
        Ok((address, tokio::spawn(async { axum::serve(listener, service).await })))
    }

    /// Whether a connection was there before the fault began.
    fn has_worked(&self, caller: SocketAddr) -> bool {
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.is_faulty.load(Ordering::Relaxed) {
            connections.insert(caller);
        }
        connections.contains(&caller)
    }

    fn is_about(&self, headers: &HeaderMap, body: &str) -> bool {
        let is_publish = body.contains("Action=Publish");
        match self.call {
            Call::Ssm => headers.get("x-amz-target").is_some_and(|target| target == "AmazonSSM.GetParameter"),
            Call::Events => is_publish && body.contains("events"),
            Call::Alerts => is_publish && body.contains("alerts"),
            Call::Both => is_publish,
        }
    }

    async fn answer(
        State(aws): State<Arc<Self>>,
        ConnectInfo(caller): ConnectInfo<SocketAddr>,
        headers: HeaderMap,
        body: String,
    ) -> Response {
        let good = || match headers.contains_key("x-amz-target") {
            true => Json(stored(&keyring())).into_response(),
            false => ACCEPTED.into_response(),
        };
        let is_old = aws.has_worked(caller);
        if !aws.is_faulty.load(Ordering::Relaxed) || !aws.is_about(&headers, &body) {
            return good();
        }
        match aws.fault {
            Fault::LosesItsConnections if !is_old => good(),
            Fault::HangsAtConnect | Fault::HangsAfterTheRequest | Fault::FallsSilent | Fault::LosesItsConnections => {
                pending().await
            }
            Fault::DripsBytes => {
                let drips = stream::unfold((), async |()| {
                    sleep(DRIP_INTERVAL).await;
                    Some((Ok::<_, Infallible>(Bytes::from_static(b" ")), ()))
                });
                Body::from_stream(drips).into_response()
            }
            Fault::Answers500Slowly => {
                sleep(SLOW).await;
                StatusCode::INTERNAL_SERVER_ERROR.into_response()
            }
        }
    }
}

fn keyring() -> Keyring {
    Keyring::of([7; KEY_BYTES])
}

/// A request while a fault lasts.
struct Answered {
    after: Duration,
    status: Value,
    keyring: Keyring,
    signature: String,
    log: String,
}

/// Lets the receiver meet a fault.
async fn meet(fault: Fault, call: Call) -> anyhow::Result<Answered> {
    let starts_well = matches!(fault, Fault::FallsSilent | Fault::LosesItsConnections);
    let aws = Aws { fault, call, is_faulty: AtomicBool::new(!starts_well), connections: Mutex::default() };
    let aws = Arc::new(aws);
    let ((mut ssm, serving_ssm), (mut sns, serving_sns)) = (aws.serve().await?, aws.serve().await?);
    let clogged = Clogged::listen().await?;
    if fault == Fault::HangsAtConnect {
        clogged.address.clone_into(if call == Call::Ssm { &mut ssm } else { &mut sns });
    }
    let variables =
        [("AWS_ENDPOINT_URL_SSM", ssm.as_str()), ("ALERTS_TOPIC_ARN", ALERTS_TOPIC), ("ALERT_EVENTS", "all")];
    let receiver = Receiver::start_built(&sns, &variables).await?;
    // The start does not count.
    receiver.environment.started().await?;
    let mut signed_with = keyring();
    if starts_well {
        let answer = receiver.invoke("before", &json!({ "resource_name": "before" })).await?;
        ensure!(answer["statusCode"] == 200, "{answer}");
        aws.is_faulty.store(true, Ordering::Relaxed);
        if call == Call::Ssm {
            // With a signature of the known key nothing would be read.
            signed_with = Keyring::of([8; KEY_BYTES]);
        }
    }
    let event = event(&signed_with, &body())?;
    let signature =
        event["rawPath"].as_str().and_then(|path| path.rsplit('/').next()).context("a signature")?.to_owned();
    let start = Instant::now();
    let answer = receiver.environment.invoke("during", event).await?;
    let after = start.elapsed();
    [serving_ssm, serving_sns].iter().for_each(JoinHandle::abort);
    Ok(Answered { after, status: answer["statusCode"].clone(), keyring: signed_with, signature, log: receiver.log()? })
}

fn body() -> Value {
    json!({ "resource_name": "during" })
}

impl Answered {
    /// Checks that the answer is in time and the right one, and that the log has what was not published.
    fn check(&self, fault: Fault, call: Call) -> anyhow::Result<()> {
        let Self { status, log, .. } = self;
        ensure!(self.after <= ANSWER_TIMEOUT, "too late");
        let expected = match (fault, call) {
            // A new connection works: the keys are read, and did not make the signature.
            (Fault::LosesItsConnections, Call::Ssm) => 404,
            (Fault::LosesItsConnections, _) => 200,
            _ => 503,
        };
        ensure!(*status == expected, "answered {status}: {log}");
        ensure!(!log.contains(&self.signature), "the log has the signature: {log}");
        let records = log.lines().filter_map(|line| serde_json::from_str::<DeliveryRecord>(line).ok());
        let undelivered = records.filter(|record| record.outcome == Outcome::Undelivered).collect::<Vec<_>>();
        let unverified = log.lines().filter_map(|line| serde_json::from_str::<UnverifiedRecord>(line).ok());
        let genuine = unverified.filter(|record| record.verify(&self.keyring).is_some());
        let bodies: Vec<_> = genuine.filter_map(|record| record.body()).collect();
        let is_unverified = (expected, call) == (503, Call::Ssm);
        ensure!(bodies == vec![body().to_string().into_bytes(); usize::from(is_unverified)], "{log}");
        let failed = match (expected, call) {
            (503, Call::Events) => (true, false),
            (503, Call::Alerts) => (false, true),
            (503, Call::Both) => (true, true),
            _ => {
                ensure!(undelivered.is_empty(), "{log}");
                return Ok(());
            }
        };
        let [record] = &undelivered[..] else { anyhow::bail!("{} records: {log}", undelivered.len()) };
        ensure!(record.body() == Some(body().to_string().into_bytes()), "{log}");
        ensure!((record.error.is_some(), record.alert_error.is_some()) == failed, "{log}");
        Ok(())
    }
}

#[tokio::test]
async fn whatever_ssm_and_the_topics_do_the_answer_is_in_time_and_the_right_one() -> anyhow::Result<()> {
    functions::build(&Workspace::locate()?).await?;
    // A connection belongs to a service and not to one of its topics.
    let cases = [Fault::HangsAtConnect, Fault::LosesItsConnections]
        .into_iter()
        .flat_map(|fault| [Call::Ssm, Call::Both].map(|call| (fault, call)))
        .chain(
            [Fault::HangsAfterTheRequest, Fault::DripsBytes, Fault::FallsSilent, Fault::Answers500Slowly]
                .into_iter()
                .flat_map(|fault| [Call::Ssm, Call::Events, Call::Alerts, Call::Both].map(|call| (fault, call))),
        );
    let met = cases.map(async |(fault, call)| {
        let (mut times, mut result) = (Vec::new(), Ok(()));
        for _ in 0..TRIES {
            let answered = meet(fault, call).await?;
            times.push(answered.after);
            result = answered.check(fault, call);
            if result.is_ok() {
                break;
            }
        }
        anyhow::Ok((format!("{fault:?}, {call:?}: answered after {times:.2?}"), result))
    });
    let mut failures = String::new();
    for (case, result) in try_join_all(met).await? {
        println!("{case}");
        if let Err(error) = result {
            writeln!(failures, "{case}: {error}")?;
        }
    }
    ensure!(failures.is_empty(), "{failures}");
    Ok(())
}
