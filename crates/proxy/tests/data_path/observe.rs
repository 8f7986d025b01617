//! What is told of single requests: the id and the derivation of a refused one, and the access log.

use tulle_engine::inbound::{DefaultPolicy, DefaultProtocol, Server};
use tulle_proxy::observe::KEPT;

use crate::client::{Http1, echo};
use crate::grpc::{call, connect, pair};
use crate::rig::{Mesh, app, identity, run};

fn deny() -> Server {
    let detect = DefaultProtocol::Detect(std::time::Duration::from_secs(1));
    Server::by_default(DefaultPolicy::Deny, detect, &[])
}

#[test]
fn a_refusal_names_its_id_and_how_it_came_to_be() {
    run(async {
        let mesh = Mesh::new();
        let (web, voting) = (mesh.pod("web").await, mesh.pod("voting").await);
        mesh.service("voting", &[voting.endpoint(80)]);
        voting.allow(80, deny()).await;
        let mut client = Http1::new(web.call().await);
        client
            .send("GET /vote?for=x HTTP/1.1\r\nHost: voting\r\nX-Request-Id: req-7\r\n\r\n")
            .await;
        let answer = client.answer().await;
        let said = (answer.status(), answer.field("tulle-request-id"));
        assert_eq!(said, (403, Some("req-7")), "{answer:?}");
        let told = voting.observed.explain_one("req-7").unwrap();
        assert_eq!(told["direction"], "inbound");
        assert_eq!(told["method"], "GET");
        assert_eq!(told["authority"], "voting");
        assert_eq!(told["path"], "/vote?for=x");
        assert_eq!(told["client_id"], identity("web"));
        assert_eq!(told["reason"], "unauthorized");
        assert_eq!(told["status"], 403);
        assert_eq!(told["rule"], "default deny");
        assert_eq!(told["derivation"]["policy"], "default deny");
        let weighed = &told["derivation"]["matches"];
        assert_eq!(weighed.as_array().unwrap().len(), 1, "{told}");
        assert_eq!(weighed[0]["outcome"], "matched");
        // It was refused there, not here.
        assert!(web.observed.explain_one("req-7").is_none());
    });
}

#[test]
fn a_client_of_no_known_identity_chooses_no_id_and_nothing_unprintable_is_kept() {
    run(async {
        let voting = Mesh::new().pod("voting").await;
        voting.allow(80, deny()).await;
        let mut client = Http1::new(voting.enter().await);
        client
            .send("GET /\"\\ HTTP/1.1\r\nHost: voting\r\nX-Request-Id: mine\r\n\r\n")
            .await;
        let answer = client.answer().await;
        let id = answer.field("tulle-request-id").unwrap();
        assert_eq!(id.len(), 16, "{id}");
        assert!(id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
        assert!(voting.observed.explain_one("mine").is_none());
        let told = voting.observed.explain_one(id).unwrap();
        assert_eq!(told["client_id"], "");
    });
}

#[test]
fn a_grpc_call_gets_the_id_as_metadata() {
    run(async {
        let (web, voting) = pair(&Mesh::new()).await;
        voting.allow(80, deny()).await;
        let mut send = connect(web.call().await).await;
        let mut request = call("/emoji/Vote");
        let id = http::HeaderValue::from_static("grpc-1");
        request.headers_mut().insert("x-request-id", id);
        let (answer, _) = send.send_request(request, true).unwrap();
        let answer = answer.await.unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["tulle-request-id"], "grpc-1");
        let told = voting.observed.explain_one("grpc-1").unwrap();
        let said = (&told["direction"], &told["method"]);
        assert_eq!(
            (said.0.as_str(), said.1.as_str()),
            (Some("inbound"), Some("POST"))
        );
        assert_eq!(
            told["reason"].as_str(),
            answer.headers()["tulle-reason"].to_str().ok()
        );
    });
}

#[test]
fn the_last_refusals_are_kept_in_bounded_room() {
    run(async {
        let voting = Mesh::new().pod("voting").await;
        voting.allow(80, deny()).await;
        let mut client = Http1::new(voting.enter().await);
        let path = "p".repeat(4_000);
        for number in 0..KEPT + 10 {
            let answer = client.get("voting", &format!("/{number}/{path}")).await;
            assert_eq!(answer.status(), 403);
        }
        let told = voting.observed.explain();
        let kept = told["requests"].as_array().unwrap();
        assert_eq!(kept.len(), KEPT);
        let paths = kept.iter().map(|told| told["path"].as_str().unwrap());
        assert!(
            paths.clone().all(|path| path.chars().count() == 513),
            "{told}"
        );
        let newest = format!("/{}/", KEPT + 9);
        assert!(paths.clone().next().unwrap().starts_with(&newest));
        assert!(paths.clone().next_back().unwrap().starts_with("/10/"));
        // A line each would be a flood: the rest is counted.
        let dropped = voting.metric("proxy_log_lines_dropped_total", &["refusals"]);
        assert!(
            dropped > 0.0 && dropped <= (KEPT + 10 - 20) as f64,
            "{dropped}"
        );
    });
}

#[test]
fn the_access_log_has_linkerds_fields_and_no_request_can_write_a_line() {
    run(async {
        let mesh = Mesh::new();
        let log = [("LINKERD2_PROXY_ACCESS_LOG", "json")];
        let (web, voting) = (mesh.pod("web").await, mesh.pod_with("voting", &log).await);
        app(voting.address(18080), echo).await;
        mesh.service("voting", &[voting.endpoint(80)]);
        let mut client = Http1::new(web.call().await);
        client
            .send("POST /a\"b?c HTTP/1.1\r\nHost: voting\r\nUser-Agent: x\"} \u{9b}\r\nX-B3-TraceId: 5af7\r\nContent-Length: 3\r\n\r\nabc")
            .await;
        let answer = client.answer().await;
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.field("tulle-request-id"), None);
        voting.allow(80, deny()).await;
        assert_eq!(client.get("voting", "/").await.status(), 403);
        let lines = voting.access_log(2).await;
        assert_eq!(lines.len(), 2);
        let line: serde_json::Value = serde_json::from_str(&lines[0]).unwrap();
        for (field, expected) in [
            ("client.id", identity("web")),
            ("method", "POST".to_owned()),
            ("uri", "http://voting/a\"b?c".to_owned()),
            ("version", "HTTP/2.0".to_owned()),
            ("trace_id", "5af7".to_owned()),
            ("request_bytes", "3".to_owned()),
            ("response_bytes", answer.body.len().to_string()),
            ("user_agent", "x\"} %C2%9B".to_owned()),
            ("host", "voting".to_owned()),
        ] {
            assert_eq!(line[field], expected, "{line}");
        }
        assert_eq!(line["status"], 200);
        let number = |field: &str| line[field].as_str().unwrap().parse::<u64>().unwrap();
        assert!(0 < number("processing_ns") && number("processing_ns") <= number("total_ns"));
        assert!(line["client.addr"].as_str().unwrap().starts_with("127."));
        assert!(line["timestamp"].as_str().unwrap().ends_with('Z'));
        let refused: serde_json::Value = serde_json::from_str(&lines[1]).unwrap();
        assert_eq!(refused["status"], 403);
    });
}

#[test]
fn apaches_format_keeps_quotes_inside_of_their_field() {
    run(async {
        let log = [("LINKERD2_PROXY_ACCESS_LOG", "apache")];
        let voting = Mesh::new().pod_with("voting", &log).await;
        app(voting.address(18080), echo).await;
        let answer = Http1::new(voting.enter().await)
            .get("voting", "/a\"\\b")
            .await;
        let lines = voting.access_log(1).await;
        let (before, rest) = lines[0].split_once(" [").unwrap();
        assert!(
            before.starts_with("127.") && before.ends_with(" - -"),
            "{before}"
        );
        let (_, request) = rest.split_once("] ").unwrap();
        let bytes = answer.body.len();
        assert_eq!(request, format!("\"GET /a\\\"\\\\b HTTP/1.1\" 200 {bytes}"));
    });
}
