//! What one would have instead: the SDK as its documentation sets it up. The key is read at start, each event's address
//! is verified, and its body published.

use std::{env, sync::Arc};

use aws_config::BehaviorVersion;
use aws_sdk_sns::types::MessageAttributeValue;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use lambda_http::{Error, Request, RequestExt, Response, run, service_fn, tracing};
use sha2::Sha256;

struct Receiver {
    sns: aws_sdk_sns::Client,
    topic: String,
    key: Vec<u8>,
}

impl Receiver {
    async fn handle(&self, request: Request) -> Result<Response<String>, Error> {
        let path = request.raw_http_path().to_owned();
        let parts: Vec<_> = path.split('/').collect();
        let ["", "hooks", site, event, signature] = parts[..] else { return answer(404) };
        let mut hmac = Hmac::<Sha256>::new_from_slice(&self.key)?;
        hmac.update(format!("v1\n{site}\n{event}").as_bytes());
        let Ok(signature) = BASE64_URL_SAFE_NO_PAD.decode(signature) else { return answer(404) };
        if hmac.verify_slice(&signature).is_err() {
            return answer(404);
        }
        let attribute = |value: &str| MessageAttributeValue::builder().data_type("String").string_value(value).build();
        self.sns
            .publish()
            .topic_arn(&self.topic)
            .message(String::from_utf8_lossy(request.body()))
            .message_attributes("event_type", attribute(event)?)
            .message_attributes("site", attribute(site)?)
            .send()
            .await?;
        answer(200)
    }
}

fn answer(status: u16) -> Result<Response<String>, Error> {
    Ok(Response::builder().status(status).body(String::new())?)
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    tracing::init_default_subscriber();
    let aws = aws_config::load_defaults(BehaviorVersion::latest()).await;
    let ssm = aws_sdk_ssm::Client::new(&aws);
    let stored = ssm.get_parameter().name(env::var("SIGNING_KEYS_PARAMETER")?).with_decryption(true).send().await?;
    let keys = stored.parameter().and_then(|parameter| parameter.value()).unwrap_or_default();
    let keys: Vec<String> = serde_json::from_str(keys)?;
    let key = BASE64_URL_SAFE_NO_PAD.decode(keys.first().ok_or("no key")?)?;
    let receiver = Receiver { sns: aws_sdk_sns::Client::new(&aws), topic: env::var("EVENTS_TOPIC_ARN")?, key };
    let receiver = Arc::new(receiver);
    run(service_fn(move |request| {
        let receiver = receiver.clone();
        async move { receiver.handle(request).await }
    }))
    .await
}
