//! Events and answers of a Function URL (payload format 2.0).
//!
//! `lambda_http` can read these events by itself, but a query string or a header of anyone's choice can make it fail or
//! panic. This module reads the used members alone, which are texts in any request.

use base64::{Engine, prelude::BASE64_STANDARD};
use lambda_http::{
    Body, Context, Request, RequestExt, Response, aws_lambda_events::apigw::ApiGatewayV2httpResponse, http::Method,
};
use serde::Deserialize;

/// A call of the Function URL. A missing member counts as empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct FunctionUrlRequest {
    raw_path: String,
    request_context: RequestContext,
    body: Option<String>,
    is_base64_encoded: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct RequestContext {
    http: Http,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct Http {
    method: String,
}

impl FunctionUrlRequest {
    /// Returns the request to handle. Its path is the raw one, as it was sent.
    pub fn into_request(self, context: Context) -> Request {
        let Self { raw_path, request_context: RequestContext { http: Http { method } }, body, is_base64_encoded } =
            self;
        let body = match body {
            None => Body::Empty,
            // A body that is not the base64 it claims to be is kept as it came.
            Some(body) if is_base64_encoded => {
                BASE64_STANDARD.decode(&body).map_or_else(|_| Body::Text(body), Body::Binary)
            }
            Some(body) => Body::Text(body),
        };
        let mut request = Request::new(body);
        // Only POST is a delivery: an invalid method may count as GET.
        *request.method_mut() = Method::from_bytes(method.as_bytes()).unwrap_or_default();
        request.with_raw_http_path(raw_path).with_lambda_context(context)
    }
}

/// Returns the answer as Lambda takes it.
pub fn into_answer(response: Response<Body>) -> ApiGatewayV2httpResponse {
    let (parts, body) = response.into_parts();
    let mut answer = ApiGatewayV2httpResponse::default();
    answer.status_code = parts.status.as_u16().into();
    answer.headers = parts.headers;
    // All of the receiver's bodies are text.
    answer.body = Some(body);
    answer
}
