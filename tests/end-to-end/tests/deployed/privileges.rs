//! What the template's roles allow: each function's own binary does its work under its role, and the role is refused
//! everything else. Ministack checks identities like this when it is told to.

use std::{collections::BTreeMap, fmt::Write, fs, time::Duration};

use anyhow::{Context, ensure};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use end_to_end::{declared::secret_of, destination::Destination, lambda::Environment, local_stack::test_folder};
use infra::{
    aws::Aws,
    cloud::{Cloud, STACK},
    functions,
    python::PythonTools,
    sample,
    service::{Service, http_client},
    stack::Stack,
    workspace::Workspace,
};
use reconciler::config::DEFAULT_TIMEOUT;
use serde_json::{Value, json};
use strict_sns::gateway::Gateway;
use tableau_simulator::server::{Running, Simulator};
use tempfile::TempDir;

/// How long an invocation of the receiver may take, as the template has it.
const RECEIVER_TIMEOUT: Duration = Duration::from_secs(10);

/// The stack in a cloud that checks who calls.
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
        let packages = functions::package(&workspace).await?;
        let (folder, http) = (test_folder(&workspace)?, http_client()?);
        let (server, cloud) = Cloud::start(&tools, &http, folder.path(), &[("AUTH", "true")]).await?;
        let stack = cloud.deploy(STACK, &packages).await?;
        // As a load balancer that has ended TLS says it: AWS is called over TLS, which ministack goes by that header.
        let over_tls =
            HeaderMap::from_iter([(HeaderName::from_static("x-forwarded-proto"), HeaderValue::from_static("https"))]);
        let tls = Gateway::before(&cloud.endpoint, http, over_tls).await?;
        let receiver = Destination::answering(StatusCode::OK).await?;
        let tableau = Simulator::start(Some(receiver.address.clone())).await?;
        Ok(Self { cloud, stack, tls, tableau, tools, _receiver: receiver, _server: server, folder })
    }

    /// The role that the template calls so.
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

    /// A copy of a role with its one policy, changed or not, that anybody may assume. Returns its credentials.
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

    /// Makes a network interface that is nobody's.
    async fn network_interface(&self) -> anyhow::Result<String> {
        let interface = self.cloud.aws.json(&["ec2", "create-network-interface", "--subnet-id", SUBNET]).await?;
        let id = interface["NetworkInterface"]["NetworkInterfaceId"].as_str();
        Ok(id.context("a network interface without an identifier")?.to_owned())
    }

    /// Makes a queue, lets SNS send to it, and subscribes it to a topic. Returns its address.
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

    /// Makes a site on Tableau and declares it.
    async fn declare(&self, name: &str, secret: &str) -> anyhow::Result<()> {
        self.tableau.simulator.world().add_site(name, "fanout", &secret_of(name));
        let server = format!("http://{}", self.tableau.address);
        let entry = json!({ "server": server, "site": name, "token_name": "fanout", "token_secret": secret,
            "events": ["WorkbookCreated"] });
        self.cloud.put_site(&self.stack, name, &entry).await
    }

    /// The AWS CLI of a role, over TLS or not.
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
    // Whatever else goes wrong says nothing about what is allowed.
    let is_refused = ["AccessDenied", "AuthorizationError", "UnauthorizedOperation"]
        .iter()
        .any(|code| format!("{error:#}").contains(code));
    ensure!(is_refused, "aws {command:?} failed: {error:#}");
    Ok(false)
}

/// Ministack asks whether a role may list parameters at all, AWS whether it may under this path: the statement for the
/// path is made one for any, and nothing else is changed.
fn list_any_path(statements: &mut [Value]) -> anyhow::Result<()> {
    let mut by_path = statements.iter_mut().filter(|statement| statement["Action"] == "ssm:GetParametersByPath");
    let statement = by_path.next().context("no statement for the path")?;
    let resources = statement["Resource"].as_array().context("no list")?;
    let [sites, below] =
        ["/sites", "/sites/*"].map(|path| json!(format!("arn:aws:ssm:us-east-1:000000000000:parameter/{STACK}{path}")));
    ensure!(*resources == [sites, below], "another path: {statement}");
    statement["Resource"] = json!("*");
    ensure!(by_path.next().is_none(), "two statements for a path");
    Ok(())
}

const RECEIVER: &str = "receiver";
const RECONCILER: &str = "reconciler";
const SCHEDULE: &str = "schedule";

/// The reconciler, where the stack puts it into a VPC.
const IN_VPC: &str = "in VPC";

/// Ministack's own subnet and security group.
const SUBNET: &str = "subnet-00000001";
const SECURITY_GROUP: &str = "sg-00000001";

/// Something that a role tries, and whether it may.
struct Row {
    role: &'static str,
    allowed: bool,
    action: String,
    resource: String,
    command: Vec<String>,
    over_tls: bool,
}

/// A command as rows have it, split at spaces.
fn row(role: &'static str, allowed: bool, command: &str, resource: &str, more: &[&str]) -> Row {
    let command: Vec<_> = command.split(' ').chain([resource]).chain(more.iter().copied()).map(str::to_owned).collect();
    let action = command[..2].join(" ");
    // The policies of topics and queues look at how they are called.
    let over_tls = ["sns", "sqs"].contains(&command[0].as_str());
    Row { role, allowed, resource: resource.to_owned(), over_tls, action, command }
}

/// What the roles may do and, beside it, what they may not.
fn rows(stack: &Stack, other_key: &str, interface: &str) -> anyhow::Result<Vec<Row>> {
    let publish = "sns publish --message hello --topic-arn";
    let (events, alerts) = (stack.output("EventsTopicArn")?, stack.output("AlertsTopicArn")?);
    let other_topic = "arn:aws:sns:us-east-1:000000000000:theirs";
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
    let (receiver, reconciler) = (stack.output("ReceiverName")?, stack.output("ReconcilerName")?);
    let (receiver_log, reconciler_log) = (format!("/aws/lambda/{receiver}"), format!("/aws/lambda/{reconciler}"));
    // Of the logs only refusals: of its own, ministack asks under another ARN than AWS.
    let stream = "logs create-log-stream --log-stream-name test --log-group-name";
    let invoke = "lambda invoke --payload {} --function-name";
    let key = stack.output("KeyId")?;

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
        row(RECONCILER, false, stream, &receiver_log, &[]),
        row(SCHEDULE, true, invoke, reconciler, &["answer.json"]),
        row(SCHEDULE, false, invoke, receiver, &["answer.json"]),
        row(SCHEDULE, true, send, dead_letters, &[]),
        row(SCHEDULE, false, send, failed_runs, &[]),
        row(SCHEDULE, false, get, &keys, &[]),
        row(SCHEDULE, false, scan, table, &[]),
        row(SCHEDULE, false, publish, alerts, &[]),
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
        unencrypted(SCHEDULE, send, dead_letters),
    ]);
    // What neither function may.
    for role in [RECEIVER, RECONCILER] {
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
            // Without the context that SSM gives.
            refused("kms encrypt --plaintext aGVsbG8= --key-id", key, &[]),
            refused("kms generate-data-key --key-spec AES_256 --key-id", key, &[]),
            refused("kms encrypt --plaintext aGVsbG8= --key-id", other_key, &[]),
            refused("kms schedule-key-deletion --key-id", key, &[]),
            refused("kms put-key-policy --policy {} --key-id", key, &[]),
            refused(send, dead_letters, &[]),
            refused("sqs receive-message --queue-url", failed_runs, &[]),
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
            refused("dynamodb list-tables --region", "us-east-1", &[]),
            refused("secretsmanager get-secret-value --secret-id", "theirs", &[]),
            refused("scheduler delete-schedule --name", "theirs", &[]),
        ]);
        rows.extend(network_rows(role, false, interface));
    }
    Ok(rows)
}

/// What Lambda does to network interfaces in a VPC with a function's role, and what it does not. Ministack knows no
/// addresses of theirs, which it may assign and take away.
fn network_rows(role: &'static str, is_in_vpc: bool, interface: &str) -> Vec<Row> {
    let lambdas = |command: &str, resource: &str| row(role, is_in_vpc, command, resource, &[]);
    let refused = |command: &str, resource: &str| row(role, false, command, resource, &[]);
    vec![
        lambdas("ec2 create-network-interface --subnet-id", SUBNET),
        lambdas("ec2 describe-network-interfaces --network-interface-ids", interface),
        lambdas("ec2 describe-subnets --subnet-ids", SUBNET),
        lambdas("ec2 delete-network-interface --network-interface-id", interface),
        refused("ec2 describe-instances --region", "us-east-1"),
        refused("ec2 describe-security-groups --group-ids", SECURITY_GROUP),
        refused("ec2 create-security-group --description x --group-name", "theirs"),
        refused("ec2 delete-subnet --subnet-id", SUBNET),
        // AWS's own policy for functions in a VPC lets them write any log.
        refused("logs create-log-group --log-group-name", "/aws/lambda/theirs"),
    ]
}

#[tokio::test]
async fn each_function_does_its_work_under_its_role_which_is_refused_everything_else() -> anyhow::Result<()> {
    let guarded = Guarded::start().await?;
    let (aws, stack) = (&guarded.cloud.aws, &guarded.stack);
    let receiver = guarded.assume(&guarded.role("ReceiverRole").await?).await?;
    let reconciler_role = guarded.role("ReconcilerRole").await?;
    let reconciler = guarded.assume(&reconciler_role).await?;
    let widened = guarded.assume_copy(&reconciler_role, "reconciler", list_any_path).await?;
    // Only the scheduler of this account may be the schedule.
    let schedule_role = guarded.role("ScheduleRole").await?;
    let error = guarded.assume(&schedule_role).await.expect_err("somebody else is the schedule");
    assert!(format!("{error:#}").contains("AccessDenied"), "{error:#}");
    let schedule = guarded.assume_copy(&schedule_role, "invoke-reconciler", |_| Ok(())).await?;

    // The reconciler's work: one site becomes as declared, of the other people are told, which is remembered.
    guarded.declare("local", &secret_of("local")).await?;
    guarded.declare("marketing", "wrong").await?;
    let people = guarded.subscribe(stack.output("AlertsTopicArn")?, "people").await?;
    let environment = guarded.function("tableau-webhook-reconciler", &widened, DEFAULT_TIMEOUT).await?;
    let answer = environment.invoke("apply", json!({ "action": "apply" })).await?;
    let report = answer["errorMessage"].as_str().with_context(|| format!("nothing was wrong: {answer}"))?;
    for expected in ["local: 1 created", "Tableau refused the token", "1 of 2 sites failed."] {
        assert!(report.contains(expected), "{report}");
    }
    assert!(!report.contains("could not be sent"), "{report}");
    assert_eq!(guarded.cloud.receive_some(&people).await?.len(), 1);
    let stored = aws.json(&["dynamodb", "scan", "--table-name", stack.output("StateTableName")?]).await?;
    assert!(stored.to_string().contains("token-refused") && !report.contains("The state"), "{stored} {report}");

    // The receiver's work.
    let machines = guarded.subscribe(stack.output("EventsTopicArn")?, "machines").await?;
    let keyring = stack.keyring(aws).await?;
    let environment = guarded.function("tableau-webhook-receiver", &receiver, RECEIVER_TIMEOUT).await?;
    let event: Value = serde_json::from_str(&sample::signed_event(&Workspace::locate()?, &keyring)?)?;
    let answer = environment.invoke("delivery", event).await?;
    assert_eq!(answer["statusCode"], 200, "{answer}");
    assert_eq!(guarded.cloud.receive_some(&machines).await?.len(), 1);

    // What there has to be, for a refusal to say something.
    aws.run(&["sns", "create-topic", "--name", "theirs"]).await?;
    for name in ["/tableau-fanout/tableau-ca", "/another-stack/signing-keys"] {
        aws.run(&["ssm", "put-parameter", "--name", name, "--type", "String", "--value", "x"]).await?;
    }
    let other_key = aws.json(&["kms", "create-key"]).await?;
    let other_key = other_key["KeyMetadata"]["KeyId"].as_str().context("a key without an identifier")?;
    let interface = guarded.network_interface().await?;
    let rows = rows(stack, other_key, &interface)?;
    let mut table = format!("{:10} {:45} {:75} {}\n", "role", "action", "resource", "");
    for work in ["registers a site, tells of another, remembers it", "publishes a signed delivery"] {
        let role = if work.starts_with("publishes") { "receiver" } else { "reconciler" };
        writeln!(table, "{role:10} {:45} {:75} allowed", "the function's binary", work)?;
    }
    let by_path = "listing of any path, which is all that ministack can tell";
    writeln!(table, "{:10} {:45} {by_path:75} allowed for this test", "reconciler", "ssm get-parameters-by-path")?;
    // In a VPC the reconciler has the same role.
    let roles = [(RECEIVER, &receiver), (RECONCILER, &reconciler), (IN_VPC, &reconciler), (SCHEDULE, &schedule)];
    let with_endpoints = roles.into_iter().flat_map(|(role, credentials)| {
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
        let said = if may { "allowed" } else { "refused" };
        writeln!(table, "{role:10} {action:45} {resource:75} {said}")?;
        if may != *allowed {
            wrong.push(format!("{role}: {action} {resource} is {said}"));
        }
    }
    println!("{table}");
    fs::write(Workspace::locate()?.local("reports")?.join("privileges.txt"), &table)?;
    assert_eq!(wrong, Vec::<String>::new());
    Ok(())
}
