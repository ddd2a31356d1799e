//! What the engine refuses to start with: exit code 2, and a message that says what to do.

use std::net::UdpSocket;

use mirror_tests::engine::{Engine, Ports};
use mirror_tests::process::run;
use mirror_tests::{Alone, seconds};

fn engine_path() -> String {
    Engine::binary().display().to_string()
}

/// `run` with `arguments` ends with exit code 2; returns what it said.
fn refused(test: &Alone, arguments: &[&str]) -> String {
    refused_by(test, &engine_path(), &[&["run"], arguments].concat())
}

fn refused_by(test: &Alone, program: &str, arguments: &[&str]) -> String {
    let (code, said) = run(test.folder(), "refused", program, arguments, seconds(20));
    assert_eq!(code, Some(2), "{said}");
    assert!(!said.contains("panicked"), "{said}");
    said
}

fn port_settings(ports: Ports) -> Vec<String> {
    ports
        .arguments()
        .into_iter()
        .map(|a| a.to_string_lossy().into_owned())
        .collect()
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

#[test]
fn a_second_engine_on_the_same_ports_exits_2_and_the_first_goes_on() {
    let test = Alone::begin("second-engine");
    let mut engine = Engine::start(&test, &[]);
    let settings = port_settings(engine.ports);
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let said = refused(&test, &settings);
    assert!(said.contains("in use"), "{said}");
    assert!(engine.process.ended().is_none());
    assert_eq!(
        engine.request("GET", "/healthz").map(|r| r.status),
        Some(200)
    );
}

#[test]
fn each_port_in_use_is_named() {
    let test = Alone::begin("port-in-use");
    let ports = Ports::free();
    let settings = port_settings(ports);
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    for port in [ports.srt, ports.rtp, ports.rtp + 1] {
        let taken = UdpSocket::bind(("127.0.0.1", port)).expect("the port is free");
        let said = refused(&test, &settings);
        assert!(
            said.contains(&port.to_string()) && said.contains("in use"),
            "{said}"
        );
        drop(taken);
    }
    let taken = std::net::TcpListener::bind(("127.0.0.1", ports.api)).expect("the port is free");
    let said = refused(&test, &settings);
    assert!(
        said.contains(&ports.api.to_string()) && said.contains("in use"),
        "{said}"
    );
    drop(taken);
}

#[test]
fn a_wrong_configuration_is_refused_with_every_error_at_once() {
    let test = Alone::begin("wrong-config");
    let file = test.write(
        "wrong.toml",
        "max_streams = 0\n[srt]\nlatency = \"5ms\"\nlisten = \"nowhere\"\nlatncy = \"1s\"\n[log]\nlevel = \"loud\"\n",
    );
    let file = file.display().to_string();
    let said = refused(
        &test,
        &["--config", &file, "--set", "rtp.reorder_packets=many"],
    );
    for key in [
        "max_streams",
        "srt.latency",
        "srt.listen",
        "latncy",
        "log.level",
        "rtp.reorder_packets",
    ] {
        assert!(said.contains(key), "{key} is not named:\n{said}");
    }
    for place in [
        "wrong.toml:1",
        "wrong.toml:3",
        "wrong.toml:4",
        "wrong.toml:5",
        "wrong.toml:7",
    ] {
        assert!(said.contains(place), "{place} is not named:\n{said}");
    }
    assert!(
        said.contains("20ms") && said.contains("8s"),
        "the allowed range is named:\n{said}"
    );
    let (code, _) = run(
        test.folder(),
        "config",
        engine_path(),
        &["config", "--config", &file],
        seconds(10),
    );
    assert_eq!(code, Some(2), "`config` refuses it as well");
}

#[test]
fn wrong_usage_and_missing_files_exit_2() {
    let test = Alone::begin("wrong-usage");
    refused(&test, &["--no-such-option"]);
    let said = refused(&test, &["--config", "/no/such/file.toml"]);
    assert!(said.contains("/no/such/file.toml"), "{said}");
    refused_by(&test, &engine_path(), &["no-such-command"]);
}

#[test]
fn an_api_open_to_the_world_without_a_token_is_refused() {
    let test = Alone::begin("open-api");
    let said = refused(&test, &["--set", "api.listen=0.0.0.0:18080"]);
    assert!(said.contains("token"), "{said}");
}

#[test]
fn a_core_map_with_more_cores_than_the_host_has_is_refused() {
    let test = Alone::begin("few-cores");
    let shards: String = (0..=cores())
        .map(|core| format!("[[shard]]\ncore = {core}\n"))
        .collect();
    let map = test.write("pinning.toml", &format!("[control]\ncores = [0]\n{shards}"));
    let said = refused(&test, &["--pinning", &map.display().to_string()]);
    assert!(
        said.contains(&cores().to_string()),
        "the missing core is named:\n{said}"
    );
}

#[test]
fn a_core_that_this_process_may_not_use_is_refused() {
    let test = Alone::begin("masked-core");
    if cores() < 2 {
        eprintln!("one core only: nothing to mask");
        return;
    }
    let map = test.write(
        "pinning.toml",
        "[control]\ncores = [0]\n[[shard]]\ncore = 1\n",
    );
    let (map, engine) = (map.display().to_string(), engine_path());
    let said = refused_by(
        &test,
        "taskset",
        &["-c", "0", &engine, "run", "--pinning", &map],
    );
    assert!(said.contains('1') && said.contains("core"), "{said}");
}

#[test]
fn a_memlock_limit_that_is_too_small_is_refused_with_the_remedy() {
    let test = Alone::begin("memlock");
    let engine = engine_path();
    // Without capabilities the limit counts, and cannot be raised.
    let mut words = vec!["--memlock=65536:65536"];
    if rustix::process::geteuid().is_root() {
        words.extend(["setpriv", "--bounding-set=-all", "--inh-caps=-all"]);
    }
    let settings = port_settings(Ports::free());
    words.extend([engine.as_str(), "run"]);
    words.extend(settings.iter().map(String::as_str));
    let said = refused_by(&test, "prlimit", &words);
    assert!(said.to_lowercase().contains("memlock"), "{said}");
    assert!(
        said.contains("ulimit -l") || said.contains("LimitMEMLOCK"),
        "the remedy is named:\n{said}"
    );
}

#[test]
fn config_prints_what_is_in_force_and_check_looks_at_the_host() {
    let test = Alone::begin("config-check");
    let print = |arguments: &[&str]| {
        run(
            test.folder(),
            "print",
            engine_path(),
            arguments,
            seconds(20),
        )
    };
    let (code, said) = print(&["config", "--set", "srt.latency=80ms"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("80ms"), "{said}");
    let (code, said) = print(&["check", "--json"]);
    assert!(matches!(code, Some(0 | 1)), "{said}");
    let start = said.find(['{', '[']).expect("JSON");
    let facts: serde_json::Value = serde_json::from_str(&said[start..]).expect("JSON");
    assert!(facts.to_string().contains("io_uring"), "{facts:#}");
    for command in ["run", "config", "check"] {
        let (code, said) = print(&[command, "--help"]);
        assert!(code == Some(0) && said.contains("--config"), "{said}");
    }
}
