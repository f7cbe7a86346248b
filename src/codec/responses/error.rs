//! The JSON body of an HTTP error, in the API's form.

use serde::Serialize;

use crate::model::failure::Failure;

#[derive(Serialize)]
struct Body<'a> {
    error: Error<'a>,
}

#[derive(Serialize)]
struct Error<'a> {
    message: &'a str,
    r#type: &'a str,
    code: &'a str,
    param: Option<&'a str>,
    request_id: &'a str,
}

/// `{"error":{"message","type","code","param","request_id"}}`.
pub fn encode_error(kind: &str, code: &str, message: &str, param: Option<&str>, request_id: &str) -> Vec<u8> {
    let body = Body { error: Error { message, r#type: kind, code, param, request_id } };
    // Strings into memory: there is nothing to fail.
    serde_json::to_vec(&body).unwrap_or_default()
}

/// The body for a failure before the head.
pub fn encode_failure(failure: &Failure, request_id: &str) -> Vec<u8> {
    let row = failure.row();
    encode_error(row.error_type, row.code, &failure.message, None, request_id)
}
