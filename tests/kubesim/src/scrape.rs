//! Metrics of a pod: one request, and the sums in its answer.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::manifest::{list, strings};

/// `GET path`, without TLS, within `limit`; gives status and body.
pub async fn get(ip: Ipv4Addr, port: u16, path: &str, limit: Duration) -> Result<(u16, String)> {
    let exchange = async {
        let mut stream = TcpStream::connect((ip, port)).await?;
        stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {ip}:{port}\r\n\r\n").as_bytes()).await?;
        let mut answer = vec![];
        stream.read_to_end(&mut answer).await?;
        anyhow::Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    let answer = timeout(limit, exchange).await.with_context(|| format!("{ip}:{port}{path} did not answer in {limit:?}"))??;
    let (head, body) = answer.split_once("\r\n\r\n").context("not an HTTP answer")?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).context("not an HTTP answer")?;
    Ok((status, body.to_owned()))
}

/// The page of a pod's metrics.
pub async fn metrics(spec: &Value, annotations: &Value, ip: Ipv4Addr) -> Result<String> {
    let port = port(spec, annotations).context("no container port is named `metrics`")?;
    let (status, body) = get(ip, port, "/metrics", Duration::from_secs(2)).await?;
    ensure!(status == 200, "/metrics answered {status}");
    Ok(body)
}

/// The port named `metrics`, or what `prometheus.io/port` says.
fn port(spec: &Value, annotations: &Value) -> Option<u16> {
    named(spec, "metrics").or_else(|| annotations["prometheus.io/port"].as_str()?.parse().ok())
}

/// A container port by its name.
pub fn named(spec: &Value, name: &str) -> Option<u16> {
    let ports = list(&spec["containers"]).flat_map(|container| list(&container["ports"]));
    ports.filter(|port| port["name"] == name).find_map(|port| u16::try_from(port["containerPort"].as_u64()?).ok())
}

/// Sum of all series of a metric that carry these labels; `None` where there is no such series.
pub fn sum(page: &str, metric: &str, selector: &Value) -> Option<f64> {
    let wanted: Vec<String> = strings(&selector["matchLabels"]).iter().map(|(key, value)| format!("{key}=\"{value}\"")).collect();
    let mut total = None;
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let Some(rest) = line.strip_prefix(metric) else { continue };
        let (labels, value) = match rest.strip_prefix('{').and_then(|rest| rest.rsplit_once('}')) {
            Some((labels, value)) => (labels, value),
            None if rest.starts_with(' ') => ("", rest),
            None => continue,
        };
        let value = value.split_whitespace().next().and_then(|value| value.parse::<f64>().ok()).filter(|value| value.is_finite());
        if let (Some(value), true) = (value, wanted.iter().all(|label| labels.contains(label.as_str()))) {
            *total.get_or_insert(0.0) += value;
        }
    }
    total
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn series_are_added_by_name_and_label() {
        let page = "# TYPE load gauge\nload{area=\"a\",x=\"1\"} 2\nload{area=\"b\"} 3.5\nload_total 9\nfree 7\n";
        assert_eq!(sum(page, "load", &Value::Null), Some(5.5));
        assert_eq!(sum(page, "load", &json!({"matchLabels": {"area": "a"}})), Some(2.0));
        assert_eq!((sum(page, "free", &Value::Null), sum(page, "none", &Value::Null)), (Some(7.0), None));
    }
}
