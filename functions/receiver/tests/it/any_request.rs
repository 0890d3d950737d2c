//! Properties of the receiver for any request.

use base64::{Engine, prelude::BASE64_STANDARD};
use proptest::{option, prelude::*};
use serde_json::{Value, json};

use crate::doubles::{Answer, Harness, KEY, Stored, event, path};

/// All statuses of the receiver.
const DEFINED: [u16; 5] = [200, 404, 405, 413, 503];

/// Names that users gave and that SNS refuses or withholds in an attribute.
const NAMES: [&str; 6] = ["Sales 📈", "🇩🇪", "𠮷野家", "Sales \"North\"", "C:\\extracts", "Sales\tNorth\n\u{7f}"];

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime")
}

prop_compose! {
    fn any_path()(
        signed in option::weighted(0.5, (
            "[a-z0-9-]{1,40}", "[A-Za-z]{1,30}", prop_oneof![Just(KEY), Just(KEY + 1)], ".{0,2}",
        )),
        other in "/?(hooks)?/?\\PC{0,60}",
    ) -> (String, bool) {
        match signed {
            Some((site, event, key, rest)) => {
                (format!("{}{rest}", path(&site, &event, key)), key == KEY && rest.is_empty())
            }
            None => (other, false),
        }
    }
}

proptest! {
    #[test]
    fn only_a_signed_request_is_published_and_every_answer_is_a_defined_one(
        (path, is_signed) in any_path(),
        method in prop_oneof![4 => Just("POST"), 1 => Just("GET"), 1 => Just("HEAD"), 1 => Just("PURGE")],
        body: Vec<u8>,
        header in "\\PC{0,20}",
        query in "\\PC{0,20}",
    ) {
        let mut event = event(method, &path, json!(BASE64_STANDARD.encode(&body)), true);
        event["headers"]["content-type"] = json!(header);
        event["headers"]["content-encoding"] = json!("gzip");
        event["rawQueryString"] = json!(query);
        let (answer, published) = runtime().block_on(async {
            let harness = Harness::start(Stored::Key(KEY)).await;
            (harness.send(event).await, harness.topic.published())
        });
        prop_assert!(DEFINED.contains(&answer.status), "{answer:?}");
        if !is_signed {
            prop_assert_eq!(&answer, &Answer::empty(404));
        }
        prop_assert_eq!(published.len(), usize::from(is_signed && method == "POST"), "{:?}", answer);
    }

    #[test]
    fn an_event_and_its_alert_are_published_for_any_name_of_the_resource(
        name in prop_oneof![
            proptest::sample::select(NAMES.to_vec()).prop_map(str::to_owned),
            any::<String>(),
        ],
        luid in any::<String>(),
    ) {
        let body = json!({ "resource_name": name, "resource_luid": luid });
        let (answer, events, alerts) = runtime().block_on(async {
            let harness = Harness::start(Stored::Key(KEY)).await;
            let path = path("marketing", "WorkbookRefreshFailed", KEY);
            let answer = harness.post(&path, &body.to_string()).await;
            (answer, harness.topic.published(), harness.alerts.published())
        });
        prop_assert_eq!(answer.status, 200, "{:?}", answer);
        prop_assert_eq!((events.len(), alerts.len()), (1, 1));
        let event: Value = serde_json::from_str(&events[0].body).expect("JSON");
        prop_assert_eq!(&event["data"], &body);
    }
}
