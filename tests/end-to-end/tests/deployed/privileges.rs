//! The privileges of the template's roles. Each function's binary works under its role, and the role is refused everything
//! else. Ministack checks identities if its `AUTH` is set.

use std::{collections::BTreeMap, fmt::Write, fs, time::Duration};

use anyhow::{Context, ensure};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use end_to_end::{declared::secret_of, destination::Destination, lambda::Environment, local_stack::test_folder};
use infra::{
    aws::Aws,
    cloud::{Cloud, STACK},
    environment::REGION,
    functions,
    python::PythonTools,
    queue, sample,
    service::{Service, http_client},
    stack::Stack,
    workspace::Workspace,
};
use reconciler::config::DEFAULT_TIMEOUT;
use serde_json::{Value, json};
use strict_sns::gateway::Gateway;
use tableau_simulator::server::{Running, Simulator};
use tempfile::TempDir;
use time::OffsetDateTime;

/// The timeouts in the template.
const RECEIVER_TIMEOUT: Duration = Duration::from_secs(10);
const FORWARDER_TIMEOUT: Duration = Duration::from_secs(60);

/// The queue of a target.
const TARGET: &str = "tableau-fanout-target-program";

/// The stack in a cloud that checks identities.
struct Guarded {
    cloud: Cloud,
    stack: Stack,
    tls: Gateway,
    tableau: Running,
    tools: PythonTools,
    _receiver: Destination,
    _server: Service,
    folder: TempDir,
}

/// Credentials of a role, as variables.
type Credentials = [(&'static str, String); 3];

impl Guarded {
    async fn start() -> anyhow::Result<Self> {
        let workspace = Workspace::locate()?;
        let tools = PythonTools::for_local_stack(&workspace)?;
        let release = functions::package(&workspace).await?;
        let (folder, http) = (test_folder(&workspace)?, http_client()?);
        let (server, cloud) = Cloud::start(&tools, &http, folder.path(), &[("AUTH", "true")]).await?;
        let stack = cloud.deploy(STACK, &release).await?;
        // Ministack takes a call with this header, as a load balancer sets it, for one over TLS.
        let over_tls =
            HeaderMap::from_iter([(HeaderName::from_static("x-forwarded-proto"), HeaderValue::from_static("https"))]);
        let tls = Gateway::before(&cloud.endpoint, http, over_tls).await?;
        let receiver = Destination::answering(StatusCode::OK).await?;
        let tableau = Simulator::start(Some(receiver.address.clone())).await?;
        Ok(Self { cloud, stack, tls, tableau, tools, _receiver: receiver, _server: server, folder })
    }

    /// Returns the role with this logical id in the template.
    async fn role(&self, logical_id: &str) -> anyhow::Result<String> {
        let describe = ["cloudformation", "describe-stack-resource", "--stack-name", STACK];
        let resource = self.cloud.aws.json(&[&describe[..], &["--logical-resource-id", logical_id]].concat()).await?;
        let name = resource["StackResourceDetail"]["PhysicalResourceId"].as_str();
        Ok(name.with_context(|| format!("no {logical_id}"))?.to_owned())
    }

    async fn assume(&self, role: &str) -> anyhow::Result<Credentials> {
        let role = self.cloud.aws.json(&["iam", "get-role", "--role-name", role]).await?;
        let arn = role["Role"]["Arn"].as_str().context("a role without an ARN")?;
        let assume = ["sts", "assume-role", "--role-session-name", "test", "--role-arn", arn];
        let assumed = self.cloud.aws.json(&assume).await?;
        let text = |name: &str| assumed["Credentials"][name].as_str().context("no credentials").map(str::to_owned);
        Ok([
            ("AWS_ACCESS_KEY_ID", text("AccessKeyId")?),
            ("AWS_SECRET_ACCESS_KEY", text("SecretAccessKey")?),
            ("AWS_SESSION_TOKEN", text("SessionToken")?),
        ])
    }

    /// Copies a role with its only policy, changed or not, for everyone to assume. Returns its credentials.
    async fn assume_copy(
        &self,
        role: &str,
        policy: &str,
        change: impl FnOnce(&mut [Value]) -> anyhow::Result<()>,
    ) -> anyhow::Result<Credentials> {
        let aws = &self.cloud.aws;
        let found = aws.json(&["iam", "get-role-policy", "--role-name", role, "--policy-name", policy]).await?;
        let mut document = found["PolicyDocument"].clone();
        change(document["Statement"].as_array_mut().context("no statements")?)?;
        let trust = json!({ "Version": "2012-10-17", "Statement": [{ "Effect": "Allow", "Action": "sts:AssumeRole",
            "Principal": { "AWS": "*" } }] });
        let name = format!("copy-for-{policy}");
        let create = ["iam", "create-role", "--role-name", &name, "--assume-role-policy-document", &trust.to_string()];
        aws.run(&create).await?;
        let put = ["iam", "put-role-policy", "--role-name", &name, "--policy-name", policy];
        aws.run(&[&put[..], &["--policy-document", &document.to_string()]].concat()).await?;
        self.assume(&name).await
    }

    /// Puts the reconciler into a VPC.
    async fn enter_vpc(&self) -> anyhow::Result<()> {
        let kept =
            ["Architecture", "AwsEndpointUrl"].map(|name| json!({ "ParameterKey": name, "UsePreviousValue": true }));
        let vpc = [("SubnetIds", SUBNET), ("SecurityGroupIds", SECURITY_GROUP)]
            .map(|(name, value)| json!({ "ParameterKey": name, "ParameterValue": value }));
        let parameters = json!([&kept[..], &vpc].concat()).to_string();
        let update = ["cloudformation", "update-stack", "--stack-name", STACK, "--use-previous-template"];
        let options = ["--capabilities", "CAPABILITY_IAM", "--parameters", &parameters];
        self.cloud.aws.run(&[&update[..], &options].concat()).await?;
        let wait = ["cloudformation", "wait", "stack-update-complete", "--stack-name", STACK];
        self.cloud.aws.run(&wait).await.map(drop)
    }

    /// Creates an unused network interface.
    async fn network_interface(&self) -> anyhow::Result<String> {
        let interface = self.cloud.aws.json(&["ec2", "create-network-interface", "--subnet-id", SUBNET]).await?;
        let id = interface["NetworkInterface"]["NetworkInterfaceId"].as_str();
        Ok(id.context("a network interface without an identifier")?.to_owned())
    }

    /// Creates a queue to which SNS may send, and subscribes it to a topic. Returns its URL.
    async fn subscribe(&self, topic: &str, name: &str) -> anyhow::Result<String> {
        let queue = self.cloud.subscribe_queue_to(topic, name, &json!({})).await?;
        let policy = json!({ "Version": "2012-10-17", "Statement": [{ "Effect": "Allow", "Action": "sqs:SendMessage",
            "Principal": { "Service": "sns.amazonaws.com" }, "Resource": "*" }] });
        let attributes = json!({ "Policy": policy.to_string() }).to_string();
        let set = ["sqs", "set-queue-attributes", "--queue-url", &queue, "--attributes", &attributes];
        self.cloud.aws.run(&set).await?;
        Ok(queue)
    }

    /// Starts a function's binary under a role.
    async fn function(&self, binary: &str, role: &Credentials, timeout: Duration) -> anyhow::Result<Environment> {
        let variables = self.cloud.lambda_environment(&self.stack)?;
        let variables = variables.lines().filter_map(|line| line.split_once('='));
        let role = role.iter().map(|(name, value)| (*name, value.as_str()));
        let sns = ("AWS_ENDPOINT_URL_SNS", self.tls.address.as_str());
        let variables: Vec<_> = variables.chain([sns]).chain(role).collect();
        let path = Workspace::locate()?.built(&format!("debug/{binary}"));
        Environment::start(&self.tools, &path, &variables, &self.folder.path().join(binary), timeout).await
    }

    /// Creates a site on Tableau and declares it.
    async fn declare(&self, name: &str, secret: &str) -> anyhow::Result<()> {
        self.tableau.simulator.world().add_site(name, "fanout", &secret_of(name));
        let server = format!("http://{}", self.tableau.address);
        let entry = json!({ "server": server, "site": name, "token_name": "fanout", "token_secret": secret,
            "events": ["WorkbookCreated"] });
        self.cloud.put_site(&self.stack, name, &entry).await
    }

    /// Returns the AWS CLI with a role's credentials, over TLS or not.
    fn acting_as(&self, credentials: &Credentials, over_tls: bool) -> Aws {
        let endpoint = if over_tls { &self.tls.address } else { &self.cloud.endpoint };
        let variables = credentials.each_ref().map(|(name, value)| (*name, value.as_str()));
        Aws::local_as(&self.tools, endpoint.clone(), self.folder.path(), &variables)
    }
}

/// Whether a command of the AWS CLI is allowed.
async fn may(aws: &Aws, command: &[String]) -> anyhow::Result<bool> {
    let arguments: Vec<_> = command.iter().map(String::as_str).collect();
    let Err(error) = aws.run(&arguments).await else { return Ok(true) };
    // Another error does not show whether the command is allowed.
    let is_refused = ["AccessDenied", "AuthorizationError", "UnauthorizedOperation"]
        .iter()
        .any(|code| format!("{error:#}").contains(code));
    ensure!(is_refused, "aws {command:?} failed: {error:#}");
    Ok(false)
}

/// Widens the statement for listing one path to any path, because ministack checks no paths here.
fn list_any_path(statements: &mut [Value]) -> anyhow::Result<()> {
    let mut by_path = statements.iter_mut().filter(|statement| statement["Action"] == "ssm:GetParametersByPath");
    let statement = by_path.next().context("no statement for the path")?;
    let resources = statement["Resource"].as_array().context("no list")?;
    let [sites, below] =
        ["/sites", "/sites/*"].map(|path| json!(format!("arn:aws:ssm:{REGION}:000000000000:parameter/{STACK}{path}")));
    ensure!(*resources == [sites, below], "another path: {statement}");
    statement["Resource"] = json!("*");
    ensure!(by_path.next().is_none(), "two statements for a path");
    Ok(())
}

const RECEIVER: &str = "receiver";
const RECONCILER: &str = "reconciler";
const FORWARDER: &str = "forwarder";
const SCHEDULE: &str = "schedule";

/// The reconciler of a stack that puts it into a VPC.
const IN_VPC: &str = "in VPC";

/// Ministack's own subnet and security group.
const SUBNET: &str = "subnet-00000001";
const SECURITY_GROUP: &str = "sg-00000001";

/// A command under a role, and whether it is allowed.
struct Row {
    role: &'static str,
    allowed: bool,
    action: String,
    resource: String,
    command: Vec<String>,
    over_tls: bool,
}

/// Returns a row with a command, split at spaces.
fn row(role: &'static str, allowed: bool, command: &str, resource: &str, more: &[&str]) -> Row {
    let command: Vec<_> = command.split(' ').chain([resource]).chain(more.iter().copied()).map(str::to_owned).collect();
    let action = command[..2].join(" ");
    // The policies of topics and queues refuse calls without TLS.
    let over_tls = ["sns", "sqs"].contains(&command[0].as_str());
    Row { role, allowed, resource: resource.to_owned(), over_tls, action, command }
}

/// Returns commands that the roles may run, and others that they may not.
fn rows(stack: &Stack, other_key: &str, interface: &str) -> anyhow::Result<Vec<Row>> {
    let publish = "sns publish --message hello --topic-arn";
    let (events, alerts) = (stack.output("EventsTopicArn")?, stack.output("AlertsTopicArn")?);
    let other_topic = &*format!("arn:aws:sns:{REGION}:000000000000:theirs");
    let get = "ssm get-parameter --name";
    let put = "ssm put-parameter --overwrite --type String --value x --name";
    let [keys, tableau_ca, site] = ["signing-keys", "tableau-ca", "sites/marketing"].map(|name| stack.parameter(name));
    let table = stack.output("StateTableName")?;
    let scan = "dynamodb scan --table-name";
    let item = &["--item", r#"{"pk":{"S":"run"}}"#][..];
    let pk = &["--key", r#"{"pk":{"S":"run"}}"#][..];
    let put_item = "dynamodb put-item --table-name";
    let delete_item = "dynamodb delete-item --table-name";
    let send = "sqs send-message --message-body hello --queue-url";
    let (dead_letters, failed_runs) = (stack.output("DeadLettersUrl")?, stack.output("FailedRunsUrl")?);
    let failures = stack.output("FailedRefreshesUrl")?;
    let receive = "sqs receive-message --queue-url";
    let (receiver, reconciler) = (stack.output("ReceiverName")?, stack.output("ReconcilerName")?);
    let (receiver_log, reconciler_log) = (format!("/aws/lambda/{receiver}"), format!("/aws/lambda/{reconciler}"));
    // Only refusals for logs: ministack checks a function's own log under another ARN than AWS.
    let stream = "logs create-log-stream --log-stream-name test --log-group-name";
    let invoke = "lambda invoke --payload {} --function-name";
    let key = stack.output("KeyId")?;
    let target = stack.parameter("targets/program");
    let [queue, dead] = ["", "-dead"].map(|end| format!("http://127.0.0.1/000000000000/{TARGET}{end}"));
    let hold = &["--item", r#"{"pk":{"S":"target#program"}}"#][..];
    let hold_key = &["--key", r#"{"pk":{"S":"target#program"}}"#][..];

    let mut rows = vec![
        row(RECEIVER, true, publish, events, &[]),
        row(RECEIVER, true, publish, alerts, &[]),
        row(RECEIVER, true, get, &keys, &[]),
        row(RECEIVER, false, stream, &reconciler_log, &[]),
        row(RECEIVER, false, get, &site, &[]),
        row(RECEIVER, false, scan, table, &[]),
        row(RECEIVER, false, put_item, table, item),
        row(RECEIVER, false, get, &tableau_ca, &[]),
        row(RECEIVER, false, "ssm get-parameters-by-path --path", stack.output("SitesPath")?, &[]),
        row(RECEIVER, false, put, &keys, &[]),
        row(RECEIVER, false, send, failed_runs, &[]),
        row(RECONCILER, true, publish, alerts, &[]),
        row(RECONCILER, true, publish, events, &[]),
        row(RECONCILER, true, get, &keys, &[]),
        row(RECONCILER, true, scan, table, &[]),
        row(RECONCILER, true, put_item, table, item),
        row(RECONCILER, true, delete_item, table, pk),
        row(RECONCILER, false, "dynamodb describe-table --table-name", table, &[]),
        row(RECONCILER, false, "dynamodb delete-table --table-name", table, &[]),
        row(RECONCILER, false, scan, "theirs", &[]),
        row(RECONCILER, true, get, &tableau_ca, &[]),
        row(RECONCILER, true, put, &keys, &[]),
        row(RECONCILER, false, put, &site, &[]),
        row(RECONCILER, false, put, &tableau_ca, &[]),
        row(RECONCILER, false, get, &site, &[]),
        row(RECONCILER, true, send, failed_runs, &[]),
        row(RECONCILER, true, receive, failures, &[]),
        row(RECONCILER, false, send, failures, &[]),
        row(RECEIVER, false, receive, failures, &[]),
        row(SCHEDULE, false, receive, failures, &[]),
        row(RECONCILER, false, stream, &receiver_log, &[]),
        row(SCHEDULE, true, invoke, reconciler, &["answer.json"]),
        row(SCHEDULE, false, invoke, receiver, &["answer.json"]),
        row(SCHEDULE, true, send, dead_letters, &[]),
        row(SCHEDULE, false, send, failed_runs, &[]),
        row(SCHEDULE, false, get, &keys, &[]),
        row(SCHEDULE, false, scan, table, &[]),
        row(SCHEDULE, false, publish, alerts, &[]),
        row(FORWARDER, true, get, &target, &[]),
        row(FORWARDER, true, publish, alerts, &[]),
        row(FORWARDER, true, send, &dead, &[]),
        row(FORWARDER, true, receive, &queue, &[]),
        row(FORWARDER, true, "dynamodb update-item --table-name", table, hold_key),
        row(FORWARDER, false, put_item, table, hold),
        row(FORWARDER, true, delete_item, table, hold_key),
        row(FORWARDER, false, scan, table, &[]),
        row(FORWARDER, false, publish, events, &[]),
        row(FORWARDER, false, get, &keys, &[]),
        row(FORWARDER, false, get, &site, &[]),
        row(FORWARDER, false, put, &target, &[]),
        row(FORWARDER, false, receive, failures, &[]),
        row(FORWARDER, false, "sqs purge-queue --queue-url", &queue, &[]),
        row(RECEIVER, false, get, &target, &[]),
        row(RECONCILER, false, get, &target, &[]),
        row(RECEIVER, false, receive, &queue, &[]),
        row(RECONCILER, false, receive, &queue, &[]),
    ];
    let unencrypted = |role, command: &str, resource: &str| {
        let over_tls = row(role, false, command, resource, &[]);
        Row { over_tls: false, resource: format!("{resource}, not over TLS"), ..over_tls }
    };
    rows.extend([
        unencrypted(RECEIVER, publish, events),
        unencrypted(RECEIVER, publish, alerts),
        unencrypted(RECONCILER, publish, events),
        unencrypted(RECONCILER, publish, alerts),
        unencrypted(RECONCILER, send, failed_runs),
        unencrypted(RECONCILER, receive, failures),
        unencrypted(SCHEDULE, send, dead_letters),
    ]);
    // Refused to all functions.
    for role in [RECEIVER, RECONCILER, FORWARDER] {
        let refused = |command: &str, resource: &str, more: &[&str]| row(role, false, command, resource, more);
        rows.extend([
            refused(publish, other_topic, &[]),
            refused("sns subscribe --protocol email --notification-endpoint x@example.com --topic-arn", events, &[]),
            refused("sns set-topic-attributes --attribute-name Policy --attribute-value {} --topic-arn", alerts, &[]),
            refused("sns delete-topic --topic-arn", events, &[]),
            refused(get, "/another-stack/signing-keys", &[]),
            refused("ssm get-parameter-history --name", &keys, &[]),
            refused("ssm delete-parameter --name", &keys, &[]),
            refused("ssm delete-parameter --name", &site, &[]),
            // Without SSM's encryption context.
            refused("kms encrypt --plaintext aGVsbG8= --key-id", key, &[]),
            refused("kms generate-data-key --key-spec AES_256 --key-id", key, &[]),
            refused("kms encrypt --plaintext aGVsbG8= --key-id", other_key, &[]),
            refused("kms schedule-key-deletion --key-id", key, &[]),
            refused("kms put-key-policy --policy {} --key-id", key, &[]),
            refused(send, dead_letters, &[]),
            refused(receive, failed_runs, &[]),
            refused("sqs purge-queue --queue-url", failures, &[]),
            refused("sqs purge-queue --queue-url", dead_letters, &[]),
            refused(invoke, receiver, &["answer.json"]),
            refused(invoke, reconciler, &["answer.json"]),
            refused("lambda update-function-configuration --description x --function-name", receiver, &[]),
            refused("lambda get-function-configuration --function-name", reconciler, &[]),
            refused("logs filter-log-events --log-group-name", &receiver_log, &[]),
            refused("logs delete-log-group --log-group-name", &reconciler_log, &[]),
            refused("cloudwatch delete-alarms --alarm-names", "tableau-fanout-events-not-accepted", &[]),
            refused("cloudformation delete-stack --stack-name", STACK, &[]),
            refused("iam list-roles --path-prefix", "/", &[]),
            refused("s3api list-objects-v2 --bucket", "artifacts", &[]),
            refused("dynamodb list-tables --region", REGION, &[]),
            refused("secretsmanager get-secret-value --secret-id", "theirs", &[]),
            refused("scheduler delete-schedule --name", "theirs", &[]),
        ]);
        rows.extend(network_rows(role, false, interface));
    }
    Ok(rows)
}

/// Returns Lambda's commands on network interfaces in a VPC, with a function's role, and others. Ministack cannot assign
/// addresses to interfaces.
fn network_rows(role: &'static str, is_in_vpc: bool, interface: &str) -> Vec<Row> {
    let lambdas = |command: &str, resource: &str| row(role, is_in_vpc, command, resource, &[]);
    let refused = |command: &str, resource: &str| row(role, false, command, resource, &[]);
    vec![
        lambdas("ec2 create-network-interface --subnet-id", SUBNET),
        lambdas("ec2 describe-network-interfaces --network-interface-ids", interface),
        lambdas("ec2 describe-subnets --subnet-ids", SUBNET),
        lambdas("ec2 delete-network-interface --network-interface-id", interface),
        refused("ec2 describe-instances --region", REGION),
        refused("ec2 describe-security-groups --group-ids", SECURITY_GROUP),
        refused("ec2 create-security-group --description x --group-name", "theirs"),
        refused("ec2 delete-subnet --subnet-id", SUBNET),
        // AWS's managed policy for functions in a VPC would allow any log.
        refused("logs create-log-group --log-group-name", "/aws/lambda/theirs"),
    ]
}

/// Runs the reconciler under a role. It reconciles one site, sends an alert about another, and stores that.
async fn reconcile(guarded: &Guarded, role: &Credentials) -> anyhow::Result<()> {
    guarded.declare("local", &secret_of("local")).await?;
    guarded.declare("marketing", "wrong").await?;
    let alerts = guarded.subscribe(guarded.stack.output("AlertsTopicArn")?, "alerts").await?;
    let environment = guarded.function("tableau-webhook-reconciler", role, DEFAULT_TIMEOUT).await?;
    let answer = environment.invoke("apply", json!({ "action": "apply" })).await?;
    let report = answer["errorMessage"].as_str().with_context(|| format!("the run did not fail: {answer}"))?;
    for expected in ["local: 1 created", "Tableau refused the token", "1 of 2 sites failed."] {
        assert!(report.contains(expected), "{report}");
    }
    assert!(!report.contains("could not be sent"), "{report}");
    assert_eq!(guarded.cloud.receive_some(&alerts).await?.len(), 1);
    let stored =
        guarded.cloud.aws.json(&["dynamodb", "scan", "--table-name", guarded.stack.output("StateTableName")?]).await?;
    assert!(stored.to_string().contains("token-refused") && !report.contains("The state"), "{stored} {report}");
    Ok(())
}

/// Runs the forwarder under a role. The target refuses a message, which stays in its queue, and an alert says so.
async fn forward(guarded: &Guarded, role: &Credentials) -> anyhow::Result<()> {
    let service = Destination::answering(StatusCode::NOT_FOUND).await?;
    let entry = json!({ "preset": "plain", "address": service.address.as_str() }).to_string();
    let parameter = guarded.stack.parameter("targets/program");
    guarded.cloud.put_parameter(&parameter, guarded.stack.output("KeyAlias")?, &entry).await?;
    queue::create(&guarded.cloud.aws, &format!("{TARGET}-dead")).await?;
    let url = queue::create(&guarded.cloud.aws, TARGET).await?;
    let event = json!({ "specversion": "1.0", "id": "an-event", "source": "/tableau/local", "type": "com.tableau.ViewDeleted" });
    let send = ["sqs", "send-message", "--queue-url", &url, "--message-body", &event.to_string()];
    guarded.cloud.aws.run(&send).await?;
    let received = guarded.cloud.aws.json(&["sqs", "receive-message", "--queue-url", &url]).await?;
    let message = &received["Messages"][0];
    let sent = (OffsetDateTime::now_utc().unix_timestamp() * 1000).to_string();
    let record = json!({ "messageId": message["MessageId"], "receiptHandle": message["ReceiptHandle"],
        "body": message["Body"], "eventSourceARN": format!("arn:aws:sqs:{REGION}:000000000000:{TARGET}"),
        "attributes": { "ApproximateReceiveCount": "1", "SentTimestamp": sent } });
    let alerts = guarded.subscribe(guarded.stack.output("AlertsTopicArn")?, "alerts-about-targets").await?;
    let environment = guarded.function("tableau-webhook-forwarder", role, FORWARDER_TIMEOUT).await?;
    let answer = environment.invoke("batch", json!({ "Records": [record] })).await?;
    assert_eq!(answer["batchItemFailures"][0]["itemIdentifier"], message["MessageId"], "{answer}");
    assert_eq!(guarded.cloud.receive_some(&alerts).await?.len(), 1);
    let log = fs::read_to_string(guarded.folder.path().join("tableau-webhook-forwarder"))?;
    assert!(log.contains("the target answered 404") && !log.contains("queue_error"), "{log}");
    Ok(())
}

/// Runs the receiver under a role. It publishes a signed delivery.
async fn deliver(guarded: &Guarded, role: &Credentials) -> anyhow::Result<()> {
    let events = guarded.subscribe(guarded.stack.output("EventsTopicArn")?, "events").await?;
    let keyring = guarded.stack.keyring(&guarded.cloud.aws).await?;
    let environment = guarded.function("tableau-webhook-receiver", role, RECEIVER_TIMEOUT).await?;
    let event: Value = serde_json::from_str(&sample::signed_event(&Workspace::locate()?, &keyring)?)?;
    let answer = environment.invoke("delivery", event).await?;
    assert_eq!(answer["statusCode"], 200, "{answer}");
    assert_eq!(guarded.cloud.receive_some(&events).await?.len(), 1);
    Ok(())
}

#[tokio::test]
async fn each_role_allows_its_functions_work_and_nothing_else() -> anyhow::Result<()> {
    let guarded = Guarded::start().await?;
    let (aws, stack) = (&guarded.cloud.aws, &guarded.stack);
    let receiver = guarded.assume(&guarded.role("ReceiverRole").await?).await?;
    let reconciler_role = guarded.role("ReconcilerRole").await?;
    let reconciler = guarded.assume(&reconciler_role).await?;
    let widened = guarded.assume_copy(&reconciler_role, "reconciler", list_any_path).await?;
    // Only the scheduler of this account may assume the schedule's role.
    let schedule_role = guarded.role("ScheduleRole").await?;
    let error = guarded.assume(&schedule_role).await.expect_err("the test assumed the schedule's role");
    assert!(format!("{error:#}").contains("AccessDenied"), "{error:#}");
    let schedule = guarded.assume_copy(&schedule_role, "invoke-reconciler", |_| Ok(())).await?;

    reconcile(&guarded, &widened).await?;
    deliver(&guarded, &receiver).await?;
    let forwarder = guarded.assume(&guarded.role("ForwarderRole").await?).await?;
    forward(&guarded, &forwarder).await?;

    // These exist, so that a refusal is not due to their absence.
    aws.run(&["sns", "create-topic", "--name", "theirs"]).await?;
    for name in ["/tableau-fanout/tableau-ca", "/another-stack/signing-keys"] {
        aws.run(&["ssm", "put-parameter", "--name", name, "--type", "String", "--value", "x"]).await?;
    }
    let other_key = aws.json(&["kms", "create-key"]).await?;
    let other_key = other_key["KeyMetadata"]["KeyId"].as_str().context("a key without an identifier")?;
    let interface = guarded.network_interface().await?;
    let rows = rows(stack, other_key, &interface)?;
    let mut table = format!("{:10} {:45} {:75} {}\n", "role", "action", "resource", "");
    for (role, work) in [
        (RECONCILER, "reconciles a site, alerts about another, stores that"),
        (RECEIVER, "publishes a signed delivery"),
        (FORWARDER, "keeps a message that its target refuses, alerts about that"),
    ] {
        writeln!(table, "{role:10} {:45} {:75} allowed", "the function's binary", work)?;
    }
    let by_path = "any path, since ministack checks no paths";
    writeln!(table, "{:10} {:45} {by_path:75} allowed for this test", "reconciler", "ssm get-parameters-by-path")?;
    // In a VPC the reconciler has the same role.
    let functions = [(RECEIVER, &receiver), (RECONCILER, &reconciler), (FORWARDER, &forwarder)];
    let roles = functions.into_iter().chain([(IN_VPC, &reconciler), (SCHEDULE, &schedule)]);
    let with_endpoints = roles.flat_map(|(role, credentials)| {
        [true, false].map(|over_tls| ((role, over_tls), guarded.acting_as(credentials, over_tls)))
    });
    let acting: BTreeMap<_, _> = with_endpoints.collect();
    let (mut wrong, mut has_vpc) = (Vec::new(), false);
    let in_vpc = network_rows(IN_VPC, true, &interface);
    for Row { role, allowed, action, resource, over_tls, command } in rows.iter().chain(&in_vpc) {
        if *role == IN_VPC && !has_vpc {
            guarded.enter_vpc().await?;
            has_vpc = true;
        }
        let may = may(&acting[&(*role, *over_tls)], command).await?;
        let result = if may { "allowed" } else { "refused" };
        writeln!(table, "{role:10} {action:45} {resource:75} {result}")?;
        if may != *allowed {
            wrong.push(format!("{role}: {action} {resource} is {result}"));
        }
    }
    println!("{table}");
    fs::write(Workspace::locate()?.local("reports")?.join("privileges.txt"), &table)?;
    assert_eq!(wrong, Vec::<String>::new());
    Ok(())
}
