//! The tools' AWS CLI, which stays between commands, against a server that plays SSM.

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

/// How long a command may take to the server. It takes milliseconds.
const SENT_TIMEOUT: Duration = Duration::from_secs(30);

/// How often is looked whether it has come.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Plays SSM: stores no parameter called `refused`, and does not answer for one called `silent`.
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
        let noted = Arc::clone(&received);
        let router = Router::new().fallback(async move |body: String| {
            let request: Value = serde_json::from_str(&body).unwrap_or_default();
            noted.lock().unwrap_or_else(PoisonError::into_inner).push(request.clone());
            match request["Name"].as_str() {
                Some("silent") => std::future::pending().await,
                Some("refused") => {
                    let error = json!({ "__type": "ParameterAlreadyExists", "message": "it is there" });
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

    /// The names and values that were received, in order.
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
async fn a_command_that_fails_says_why_and_harms_no_later_one() -> anyhow::Result<()> {
    let ssm = Ssm::start().await?;
    let error = ssm.put("refused", "value").await.expect_err("refused");
    assert!(has_code(&error, "ParameterAlreadyExists") && format!("{error:#}").contains("it is there"), "{error:#}");
    let error = ssm.aws.run(&["ssm", "no-such-command"]).await.expect_err("no command");
    assert!(format!("{error:#}").contains("aws ssm no-such-command failed"), "{error:#}");
    assert_eq!(ssm.put("name", "value").await?, json!({ "Version": 7 }));
    Ok(())
}

#[tokio::test]
async fn commands_at_the_same_time_have_an_answer_each() -> anyhow::Result<()> {
    let ssm = Ssm::start().await?;
    let (one, two, refused) = tokio::join!(ssm.put("one", "1"), ssm.put("two", "2"), ssm.put("refused", "3"));
    assert_eq!((one?, two?), (json!({ "Version": 7 }), json!({ "Version": 7 })));
    assert!(refused.is_err());
    assert_eq!(ssm.received(), [r#""one"="1""#, r#""refused"="3""#, r#""two"="2""#]);
    Ok(())
}

#[tokio::test]
async fn a_command_that_is_cancelled_leaves_no_answer_to_the_next() -> anyhow::Result<()> {
    let ssm = Ssm::start().await?;
    ssm.put("first", "1").await?;
    let sent = async {
        while !ssm.received().iter().any(|put| put.contains("silent")) {
            sleep(POLL_INTERVAL).await;
        }
    };
    tokio::select! {
        put = ssm.put("silent", "2") => bail!("it was answered: {put:?}"),
        sent = timeout(SENT_TIMEOUT, sent) => sent.context("it was not sent")?,
    }
    assert_eq!(ssm.put("last", "3").await?, json!({ "Version": 7 }));
    Ok(())
}
