//! What a load costs the server, by what its page of metrics says before and after.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use http::header::HOST;
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use tokio::net::TcpStream;

use super::LoadError;
use crate::limits::{LOAD_METRICS_BYTES_MAX, LOAD_METRICS_TIMEOUT};

const CPU: &str = "process_cpu_seconds_total";
const RESIDENT: &str = "process_resident_memory_bytes";

/// Where a server's page of metrics is: `http://ADDRESS:PORT/metrics`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricsUrl {
    host: String,
    port: u16,
    path: String,
}

/// Text that is no such place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an address of metrics: it is http://HOST:PORT/metrics, as gureumd's --admin has it")]
pub struct NoMetricsUrl;

impl FromStr for MetricsUrl {
    type Err = NoMetricsUrl;

    fn from_str(text: &str) -> Result<Self, NoMetricsUrl> {
        let uri: Uri = text.parse().map_err(|_| NoMetricsUrl)?;
        match (uri.scheme_str(), uri.host(), uri.path_and_query()) {
            (Some("http"), Some(host), Some(path)) => {
                Ok(Self { host: host.to_owned(), port: uri.port_u16().unwrap_or(80), path: path.to_string() })
            }
            _ => Err(NoMetricsUrl),
        }
    }
}

impl fmt::Display for MetricsUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}:{}{}", self.host, self.port, self.path)
    }
}

/// What a server had taken of its machine at some moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Look {
    cpu_s: f64,
    resident_bytes: f64,
}

/// What a load, or a part of it, cost the server.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Cost {
    /// User and system time, in seconds.
    pub cpu_s: f64,
    /// That for each message that it counts, in microseconds; `None` where there were none.
    pub cpu_us_per_message: Option<f64>,
    /// Memory in use before, in bytes.
    pub resident_bytes_before: f64,
    /// And after.
    pub resident_bytes: f64,
}

impl Cost {
    /// Between two looks, in which so many messages went through.
    pub(super) fn between(before: Option<Look>, after: Option<Look>, messages: u64) -> Option<Self> {
        let (before, after) = (before?, after?);
        let cpu_s = thousandths((after.cpu_s - before.cpu_s).max(0.0));
        let cpu_us_per_message = per(cpu_s * 1e6, messages);
        let (resident_bytes_before, resident_bytes) = (before.resident_bytes, after.resident_bytes);
        Some(Self { cpu_s, cpu_us_per_message, resident_bytes_before, resident_bytes })
    }

    /// Memory that was taken meanwhile, for each of so many things.
    pub(super) fn bytes_per(&self, things: u64) -> Option<f64> {
        per((self.resident_bytes - self.resident_bytes_before).max(0.0), things)
    }
}

fn per(amount: f64, things: u64) -> Option<f64> {
    (things > 0).then(|| thousandths(amount / things as f64))
}

pub(super) fn thousandths(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

/// Looks at a server, if it is known where.
pub(super) async fn look(url: Option<&MetricsUrl>) -> Result<Option<Look>, LoadError> {
    let Some(url) = url else { return Ok(None) };
    let failed = |reason: String| LoadError::Metrics { url: url.clone(), reason };
    let page = match tokio::time::timeout(LOAD_METRICS_TIMEOUT, fetch(url)).await {
        Ok(fetched) => fetched.map_err(failed)?,
        Err(_) => return Err(failed(format!("no answer within {} s", LOAD_METRICS_TIMEOUT.as_secs()))),
    };
    match (value(&page, CPU), value(&page, RESIDENT)) {
        (Some(cpu_s), Some(resident_bytes)) => Ok(Some(Look { cpu_s, resident_bytes })),
        _ => Err(failed(format!("it tells neither {CPU} nor {RESIDENT}"))),
    }
}

async fn fetch(url: &MetricsUrl) -> Result<String, String> {
    let host = url.host.trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((host, url.port)).await.map_err(|error| error.to_string())?;
    let (mut sender, connection) =
        http1::handshake::<_, Empty<Bytes>>(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    let request = Request::get(url.path.as_str())
        .header(HOST, format!("{}:{}", url.host, url.port))
        .body(Empty::new())
        .map_err(|error| error.to_string())?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        if response.status() != StatusCode::OK {
            return Err(format!("it answers {}", response.status()));
        }
        let body = Limited::new(response.into_body(), LOAD_METRICS_BYTES_MAX).collect().await;
        let bytes = body.map_err(|error| error.to_string())?.to_bytes();
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    tokio::pin!(exchange, connection);
    // The connection has to be driven for the exchange to come to anything; that it has ended says nothing of the answer.
    tokio::select! {
        biased;
        answer = &mut exchange => answer,
        _ = &mut connection => exchange.await,
    }
}

/// The value of a metric without labels on a page in the text format of Prometheus.
fn value(page: &str, name: &str) -> Option<f64> {
    page.lines().find_map(|line| {
        let rest = line.trim_start().strip_prefix(name)?;
        // What follows the value, if anything does, is the time at which it was taken.
        let mut words = rest.strip_prefix([' ', '\t'])?.split_whitespace();
        words.next()?.parse().ok().filter(|value: &f64| value.is_finite())
    })
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    const PAGE: &str = "\
# HELP process_cpu_seconds_total user and system time
# TYPE process_cpu_seconds_total gauge
process_cpu_seconds_total 12.34

process_cpu_seconds_total_other 7
process_resident_memory_bytes 5.5e7 1700000000000
gureum_sends_total{result=\"accepted\"} 3
";

    #[test]
    fn a_metric_is_found_by_its_whole_name_and_not_in_a_comment() {
        for (name, expected) in [
            ("process_cpu_seconds_total", Some(12.34)),
            ("process_resident_memory_bytes", Some(55_000_000.0)),
            ("process_cpu_seconds", None),
            ("gureum_sends_total", None),
            ("nothing", None),
        ] {
            assert_eq!(value(PAGE, name), expected, "{name}");
        }
        assert_eq!(value("a NaN\n", "a"), None);
        assert_eq!(value("a\n", "a"), None);
    }

    #[test]
    fn an_address_of_metrics_names_a_place_on_http() {
        for text in ["http://127.0.0.1:9100/metrics", "http://[::1]:9100/metrics", "http://server:80/"] {
            assert_eq!(text.parse::<MetricsUrl>().unwrap().to_string(), text);
        }
        for text in ["https://127.0.0.1/metrics", "127.0.0.1:9100", "/metrics", "", "http://"] {
            assert_eq!(text.parse::<MetricsUrl>(), Err(NoMetricsUrl), "{text}");
        }
    }

    #[test]
    fn a_cost_is_what_came_between_for_each_message_and_thing() {
        let look = |cpu_s, resident_bytes| Some(Look { cpu_s, resident_bytes });
        let cost = Cost::between(look(1.0, 1e6), look(1.5, 3e6), 100_000).unwrap();
        assert_eq!((cost.cpu_s, cost.cpu_us_per_message, cost.bytes_per(100)), (0.5, Some(5.0), Some(20_000.0)));
        // A server that was started anew begins at nothing.
        let cost = Cost::between(look(9.0, 3e6), look(0.5, 1e6), 0).unwrap();
        assert_eq!((cost.cpu_s, cost.cpu_us_per_message, cost.bytes_per(1)), (0.0, None, Some(0.0)));
        assert_eq!(Cost::between(None, look(1.0, 1.0), 1), None);
    }

    async fn answer_once(answer: &'static str) -> MetricsUrl {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/metrics", listener.local_addr().unwrap());
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = vec![0; 1024];
            assert_ne!(stream.read(&mut asked).await.unwrap(), 0);
            assert!(asked.starts_with(b"GET /metrics HTTP/1.1\r\n"));
            stream.write_all(answer.as_bytes()).await.unwrap();
        });
        url.parse().unwrap()
    }

    #[tokio::test]
    async fn a_look_reads_the_page_and_says_what_is_wrong_with_it() {
        let url = answer_once(
            "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nprocess_cpu_seconds_total 2\nprocess_resident_memory_bytes 3\n",
        );
        let url = url.await;
        assert_eq!(look(Some(&url)).await.unwrap(), Some(Look { cpu_s: 2.0, resident_bytes: 3.0 }));
        assert_eq!(look(None).await.unwrap(), None);
        for (answer, says) in [
            ("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", "404"),
            ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\na 1\n\n", "process_cpu_seconds_total"),
        ] {
            let url = answer_once(answer).await;
            let error = look(Some(&url)).await.unwrap_err().to_string();
            assert!(error.contains(says) && error.contains("--metrics"), "{error}");
        }
    }
}
