//! What the client makes of answers, good and bad; TLS and HTTP/2 are tried against whole services elsewhere.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

use super::local::{Act, Local, say};
use super::*;

const DATE_LINE: (&str, &str) = ("Date", "Sun, 06 Nov 1994 08:49:37 GMT");

fn https() -> Https {
    Https::new(&Roots::load(None).unwrap(), Reach::Anywhere, false, TaskTracker::new()).unwrap()
}

fn request(url: &str) -> Request<Full<Bytes>> {
    Request::post(url).body(Full::new(Bytes::from_static(b"{}"))).unwrap()
}

async fn ask(act: Act) -> Result<Answer, Failure> {
    let local = Local::start([act]).await;
    https().send(request(&local.url())).await
}

#[tokio::test]
async fn an_answer_is_taken_whole() {
    let answer = ask(say(429, &[("Retry-After", "17")], "slower")).await;
    let expected = Answer { status: 429, retry_after_ms: Some(17_000), body: Bytes::from_static(b"slower") };
    assert_eq!(answer, Ok(expected));
}

#[tokio::test]
async fn what_is_sent_arrives() {
    let local = Local::start([]).await;
    https().send(request(&local.url())).await.unwrap();
    let heard = local.heard();
    assert_eq!(heard.len(), 1);
    assert!(heard[0].head.starts_with("POST /sms HTTP/1.1\r\n"), "{}", heard[0].head);
    assert_eq!(heard[0].body, b"{}");
}

#[track_caller]
fn waits(lines: &[(&'static str, &'static str)], expected: Option<u64>) {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.insert(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
    }
    assert_eq!(retry_after_ms(&headers), expected, "{lines:?}");
}

#[test]
fn a_wait_is_read_in_either_form() {
    waits(&[], None);
    waits(&[("Retry-After", "0")], Some(0));
    waits(&[("Retry-After", " 120 ")], Some(120_000));
    waits(&[("Retry-After", "18446744073709551615")], Some(u64::MAX));
    waits(&[("Retry-After", "Sun, 06 Nov 1994 08:50:07 GMT"), DATE_LINE], Some(30_000));
    waits(&[("Retry-After", "Sun, 06 Nov 1994 08:49:07 GMT"), DATE_LINE], Some(0));
    waits(&[("Retry-After", "Sun, 06 Nov 1994 08:50:07 GMT")], None);
    waits(&[("Retry-After", "soon"), DATE_LINE], None);
    waits(&[("Retry-After", "-1"), DATE_LINE], None);
}

#[tokio::test]
async fn a_body_may_have_16_kib_and_no_more() {
    let longest = "x".repeat(BODY_BYTES_MAX);
    assert_eq!(ask(say(200, &[], &longest)).await.map(|answer| answer.body.len()), Ok(BODY_BYTES_MAX));
    assert_eq!(ask(say(200, &[], &format!("{longest}x"))).await, Err(Failure::Protocol));
}

#[tokio::test]
async fn a_head_that_never_ends_is_given_up() {
    let head = "x".repeat(2 * HEAD_BYTES_MAX as usize);
    assert_eq!(ask(say(200, &[("x", &head)], "")).await, Err(Failure::Protocol));
}

#[tokio::test]
async fn what_is_not_http_is_a_breach_of_the_protocol() {
    assert_eq!(ask(Act::Say("220 mail.example.org ESMTP\r\n\r\n".into())).await, Err(Failure::Protocol));
}

#[tokio::test]
async fn a_connection_that_is_closed_without_an_answer_is_a_reset() {
    assert_eq!(ask(Act::Reset).await, Err(Failure::Reset));
}

#[tokio::test]
async fn an_answer_that_ends_too_early_is_a_reset() {
    let act = Act::Say("HTTP/1.1 200 OK\r\ncontent-length: 10\r\nconnection: close\r\n\r\nfive!".into());
    let local = Local::start([act, Act::Reset]).await;
    let sent = tokio::spawn({
        let request = request(&local.url());
        async move { https().send(request).await }
    });
    // The server goes away in the middle of its answer.
    while local.heard().is_empty() {
        tokio::task::yield_now().await;
    }
    drop(local);
    assert_eq!(sent.await.unwrap(), Err(Failure::Reset));
}

#[tokio::test]
async fn nobody_at_the_address_is_a_failure_to_connect() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/x", listener.local_addr().unwrap());
    drop(listener);
    assert_eq!(https().send(request(&url)).await, Err(Failure::Connect));
}

#[tokio::test]
async fn what_is_out_of_reach_is_not_connected_to() {
    assert_eq!(https().send(request("http://push.example.org/x")).await, Err(Failure::Connect));
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_not_followed() {
    let local = Local::start([say(302, &[("Location", "/elsewhere")], "")]).await;
    assert_eq!(https().send(request(&local.url())).await.map(|answer| answer.status), Ok(302));
    assert_eq!(local.heard().len(), 1);
}

#[tokio::test]
async fn a_request_whose_future_is_dropped_is_given_up() {
    let local = Local::start([Act::Hang]).await;
    let client = https();
    let sent = tokio::time::timeout(Duration::from_millis(100), client.send(request(&local.url()))).await;
    assert!(sent.is_err(), "{sent:?}");
    local.given_up().await;
}

#[tokio::test]
async fn past_the_bound_every_connection_ends_with_its_answer() {
    let local = Local::start([]).await;
    let client = https();
    let kept: Vec<_> = (0..KEPT_TASKS_MAX).map(|_| client.connections.token()).collect();
    for _ in 0..3 {
        client.send(request(&local.url())).await.unwrap();
    }
    assert_eq!(local.connections(), 3);
    drop(kept);
}

#[tokio::test]
async fn below_the_bound_connections_are_used_again() {
    let local = Local::start([]).await;
    let client = https();
    for _ in 0..20 {
        client.send(request(&local.url())).await.unwrap();
        // The connection's task puts it back.
        tokio::task::yield_now().await;
    }
    assert!(local.connections() < 20, "{}", local.connections());
}

#[tokio::test]
async fn connections_end_with_the_client() {
    let local = Local::start([]).await;
    let tasks = TaskTracker::new();
    let client = Https::new(&Roots::load(None).unwrap(), Reach::Anywhere, false, tasks.clone()).unwrap();
    client.send(request(&local.url())).await.unwrap();
    assert!(!tasks.is_empty(), "one is kept");
    drop(client);
    tasks.close();
    tasks.wait().await;
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_comes_to_no_end_is_given_up() {
    // Nobody accepts: the system has made the connection, and nothing is ever said on it.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let request = request(&format!("https://{}/x", silent.local_addr().unwrap()));
    let answer = tokio::time::timeout(Duration::from_secs(60), https().send(request)).await;
    assert_eq!(answer.unwrap(), Err(Failure::Connect));
}
