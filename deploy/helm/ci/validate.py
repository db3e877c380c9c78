#!/usr/bin/env python3
"""Checks rendered manifests from standard input: validate.py NAME_OF_THE_VALUES <rendered.yaml

Built-in kinds are checked with Kubernetes' own schemas, of the oldest version that the chart supports and of the newest that
kubernetes-validate has. Custom resources are checked with crds.json, which has the parts that the chart uses. Then it checks
what schemas do not: that names refer to something, and that pods satisfy the restricted Pod Security Standard.
"""

import json
import re
import sys
from pathlib import Path

import jsonschema
import kubernetes_validate
import yaml

CRDS = json.loads((Path(__file__).parent / "crds.json").read_text(encoding="utf-8"))
CHART = Path(__file__).resolve().parent.parent
STOPPING_SECONDS = 25  # STOPPING_MAX in src/app/start.rs


def pods(resources):
    """The templates of all pods, with their kind."""
    for resource in resources:
        template = resource["spec"].get("template") if isinstance(resource.get("spec"), dict) else None
        if template:
            yield resource["kind"], resource["metadata"]["name"], resource["spec"], template


def schema_faults(resource):
    kind = resource["kind"]
    if kind in CRDS:
        for error in jsonschema.Draft202012Validator(CRDS[kind]).iter_errors(resource):
            yield f"{error.json_path}: {error.message}"
        return
    oldest = re.search(r">=(\d+\.\d+)", (CHART / "Chart.yaml").read_text(encoding="utf-8")).group(1)
    for version in (oldest, kubernetes_validate.latest_version()):
        try:
            kubernetes_validate.validate(resource, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            yield f"Kubernetes {version}: {'.'.join(map(str, error.path))}: {error.message}"
        except (kubernetes_validate.SchemaNotFoundError, kubernetes_validate.InvalidSchemaError) as error:
            yield f"Kubernetes {version}: {error.message}"


def restricted_faults(template):
    """What the restricted Pod Security Standard refuses, and a root file system that can be written to."""
    spec = template["spec"]
    pod = spec.get("securityContext", {})
    if pod.get("runAsNonRoot") is not True or not pod.get("runAsUser"):
        yield "it may run as root"
    if pod.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        yield "it has no seccomp profile"
    if spec.get("automountServiceAccountToken") is not False:
        yield "it has a token of the Kubernetes API, which it does not use"
    for container in spec["containers"]:
        context = container.get("securityContext", {})
        if context.get("allowPrivilegeEscalation") is not False or context.get("capabilities") != {"drop": ["ALL"]}:
            yield f"{container['name']} may gain privileges"
        if context.get("readOnlyRootFilesystem") is not True:
            yield f"{container['name']} may write to its image"
        if not container.get("resources", {}).get("requests"):
            yield f"{container['name']} requests no resources"


def reference_faults(kind, spec, template, resources):
    """Names in a pod that refer to nothing."""
    pod = template["spec"]
    volumes = {volume["name"] for volume in pod["volumes"]}
    volumes |= {claim["metadata"]["name"] for claim in spec.get("volumeClaimTemplates", [])}
    labels = template["metadata"]["labels"]
    if kind != "Job" and not spec["selector"]["matchLabels"].items() <= labels.items():
        yield "its selector does not select its pods"
    for container in pod["containers"]:
        mounts = container["volumeMounts"]
        yield from (f"no volume {mount['name']}" for mount in mounts if mount["name"] not in volumes)
        paths = [mount["mountPath"] for mount in mounts]
        if len(paths) != len(set(paths)):
            yield f"two volumes have one path: {paths}"
        variables = [variable["name"] for variable in container["env"]]
        if len(variables) != len(set(variables)):
            yield f"a variable is set twice: {variables}"
        ports = {port["name"] for port in container.get("ports", [])}
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            if probe in container and container[probe]["httpGet"]["port"] not in ports:
                yield f"{probe}: no such port"
        yield from file_faults(container, pod, resources, paths)
    if kind == "StatefulSet":
        hook = pod["containers"][0].get("lifecycle", {}).get("preStop", {"exec": {"command": ["sleep", "0"]}})
        drain = int(hook["exec"]["command"][1])
        if pod["terminationGracePeriodSeconds"] < drain + STOPPING_SECONDS + 5:
            yield "it is killed before it has stopped"


def file_faults(container, pod, resources, paths):
    """Absolute paths in the configuration and the environment that no volume has."""
    config = {volume["name"]: volume for volume in pod["volumes"]}["config"]["configMap"]["name"]
    maps = {resource["metadata"]["name"]: resource["data"] for resource in resources if resource["kind"] == "ConfigMap"}
    text = maps.get(config, {}).get("foretell.toml", "") + "".join(
        str(variable.get("value", "")) for variable in container["env"]
    )
    is_init = container["name"] == "init"
    for path in re.findall(r'"(/[^"]+)"', text):
        if not any(path.startswith(f"{mount}/") for mount in paths) and (is_init or not path.startswith("/data/")):
            yield f"{container['name']}: no volume has {path}"


def service_faults(resources, templates):
    """Services, monitors and scalers that select nothing."""
    services = {r["metadata"]["name"]: r for r in resources if r["kind"] == "Service"}
    for resource in resources:
        kind, spec = resource["kind"], resource.get("spec", {})
        if kind == "Service":
            chosen = [t for *_, t in templates if spec["selector"].items() <= t["metadata"]["labels"].items()]
            containers = [container for template in chosen for container in template["spec"]["containers"]]
            ports = {port["name"] for container in containers for port in container.get("ports", [])}
            if not {port["targetPort"] for port in spec["ports"]} <= ports:
                yield f"Service {resource['metadata']['name']}: no pod has its port"
        if kind == "StatefulSet" and services.get(spec["serviceName"], {}).get("spec", {}).get("clusterIP") != "None":
            yield f"no headless service {spec['serviceName']}"
        if kind == "ScaledObject":
            target = spec["scaleTargetRef"]
            found = [r for r in resources if (r["kind"], r["metadata"]["name"]) == (target["kind"], target["name"])]
            if not found or "replicas" in found[0]["spec"]:
                yield "the ScaledObject has no target, or one whose number of replicas each upgrade resets"
        if kind == "ServiceMonitor":
            wanted = spec["selector"]["matchExpressions"][0]["values"]
            has = [service["metadata"]["labels"]["app.kubernetes.io/component"] for service in services.values()]
            yield from (
                f"ServiceMonitor: no service {name}" for name in wanted if name not in has and name != "delivery"
            )


def main(name):
    resources = [resource for resource in yaml.safe_load_all(sys.stdin) if resource]
    templates = list(pods(resources))
    faults = [f"{r['kind']} {r['metadata']['name']}: {fault}" for r in resources for fault in schema_faults(r)]
    for kind, its_name, spec, template in templates:
        wrong = [*restricted_faults(template), *reference_faults(kind, spec, template, resources)]
        faults += [f"{kind} {its_name}: {fault}" for fault in wrong]
    faults += service_faults(resources, templates)
    keys = [(r["kind"], r["metadata"]["name"]) for r in resources]
    faults += [f"two of {kind} {its_name}" for kind, its_name in sorted(set(keys)) if keys.count((kind, its_name)) > 1]
    if "StatefulSet" not in {kind for kind, _ in keys}:
        faults.append("there is no StatefulSet")
    for fault in faults:
        print(f"helm: {name}: {fault}", file=sys.stderr)
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main(sys.argv[1])
