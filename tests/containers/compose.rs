//! docker-compose.yml.

use std::collections::{BTreeMap, BTreeSet};

use clap::CommandFactory;
use firstcome_contract::family::Family;
use firstcome_rig::system::{LARGE, Program, SETTLERS};
use firstcome_workers::RoleName;
use serde::Deserialize;
use serde_json::Value;

use super::{image, text};

#[derive(Debug, Deserialize)]
struct Compose {
    services: BTreeMap<String, Service>,
}

/// What the tests look at.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Service {
    image: String,
    build: Option<String>,
    container_name: Option<String>,
    pub(crate) command: Vec<String>,
    pub(crate) environment: BTreeMap<String, String>,
    depends_on: BTreeMap<String, Dependency>,
    ports: Vec<String>,
    pub(crate) healthcheck: Option<Healthcheck>,
    restart: Option<String>,
    stop_grace_period: Option<String>,
    init: bool,
    read_only: bool,
    cap_drop: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Dependency {
    condition: String,
}

/// The image has one, which asks at the addresses of the environment; a service may do without, or ask elsewhere.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Healthcheck {
    pub(crate) test: Vec<String>,
    disable: bool,
}

impl Service {
    /// One of our programs, not a server.
    fn is_ours(&self) -> bool {
        self.image.starts_with("firstcome:")
    }

    /// It comes to an end by itself.
    pub(crate) fn ends(&self) -> bool {
        self.restart.is_none()
    }

    /// The arguments of `firstcome-worker` by which its health is asked for.
    pub(crate) fn health(&self) -> Option<&[String]> {
        let check = self.healthcheck.as_ref().filter(|check| !check.disable)?;
        let [run, program, arguments @ ..] = &check.test[..] else { panic!("{check:?}") };
        assert_eq!((run.as_str(), program.as_str()), ("CMD", "firstcome-worker"));
        Some(arguments)
    }

    /// The port at which it tells how it is.
    fn port(&self) -> Option<String> {
        let address = self.environment.get("WORKER_ADDR").cloned();
        let port = |address: String| address.rsplit_once(':').unwrap().1.to_owned();
        address.or_else(|| image::environment().remove("API_ADDR")).map(port)
    }

    /// The command, as the program itself declares it.
    fn declared(&self) -> clap::Command {
        let [program, command] = &self.command[..] else { panic!("{:?}", self.command) };
        let program = match program.as_str() {
            "firstcome-api" => firstcome_api::config::Cli::command(),
            "firstcome-worker" => firstcome_workers::cli::Cli::command(),
            other => panic!("there is no program {other}"),
        };
        let found = program.find_subcommand(command).cloned();
        found.unwrap_or_else(|| panic!("there is no command {command}"))
    }
}

fn services() -> BTreeMap<String, Service> {
    serde_saphyr::from_str::<Compose>(&text("docker-compose.yml")).unwrap().services
}

/// The services that run our programs.
pub(crate) fn programs() -> BTreeMap<String, Service> {
    let programs: BTreeMap<_, _> =
        services().into_iter().filter(|(_, service)| service.is_ours()).collect();
    assert!(!programs.is_empty());
    programs
}

#[test]
fn every_role_has_a_service_that_can_be_scaled() {
    let services = services();
    let worker = firstcome_workers::cli::Cli::command();
    let roles: Vec<&str> = worker
        .get_subcommands()
        .filter(|command| command.get_about().unwrap().to_string().starts_with("Role: "))
        .map(clap::Command::get_name)
        .collect();
    assert_eq!(roles.len(), RoleName::ALL.len(), "is this test blind?");
    for role in roles {
        let service = services.get(role).unwrap_or_else(|| panic!("no service {role}"));
        assert_eq!(service.command, ["firstcome-worker", role]);
        // Two cannot have the same.
        assert!(service.ports.is_empty() && service.container_name.is_none(), "{role}");
        // Whether it does its work; connected is not enough.
        assert!(service.environment.contains_key("WORKER_ADDR"), "{role}");
        assert_eq!(service.health().unwrap(), ["health"], "{role}");
    }
}

#[test]
fn every_setting_exists_and_none_is_missing() {
    let image = image::environment();
    for (name, service) in programs() {
        let declared = service.declared();
        let settings: BTreeMap<&str, &clap::Arg> = declared
            .get_arguments()
            .filter_map(|argument| Some((argument.get_env()?.to_str()?, argument)))
            .collect();
        for variable in service.environment.keys() {
            assert!(settings.contains_key(variable.as_str()), "{name} knows no {variable}");
        }
        for (variable, argument) in settings {
            // In a container, nothing that it needs is on its own loopback.
            let defaults = argument.get_default_values();
            let local = defaults.iter().any(|value| value.to_str().unwrap().contains("127.0.0.1"));
            let given = service.environment.contains_key(variable) || image.contains_key(variable);
            assert!(given || !(local || argument.is_required_set()), "{name} needs {variable}");
        }
    }
}

#[test]
fn a_service_waits_for_what_it_talks_to() {
    let services = services();
    for (name, service) in programs() {
        let words: BTreeSet<&str> =
            service.environment.values().flat_map(|value| value.split(['/', '@', ':'])).collect();
        for (other, server) in services.iter().filter(|(other, _)| words.contains(other.as_str())) {
            let condition = service.depends_on.get(other).map(|found| found.condition.as_str());
            assert_eq!(condition, Some("service_healthy"), "{name} on {other}");
            assert!(server.healthcheck.is_some(), "nobody can tell that {other} is healthy");
        }
        for (other, dependency) in &service.depends_on {
            let ends = services[other].is_ours() && services[other].ends();
            let completed = dependency.condition == "service_completed_successfully";
            assert_eq!(ends, completed, "{name} waits for {other} to be {}", dependency.condition);
        }
    }
}

/// `up --wait` takes a container that ended for a failure, unless another waits for its end.
#[test]
fn somebody_waits_for_what_ends() {
    let programs = programs();
    let ending = programs.iter().filter(|(_, service)| service.ends()).map(|(name, _)| name);
    let ending: Vec<&String> = ending.collect();
    assert_eq!(ending, ["migrate", "sample-data"]);
    for name in ending {
        let waited = programs.values().any(|service| service.depends_on.contains_key(name));
        assert!(waited, "nobody waits for {name}");
    }
}

#[test]
fn the_image_is_built_by_what_all_wait_for() {
    let programs = programs();
    let images: BTreeSet<&str> = programs.values().map(|service| service.image.as_str()).collect();
    assert_eq!(images.len(), 1, "{images:?}");
    for (name, service) in &programs {
        assert_eq!(service.build.is_some(), name == "migrate", "{name}");
        assert!(name == "migrate" || service.depends_on.contains_key("migrate"), "{name}");
    }
}

#[test]
fn programs_can_stop_and_cannot_do_what_they_need_not() {
    for (name, service) in programs() {
        assert!(service.init && service.read_only && service.cap_drop == ["ALL"], "{name}");
        if !service.ends() {
            assert_eq!(service.restart.as_deref(), Some("unless-stopped"), "{name}");
            // Above every program's own bound on stopping.
            assert_eq!(service.stop_grace_period.as_deref(), Some("30s"), "{name}");
        }
    }
}

#[test]
fn nothing_is_published_beyond_loopback() {
    let services = services();
    let ports: Vec<&String> = services.values().flat_map(|service| &service.ports).collect();
    assert!(ports.len() >= 5);
    for port in ports {
        assert!(port.starts_with("127.0.0.1:"), "{port}");
    }
}

#[test]
fn whatever_listens_has_a_health_check() {
    for (name, service) in services() {
        let listens = !service.is_ours() || !service.ports.is_empty();
        assert!(!listens || service.healthcheck.is_some(), "{name} has none");
        // What it asks is tried on the running shop; of a program that ends there is nothing to ask.
        assert!(!service.is_ours() || service.health().is_some() != service.ends(), "{name}");
    }
}

/// Whoever is not scraped raises no alert.
#[test]
fn prometheus_finds_every_program_that_lasts() {
    let config: Value = serde_saphyr::from_str(&text("deploy/prometheus/prometheus.yml")).unwrap();
    let jobs = config["scrape_configs"].as_array().unwrap().iter();
    let targets = jobs.flat_map(|job| job["dns_sd_configs"].as_array().unwrap());
    let targets = targets.flat_map(|target| {
        let names = target["names"].as_array().unwrap().iter();
        names.map(|name| (name.as_str().unwrap().to_owned(), target["port"].to_string()))
    });
    let checked = programs().into_iter().filter_map(|(name, service)| {
        // The mock stands for somebody else's.
        let is_ours = name != "mock-data-platform" && !service.ends();
        is_ours.then(|| (name, service.port().unwrap()))
    });
    assert_eq!(targets.collect::<BTreeMap<_, _>>(), checked.collect());
}

/// The demo and the benchmark start them by name.
#[test]
fn every_role_runs_and_every_family_is_settled() {
    let runs = |programs: &[Program], role: RoleName| {
        programs.iter().any(|program| program.argument == role.as_str())
    };
    assert!(RoleName::ALL.into_iter().all(|role| runs(&LARGE, role)));
    assert!(Family::ALL.into_iter().all(|family| runs(&SETTLERS, RoleName::of(family))));
}
