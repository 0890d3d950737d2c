//! The worker of the tools' AWS CLI, against a simulated SSM.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, bail};
use axum::{Router, http::StatusCode};
use infra::{
    aws::{Aws, Input, has_code},
    python::PythonTools,
    workspace::Workspace,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    net::TcpListener,
    task::JoinHandle,
    time::{sleep, timeout},
};

/// How long a command may take to reach the server. It takes milliseconds.
const SENT_TIMEOUT: Duration = Duration::from_secs(30);

/// Time between two checks for the command.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Simulates SSM. It rejects a parameter called `rejected`, and does not answer for one called `unanswered`.
struct Ssm {
    aws: Aws,
    received: Arc<Mutex<Vec<Value>>>,
    serving: JoinHandle<std::io::Result<()>>,
    _folder: TempDir,
}

impl Ssm {
    async fn start() -> anyhow::Result<Self> {
        let received = Arc::<Mutex<Vec<Value>>>::default();
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let endpoint = format!("http://{}", listener.local_addr()?);
        let requests = Arc::clone(&received);
        let router = Router::new().fallback(async move |body: String| {
            let request: Value = serde_json::from_str(&body).unwrap_or_default();
            requests.lock().unwrap_or_else(PoisonError::into_inner).push(request.clone());
            match request["Name"].as_str() {
                Some("unanswered") => std::future::pending().await,
                Some("rejected") => {
                    let error = json!({ "__type": "ParameterAlreadyExists", "message": "it exists" });
                    (StatusCode::BAD_REQUEST, error.to_string())
                }
                _ => (StatusCode::OK, json!({ "Version": 7 }).to_string()),
            }
        });
        let serving = tokio::spawn(async { axum::serve(listener, router).await });
        let (tools, folder) = (PythonTools::for_local_stack(&Workspace::locate()?)?, TempDir::new()?);
        Ok(Self { aws: Aws::local(&tools, endpoint, folder.path()), received, serving, _folder: folder })
    }

    async fn put(&self, name: &str, value: &str) -> anyhow::Result<Value> {
        let put = ["ssm", "put-parameter", "--type", "String", "--name", name, "--value", "file:///dev/stdin"];
        self.aws.json_with(&put, Input::Text(value)).await
    }

    /// Names and values of the received parameters, sorted.
    fn received(&self) -> Vec<String> {
        let received = self.received.lock().unwrap_or_else(PoisonError::into_inner);
        let mut received: Vec<_> = received.iter().map(|put| format!("{}={}", put["Name"], put["Value"])).collect();
        received.sort();
        received
    }
}

impl Drop for Ssm {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

#[tokio::test]
async fn a_command_reads_its_own_input_and_prints_its_own_output() -> anyhow::Result<()> {
    let ssm = Ssm::start().await?;
    for value in ["first", "", "a line\nand another, ünïcode"] {
        assert_eq!(ssm.put("name", value).await?, json!({ "Version": 7 }));
    }
    let expected = [r#""name"="""#, r#""name"="a line\nand another, ünïcode""#, r#""name"="first""#];
    assert_eq!(ssm.received(), expected);
    Ok(())
}

#[tokio::test]
async fn a_failed_command_reports_why_and_does_not_affect_later_ones() -> anyhow::Result<()> {
    let ssm = Ssm::start().await?;
    let error = ssm.put("rejected", "value").await.expect_err("rejected");
    assert!(has_code(&error, "ParameterAlreadyExists") && format!("{error:#}").contains("it exists"), "{error:#}");
    let error = ssm.aws.run(&["ssm", "no-such-command"]).await.expect_err("no command");
    assert!(format!("{error:#}").contains("aws ssm no-such-command failed"), "{error:#}");
    assert_eq!(ssm.put("name", "value").await?, json!({ "Version": 7 }));
    Ok(())
}

#[tokio::test]
async fn concurrent_commands_each_get_their_answer() -> anyhow::Result<()> {
    let ssm = Ssm::start().await?;
    let (one, two, rejected) = tokio::join!(ssm.put("one", "1"), ssm.put("two", "2"), ssm.put("rejected", "3"));
    assert_eq!((one?, two?), (json!({ "Version": 7 }), json!({ "Version": 7 })));
    assert!(rejected.is_err());
    assert_eq!(ssm.received(), [r#""one"="1""#, r#""rejected"="3""#, r#""two"="2""#]);
    Ok(())
}

#[tokio::test]
async fn the_answer_of_a_cancelled_command_does_not_reach_the_next() -> anyhow::Result<()> {
    let ssm = Ssm::start().await?;
    ssm.put("first", "1").await?;
    let sent = async {
        while !ssm.received().iter().any(|put| put.contains("unanswered")) {
            sleep(POLL_INTERVAL).await;
        }
    };
    tokio::select! {
        put = ssm.put("unanswered", "2") => bail!("it was answered: {put:?}"),
        sent = timeout(SENT_TIMEOUT, sent) => sent.context("it was not sent")?,
    }
    assert_eq!(ssm.put("last", "3").await?, json!({ "Version": 7 }));
    Ok(())
}
