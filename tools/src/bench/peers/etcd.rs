//! etcd: three members, of which two have a write on disk before it is acknowledged. All is asked
//! of the one that orders writes, so that none is forwarded.

use super::super::load::measure::Run;
use super::super::load::{Plan, Shape, Target, Work, run};
use super::super::system::{Case, System, What};
use super::super::work::etcd::{Accounts, Puts, Transfers, response};
use super::super::work::skew::{Kind, Skew};
use super::Household;
use anyhow::{Context, anyhow};
use rig::cluster::{PATIENCE, PROMPT};
use rig::until;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

const MEMBERS: u16 = 3;

pub struct Etcd {
    house: Household,
    version: String,
    address: String,
    accounts: u64,
    runs: u64,
}

impl Etcd {
    pub fn start(dir: &Path) -> anyhow::Result<Etcd> {
        let version = Command::new("etcd").arg("--version").output();
        let version = version.map_err(|_| anyhow!("etcd is not installed"))?;
        let version = String::from_utf8_lossy(&version.stdout).into_owned();
        let line = version.lines().next().unwrap_or_default();
        let version = line.trim_start_matches("etcd Version: ").to_owned();
        let mut house = Household::new("etcd", dir)?;
        let client = |house: &Household, number| format!("http://{}", house.address(10 * number));
        let peer = |house: &Household, number| format!("http://{}", house.address(10 * number + 1));
        let members = (0..MEMBERS).map(|number| format!("n{number}={}", peer(&house, number)));
        let members: Vec<String> = members.collect();
        for number in 0..MEMBERS {
            let own = house.dir().join(format!("n{number}"));
            let (client, peer) = (client(&house, number), peer(&house, number));
            let mut server = Command::new("etcd");
            server
                .args(["--name", &format!("n{number}"), "--data-dir"])
                .arg(own);
            server.args([
                "--listen-client-urls",
                &client,
                "--advertise-client-urls",
                &client,
            ]);
            server.args([
                "--listen-peer-urls",
                &peer,
                "--initial-advertise-peer-urls",
                &peer,
            ]);
            server.args([
                "--initial-cluster",
                &members.join(","),
                "--log-level",
                "error",
            ]);
            server.args(["--quota-backend-bytes", &(8_u64 << 30).to_string()]);
            house.spawn(&mut server)?;
        }
        let address = until("etcd has chosen who orders writes", PATIENCE, || {
            let mut addresses = (0..MEMBERS).map(|number| house.address(10 * number));
            addresses.find(|address| orders(address) == Some(true))
        });
        Ok(Etcd {
            house,
            version,
            address,
            accounts: 0,
            runs: 0,
        })
    }

    fn target(&self) -> Target<'static> {
        Target {
            address: self.address.clone(),
            servers: self.house.servers(),
            follow: None,
        }
    }
}

impl System for Etcd {
    fn name(&self) -> String {
        format!("etcd {}, on 2 of 3 disks", self.version)
    }

    fn run(&mut self, case: &Case, plan: &Plan) -> anyhow::Result<Option<Run>> {
        if case.depth > 1 || case.what == What::Get {
            return Ok(None);
        }
        self.runs += 1;
        let target = self.target();
        if case.what == What::Transfer && self.accounts < case.among {
            let shape = Shape {
                connections: 50,
                window: 1,
            };
            let mut work = Accounts::new(case.among);
            run(&target, &mut work, shape, &Plan::TO_THE_END)?;
            self.accounts = case.among;
        }
        let skew = Skew::new(Kind::Uniform, case.among);
        let mut work: Box<dyn Work> = match case.what {
            What::Transfer => Box::new(Transfers::new(skew, self.runs)),
            What::Set | What::Get => Box::new(Puts::new(skew)?),
        };
        run(&target, &mut *work, case.shape(), plan).map(Some)
    }
}

/// Whether the member at this address is the one that orders writes.
fn orders(address: &str) -> Option<bool> {
    let status = ask(address).ok()?;
    let json: serde_json::Value = serde_json::from_str(&status).ok()?;
    let own = json.get("header")?.get("member_id")?;
    Some(json.get("leader")? == own)
}

fn ask(address: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PROMPT))?;
    let request =
        "POST /v3/maintenance/status HTTP/1.1\r\nHost: etcd\r\nContent-Length: 2\r\n\r\n{}";
    stream.write_all(request.as_bytes())?;
    let mut input = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        if let Some((body, _)) = response(&input)? {
            return Ok(body.to_owned());
        }
        let count = stream.read(&mut chunk)?;
        input.extend_from_slice(&chunk[..count]);
        (count > 0)
            .then_some(())
            .context("it ended the connection")?;
    }
}
