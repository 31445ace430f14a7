//! A real Prometheus beside the cluster, without the operator.

use crate::{
    installed::{NAMESPACE, RELEASE},
    site::Site,
    support::{Failure, eventually, http},
};
use local_cluster::{ServerProcess, binary, free_port};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use std::{fs, process::Stdio, time::Duration};
use tokio::{io::AsyncWriteExt, process::Command};

/// The file with what is scraped.
const TARGETS: &str = "targets.json";
const READY_WITHIN: Duration = Duration::from_secs(30);
const PATIENCE: Duration = Duration::from_secs(10);

/// A running Prometheus that scrapes every second.
pub struct Prometheus {
    process: ServerProcess,
    address: String,
}

impl Prometheus {
    /// Starts it with these rule groups, `{"groups": [...]}`.
    pub async fn start(site: &Site, rules: &Value) -> Result<Self, Failure> {
        let dir = site.dir().join("prometheus");
        fs::create_dir_all(&dir)?;
        let (config, rule_file) = (dir.join("prometheus.yml"), dir.join("rules.yml"));
        fs::write(&rule_file, rules.to_string())?;
        let config_text = json!({
            "global": { "scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s" },
            "rule_files": [rule_file],
            "scrape_configs": [{
                "job_name": "diego",
                "file_sd_configs": [{ "files": [dir.join(TARGETS)] }],
            }],
        });
        Self::find_targets(site).await?;
        fs::write(&config, config_text.to_string())?;
        let address = format!("127.0.0.1:{}", free_port()?);
        let args = [
            format!("--config.file={}", config.display()),
            format!("--storage.tsdb.path={}", dir.join("data").display()),
            format!("--web.listen-address={address}"),
        ];
        let log = site.dir().join("prometheus.log");
        let process = ServerProcess::start("prometheus", &binary("prometheus")?, &args, &[], &log)?;
        process
            .ready(READY_WITHIN, || async {
                let answer = http::get(&address, "/-/ready", PATIENCE).await;
                answer.is_some_and(|(status, _)| status == 200)
            })
            .await?;
        Ok(Self { process, address })
    }

    /// Tells it all Pods of controllers and reps with the labels that the chart's monitors give them. Debian's Prometheus does
    /// not ask the API server itself.
    pub async fn find_targets(site: &Site) -> Result<(), Failure> {
        let pods = "get pods -l app.kubernetes.io/part-of=diego -n";
        let pods = site.kubectl(&format!("{pods} {NAMESPACE} -o json")).await?;
        let pods: Value = serde_json::from_str(&pods)?;
        let pods = pods["items"].as_array().into_iter().flatten();
        let target = |pod: &Value| {
            let component = pod["metadata"]["labels"]["app.kubernetes.io/component"].as_str()?;
            let address = pod["status"]["podIP"].as_str()?;
            let mut labels = json!({ "job": format!("{RELEASE}-{component}") });
            if component == "rep" {
                labels["cell"] = pod["spec"]["nodeName"].clone();
            }
            Some(json!({ "targets": [format!("{address}:8080")], "labels": labels }))
        };
        let targets: Vec<Value> = pods.filter_map(target).collect();
        let dir = site.dir().join("prometheus");
        // In one step: it reads the file whenever that changes.
        fs::write(dir.join("new"), Value::from(targets).to_string())?;
        Ok(fs::rename(dir.join("new"), dir.join(TARGETS))?)
    }

    /// The answer to a query: each series, by its labels in words, and its value.
    pub async fn query(&self, query: &str) -> Result<Vec<(String, f64)>, Failure> {
        let encoded = utf8_percent_encode(query, NON_ALPHANUMERIC);
        let answer = self.api(&format!("query?query={encoded}")).await?;
        let samples = answer["result"].as_array().cloned().unwrap_or_default();
        let sample = |sample: Value| {
            let value = sample["value"][1].as_str()?.parse().ok()?;
            Some((sample["metric"].to_string(), value))
        };
        Ok(samples.into_iter().filter_map(sample).collect())
    }

    /// Waits until the answer to a query is as wanted.
    pub async fn until(
        &self,
        query: &str,
        within: Duration,
        wanted: impl Fn(&[(String, f64)]) -> bool,
    ) -> Result<(), Failure> {
        let last = std::sync::Mutex::new(Vec::new());
        let asked = eventually(query, within, || async {
            // A scrape takes a second to come.
            tokio::time::sleep(Duration::from_millis(200)).await;
            let found = self.query(query).await.ok()?;
            if wanted(&found) {
                return Some(());
            }
            *last.lock().ok()? = found;
            None
        });
        asked.await.map_err(|error| {
            let log = self.process.log().display();
            format!("{error}; last answer: {last:?}; log: {log}").into()
        })
    }

    /// Waits until every rule was evaluated once more, without an error.
    pub async fn rules_evaluated(&self) -> Result<(), Failure> {
        let before = self.evaluations().await?;
        let evaluated = eventually("all rules are evaluated", PATIENCE, || async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            let now = self.evaluations().await.ok()?;
            let well = now.iter().all(|(_, health)| health == "ok");
            let again = now.iter().zip(&before).all(|(now, old)| now.0 != old.0);
            (well && again && now.len() > 20).then_some(())
        });
        evaluated.await
    }

    /// When each rule was last evaluated, and with what success.
    async fn evaluations(&self) -> Result<Vec<(String, String)>, Failure> {
        let answer = self.api("rules").await?;
        let groups = answer["groups"].as_array().into_iter().flatten();
        let rules = groups.flat_map(|group| group["rules"].as_array().into_iter().flatten());
        let of = |rule: &Value, field: &str| rule[field].as_str().unwrap_or_default().to_owned();
        Ok(rules
            .map(|rule| (of(rule, "lastEvaluation"), of(rule, "health")))
            .collect())
    }

    /// Those of the queries that are answered without a single number.
    pub async fn empty_queries(&self, queries: &[String]) -> Result<Vec<String>, Failure> {
        let mut empty = Vec::new();
        for query in queries {
            let found = self.query(query).await?;
            if found.iter().all(|(_, value)| value.is_nan()) {
                empty.push(query.clone());
            }
        }
        Ok(empty)
    }

    /// What the program at this address tells of itself passes `promtool check metrics`.
    pub async fn check_metrics(address: &str) -> Result<(), Failure> {
        let scraped = http::get(address, "/metrics", PATIENCE).await;
        let (status, text) = scraped.ok_or(format!("{address}/metrics does not answer"))?;
        assert_eq!(status, 200, "{text}");
        let mut promtool = Command::new(binary("promtool")?)
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let mut stdin = promtool.stdin.take().ok_or("no input")?;
        stdin.write_all(text.as_bytes()).await?;
        drop(stdin);
        let output = promtool.wait_with_output().await?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() && said.is_empty() {
            Ok(())
        } else {
            Err(format!("promtool check metrics, of {address}: {said}").into())
        }
    }

    async fn api(&self, path: &str) -> Result<Value, Failure> {
        let path = format!("/api/v1/{path}");
        let answer = http::get(&self.address, &path, PATIENCE).await;
        let (status, body) = answer.ok_or(format!("no answer to {path}"))?;
        if status != 200 {
            return Err(format!("{path}: {status}: {body}").into());
        }
        let mut answer: Value = serde_json::from_str(&body)?;
        Ok(answer["data"].take())
    }
}
