//! deploy/kubernetes: what its manifests name is there, and each program can do what it has to and no more.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use clap::CommandFactory;
use firstcome_contract::family::Family;
use firstcome_workers::RoleName;
use serde_json::{Value, json};

use super::{image, path, text};

const FOLDER: &str = "deploy/kubernetes";

fn kustomization() -> Value {
    serde_saphyr::from_str(&text(&format!("{FOLDER}/kustomization.yaml"))).unwrap()
}

/// Every manifest that is rendered.
fn manifests() -> Vec<Value> {
    let kustomization = kustomization();
    let named = kustomization["resources"].as_array().unwrap().iter();
    let named: BTreeSet<&str> = named.map(|name| name.as_str().unwrap()).collect();
    let files = fs::read_dir(path(FOLDER)).unwrap().map(|file| file.unwrap().file_name());
    let files: BTreeSet<String> = files.map(|name| name.into_string().unwrap()).collect();
    let mut others = files.iter().filter(|name| !named.contains(name.as_str()));
    assert!(others.all(|name| ["kustomization.yaml", "settings.env"].contains(&name.as_str())));
    let texts = named.iter().map(|name| text(&format!("{FOLDER}/{name}")));
    let texts: Vec<String> = texts.collect();
    let documents = texts.iter().flat_map(|text| text.split("\n---\n"));
    documents.map(|document| serde_saphyr::from_str(document).unwrap()).collect()
}

fn of_kind(kind: &str) -> BTreeMap<String, Value> {
    let found = manifests().into_iter().filter(|manifest| manifest["kind"] == kind);
    let named = |manifest: Value| {
        (manifest["metadata"]["name"].as_str().unwrap().to_owned(), manifest["spec"].clone())
    };
    let found: BTreeMap<_, _> = found.map(named).collect();
    assert!(!found.is_empty(), "no {kind}");
    found
}

/// The pods of Deployments and Jobs, by name.
fn pods() -> BTreeMap<String, Value> {
    let all = of_kind("Deployment").into_iter().chain(of_kind("Job"));
    all.map(|(name, spec)| (name, spec["template"].clone())).collect()
}

fn container(pod: &Value) -> &Value {
    let [container] = &pod["spec"]["containers"].as_array().unwrap()[..] else {
        panic!("one program in a pod: {pod}")
    };
    container
}

/// The variables that a program's command reads.
fn declared(container: &Value) -> BTreeMap<String, bool> {
    let [program, command] = &container["args"].as_array().unwrap()[..] else {
        panic!("{container}")
    };
    let program = match program.as_str().unwrap() {
        "firstcome-api" => firstcome_api::config::Cli::command(),
        "firstcome-worker" => firstcome_workers::cli::Cli::command(),
        other => panic!("there is no program {other}"),
    };
    let found = program.find_subcommand(command.as_str().unwrap());
    let found = found.unwrap_or_else(|| panic!("there is no command {command}"));
    let arguments = found.get_arguments();
    let settings = arguments.filter_map(|argument| {
        Some((argument.get_env()?.to_str()?.to_owned(), argument.is_required_set()))
    });
    settings.chain([("LOG_FORMAT".to_owned(), false)]).collect()
}

/// The variables of what a container's `envFrom` names: those of settings.env, or those that are told of a Secret.
fn supplied(source: &Value) -> Vec<String> {
    let settings = source["configMapRef"]["name"].as_str();
    if settings.is_some() {
        assert_eq!(settings, kustomization()["configMapGenerator"][0]["name"].as_str());
        let lines = text(&format!("{FOLDER}/settings.env"));
        let lines = lines.lines().filter(|line| !line.starts_with('#'));
        return lines.map(|line| line.split_once('=').unwrap().0.to_owned()).collect();
    }
    let secret = source["secretRef"]["name"].as_str().unwrap();
    let told = text(&format!("{FOLDER}/kustomization.yaml"));
    let told = told.split("create secret generic ").skip(1);
    let told = told.map(|told| told.split("\n#\n").next().unwrap());
    let told = told.map(|told| told.split("#   kubectl").next().unwrap());
    let told = told.filter(|told| told.split_whitespace().next() == Some(secret));
    let told: Vec<&str> = told.collect();
    let [told] = told[..] else { panic!("how is {secret} made?") };
    let names = told.split("--from-literal=").skip(1);
    names.map(|name| name.split('=').next().unwrap().to_owned()).collect()
}

#[test]
fn every_role_and_the_api_have_a_deployment() {
    let deployments = of_kind("Deployment");
    let mut expected: BTreeSet<String> =
        RoleName::ALL.map(|role| format!("firstcome-{}", role.as_str())).into();
    expected.insert("firstcome-api".to_owned());
    assert_eq!(deployments.keys().cloned().collect::<BTreeSet<_>>(), expected);
    for role in RoleName::ALL.map(RoleName::as_str) {
        let container = container(&deployments[&format!("firstcome-{role}")]["template"]).clone();
        assert_eq!(container["args"], json!(["firstcome-worker", role]));
    }
    for (name, deployment) in deployments {
        let labels = &deployment["template"]["metadata"]["labels"];
        assert_eq!(labels, &json!({"app": name}));
        assert_eq!(&deployment["selector"]["matchLabels"], labels);
    }
    assert_eq!(of_kind("Service")["firstcome-api"]["selector"], json!({"app": "firstcome-api"}));
}

#[test]
fn every_setting_exists_and_none_is_missing() {
    for (name, pod) in pods() {
        let container = container(&pod);
        let known = declared(container);
        let mut given = BTreeSet::new();
        for source in container["envFrom"].as_array().unwrap() {
            given.extend(supplied(source));
        }
        for variable in container["env"].as_array().into_iter().flatten() {
            let variable = variable["name"].as_str().unwrap();
            assert!(known.contains_key(variable), "{name} knows no {variable}");
            given.insert(variable.to_owned());
        }
        for (variable, _) in known.into_iter().filter(|(_, is_required)| *is_required) {
            assert!(given.contains(&variable), "{name} needs {variable}");
        }
        let services = ["DATABASE_URL", "AMQP_URL", "REDIS_URL"].map(str::to_owned);
        assert!(given.is_superset(&services.into()), "{name}");
        assert_eq!(given.contains("JWT_SECRET"), name == "firstcome-api", "{name}");
    }
    // What all are given, each program knows one part of.
    let known: BTreeSet<String> =
        pods().values().flat_map(|pod| declared(container(pod)).into_keys()).collect();
    for pod in pods().values() {
        for source in container(pod)["envFrom"].as_array().unwrap() {
            for variable in supplied(source) {
                assert!(known.contains(&variable), "nobody knows {variable}");
            }
        }
    }
}

#[test]
fn programs_cannot_do_what_they_need_not() {
    let user = text("Dockerfile");
    let user = user.lines().find_map(|line| line.strip_prefix("USER ")).unwrap().to_owned();
    for (name, pod) in pods() {
        let (spec, container) = (&pod["spec"], container(&pod));
        let who = &spec["securityContext"];
        assert_eq!(format!("{}:{}", who["runAsUser"], who["runAsGroup"]), user, "{name}");
        assert_eq!(who["runAsNonRoot"], true, "{name}");
        assert_eq!(who["seccompProfile"]["type"], "RuntimeDefault", "{name}");
        assert_eq!(spec["automountServiceAccountToken"], false, "{name}");
        let may = json!({
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"]},
        });
        assert_eq!(container["securityContext"], may, "{name}");
    }
}

#[test]
fn probes_and_prometheus_ask_where_the_programs_listen() {
    let listens = image::environment();
    let contract: Value = serde_json::from_str(&text("api/openapi.json")).unwrap();
    for (name, deployment) in of_kind("Deployment") {
        let pod = &deployment["template"];
        let container = container(pod);
        let variable = if name == "firstcome-api" { "API_ADDR" } else { "WORKER_ADDR" };
        let port = listens[variable].rsplit_once(':').unwrap().1;
        assert_eq!(container["ports"][0]["containerPort"].to_string(), port, "{name}");
        let annotations = &pod["metadata"]["annotations"];
        assert_eq!(annotations["prometheus.io/port"], port, "{name}");
        let asked = [
            (&annotations["prometheus.io/path"], "/metrics"),
            (&container["livenessProbe"]["httpGet"]["path"], "/health/live"),
            (&container["readinessProbe"]["httpGet"]["path"], "/health/ready"),
        ];
        for (asked, page) in asked {
            assert_eq!(asked, page, "{name}");
            // The workers have the same ones.
            assert!(contract["paths"][page]["get"].is_object(), "{page}");
        }
        for probe in ["livenessProbe", "readinessProbe"] {
            assert_eq!(container[probe]["httpGet"]["port"], container["ports"][0]["name"]);
        }
        // Above every program's own bound on stopping.
        assert_eq!(pod["spec"]["terminationGracePeriodSeconds"], 30, "{name}");
    }
}

/// A budget of a role with one process would keep its node from being drained.
#[test]
fn whoever_has_a_budget_has_several_processes() {
    let (deployments, scaled) = (of_kind("Deployment"), of_kind("ScaledObject"));
    for (name, budget) in of_kind("PodDisruptionBudget") {
        assert_eq!(budget["selector"]["matchLabels"], json!({"app": name}));
        let replicas = match scaled.get(&name) {
            Some(scaled) => &scaled["minReplicaCount"],
            None => &deployments[&name]["replicas"],
        };
        assert!(replicas.as_u64().unwrap() >= 2, "{name}");
    }
}

#[test]
fn who_settles_is_scaled_by_the_jobs_that_wait_up_to_one_process_per_line() {
    let metrics = text("docs/metrics.md");
    let partitions = text("migrations/0005_routing.sql");
    let partitions = partitions.split("partitions    integer NOT NULL DEFAULT ").nth(1).unwrap();
    let partitions: u64 = partitions.split(',').next().unwrap().parse().unwrap();
    let scaled = of_kind("ScaledObject");
    let settlers = Family::ALL.map(|family| format!("firstcome-{}", RoleName::of(family).as_str()));
    assert_eq!(scaled.keys().cloned().collect::<BTreeSet<_>>(), settlers.clone().into());
    for (family, name) in Family::ALL.into_iter().zip(settlers) {
        let scaled = &scaled[&name];
        assert_eq!(scaled["scaleTargetRef"]["name"], name);
        assert!(of_kind("Deployment")[&name]["replicas"].is_null(), "{name}: two who say how many");
        assert_eq!(scaled["maxReplicaCount"], partitions);
        let trigger = &scaled["triggers"][0];
        assert_eq!(trigger["type"], "prometheus");
        let query = trigger["metadata"]["query"].as_str().unwrap();
        let words = query.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let metric = words.into_iter().find(|word| word.starts_with("firstcome_")).unwrap();
        // Told by every API: once for each line.
        let row = format!("| `{metric}` | gauge | `family`, `line` |");
        assert!(metrics.contains(&row) && query.contains("max by (line)"), "{query}");
        assert!(query.contains(&format!("{{family=\"{}\"}}", family.as_str())), "{query}");
    }
}
