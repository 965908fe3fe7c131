//! Brokers that want to know who asks: TLS with certificates on both sides, SASL PLAIN, SCRAM and OAUTHBEARER, from the configuration.
//!
//! What must hold: secrets come from files and appear nowhere; who is refused says so within a bounded time and ends.

#[path = "support/kafka/mod.rs"]
mod kafka;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use kafka::Home;
use kafka::cluster::Cluster;
use kafka::desk::Desk;
use kafka::fleet::Fleet;
use kafka::ports;

const SOON: Duration = Duration::from_secs(30);
/// How long a start may try before it gives up.
const REFUSED_WITHIN: Duration = Duration::from_secs(20);
const SCRAM: &str = "scram-secret-3141";
const PLAIN: &str = "plain-secret-2718";

fn openssl(dir: &Path, arguments: &str) {
    let output =
        Command::new("openssl").args(arguments.split(' ')).current_dir(dir).stdin(Stdio::null()).output().expect("openssl is installed");
    assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// An authority, a certificate for the broker on loopback, one for the gate, and one of nobody's authority.
fn certificates(dir: &Path) {
    fs::write(dir.join("san"), "subjectAltName=IP:127.0.0.1\n").unwrap();
    for authority in ["ca", "stranger"] {
        openssl(
            dir,
            &format!("req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN={authority} -keyout {authority}.key -out {authority}.pem"),
        );
    }
    for name in ["broker", "gate"] {
        openssl(dir, &format!("req -newkey rsa:2048 -nodes -subj /CN={name} -keyout {name}.key -out {name}.csr"));
        openssl(dir, &format!("x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile san -out {name}.pem"));
    }
    let joined = [fs::read(dir.join("broker.key")).unwrap(), fs::read(dir.join("broker.pem")).unwrap()].concat();
    fs::write(dir.join("broker.keystore.pem"), joined).unwrap();
}

/// A broker that tests reach in the clear, and gates by TLS and SASL.
struct Guarded {
    cluster: Cluster,
    dir: tempfile::TempDir,
    tls: ports::Port,
    sasl: ports::Port,
}

impl Guarded {
    fn start(home: &Home) -> Self {
        let dir = tempfile::tempdir().unwrap();
        certificates(dir.path());
        let (tls, sasl) = (ports::reserve(), ports::reserve());
        let outside = format!("SSL://127.0.0.1:{},SASL_PLAINTEXT://127.0.0.1:{}", tls.number, sasl.number);
        let plain = format!(
            "org.apache.kafka.common.security.plain.PlainLoginModule required username=\"broker\" password=\"broker\" user_gate=\"{PLAIN}\";"
        );
        let (keystore, truststore) = (dir.path().join("broker.keystore.pem"), dir.path().join("ca.pem"));
        let settings = [
            ("listeners", format!("PLAINTEXT://127.0.0.1:{{broker}},CONTROLLER://127.0.0.1:{{controller}},{outside}")),
            ("advertised.listeners", format!("PLAINTEXT://127.0.0.1:{{broker}},{outside}")),
            ("listener.security.protocol.map", "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT".into()),
            ("ssl.keystore.type", "PEM".into()),
            ("ssl.keystore.location", keystore.display().to_string()),
            ("ssl.truststore.type", "PEM".into()),
            ("ssl.truststore.location", truststore.display().to_string()),
            ("ssl.client.auth", "required".into()),
            ("sasl.enabled.mechanisms", "PLAIN,SCRAM-SHA-256,OAUTHBEARER".into()),
            ("listener.name.sasl_plaintext.plain.sasl.jaas.config", plain),
            (
                "listener.name.sasl_plaintext.scram-sha-256.sasl.jaas.config",
                "org.apache.kafka.common.security.scram.ScramLoginModule required;".into(),
            ),
            (
                "listener.name.sasl_plaintext.oauthbearer.sasl.jaas.config",
                "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub=\"broker\";"
                    .into(),
            ),
        ];
        let settings: Vec<(&str, &str)> = settings.iter().map(|(key, value)| (*key, value.as_str())).collect();
        let mut cluster = Cluster::start(home, 1, &settings);
        cluster.add_scram_user("gate", SCRAM);
        cluster.create_gate_topics(1);
        Self { cluster, dir, tls, sasl }
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.dir.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    /// A fleet of one that reaches the broker this way only.
    fn fleet(&self, port: &ports::Port, toml: &str) -> Fleet {
        let mut fleet = Fleet::new(&self.cluster, 1, 1, &[]);
        fleet.set("kafka.brokers", &format!("127.0.0.1:{}", port.number));
        fleet.configure(toml);
        fleet
    }

    fn sasl_with_password(&self, mechanism: &str, password: &str) -> String {
        let file = self.file("password", password);
        format!(
            "[kafka.properties]\n\"security.protocol\" = \"SASL_PLAINTEXT\"\n\"sasl.mechanism\" = \"{mechanism}\"\n\"sasl.username\" = \"gate\"\n\
             [kafka.secret_files]\n\"sasl.password\" = \"{file}\"\n"
        )
    }

    fn mutual_tls(&self, certificate: &str) -> String {
        let (ca, pem, key) = (self.path("ca.pem"), self.path(&format!("{certificate}.pem")), self.path(&format!("{certificate}.key")));
        format!(
            "[kafka.properties]\n\"security.protocol\" = \"SSL\"\n\"ssl.ca.location\" = \"{ca}\"\n\"ssl.certificate.location\" = \"{pem}\"\n\
             \"ssl.key.location\" = \"{key}\"\n"
        )
    }

    fn token(&self, mechanism: &str) -> String {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        let part = |text: String| BASE64_URL_SAFE_NO_PAD.encode(text);
        let claims = format!(r#"{{"sub":"gate","iat":{now},"exp":{}}}"#, now + 3_600);
        let token = format!("{}.{}.", part(r#"{"alg":"none"}"#.into()), part(claims));
        let file = self.file("token", &token);
        format!(
            "[kafka]\ntoken_file = \"{file}\"\n[kafka.properties]\n\"security.protocol\" = \"SASL_PLAINTEXT\"\n\"sasl.mechanism\" = \"{mechanism}\"\n"
        )
    }
}

#[test]
fn gates_reach_brokers_by_tls_and_sasl_and_a_wrong_secret_is_told_at_once() {
    let Some(home) = Home::find() else { return };
    let _turn = kafka::turn();
    let guarded = Guarded::start(&home);
    let desk = Desk::open(&guarded.cluster, 1);
    for (name, port, toml) in [
        ("scram", &guarded.sasl, guarded.sasl_with_password("SCRAM-SHA-256", SCRAM)),
        ("plain", &guarded.sasl, guarded.sasl_with_password("PLAIN", PLAIN)),
        ("token", &guarded.sasl, guarded.token("OAUTHBEARER")),
        ("tls", &guarded.tls, guarded.mutual_tls("gate")),
    ] {
        if name == "plain" || name == "scram" {
            // The file of the password is one, so it is written before each.
            guarded.file("password", if name == "plain" { PLAIN } else { SCRAM });
        }
        let mut fleet = guarded.fleet(port, &toml);
        fleet.start(0);
        fleet.wait_until_all_decide(1);
        let sent = desk.send(&guarded.cluster, 0..1, name, 3);
        guarded.cluster.wait_for_decisions(&sent, SOON);
        let id = format!("http-{name}");
        let answer = fleet.post_intent(0, &desk.order(0, &id), 10_000);
        assert!(matches!(answer, Some((200, _))), "{name}: {answer:?}");
        fleet.stop_all();
        let said = fs::read_to_string(fleet.log(0)).unwrap();
        assert!(!said.contains(SCRAM) && !said.contains(PLAIN), "{name}: a secret in the log");
    }
    for (name, port, toml) in [
        ("scram", &guarded.sasl, guarded.sasl_with_password("SCRAM-SHA-256", "wrong-secret-1618")),
        ("plain", &guarded.sasl, guarded.sasl_with_password("PLAIN", "wrong-secret-1618")),
        ("stranger", &guarded.tls, guarded.mutual_tls("stranger")),
        ("stranger's broker", &guarded.tls, guarded.mutual_tls("gate").replace("ca.pem", "stranger.pem")),
    ] {
        let begun = Instant::now();
        let (code, said) = guarded.fleet(port, &toml).refusal(0, REFUSED_WITHIN);
        let last = said.lines().last().unwrap_or_default().to_owned();
        println!("{name}: {code:?} after {:?}: {last}", begun.elapsed());
        assert_ne!(code, Some(0), "{name}");
        assert!(last.contains("LOG_DENIED"), "{name}: {last}");
        assert!(!said.contains("wrong-secret-1618"), "{name}: a secret in the log");
    }
    guarded.cluster.audit_clean(&["--drained"]);
}
