"""Checks what the product is made of: no second TLS stack, licences that may be combined, nothing from elsewhere.

Reads what cargo has locked, asks nobody, and prints every finding. Whether a locked version has a published vulnerability only a
database on the network can tell: `make audit`, before a release.
"""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

# What may be combined with PostgreSQL's own licence, of alternatives one is enough; and libraries that may not be linked.
POLICY = tomllib.loads(Path("deny.toml").read_text())
LICENCES = set(POLICY["licenses"]["allow"])
NEVER_LINKED = set(POLICY["bans"]["deny"])
REGISTRY = "registry+"
UNSAFE = re.compile(r"\bunsafe\s*(?:\{|impl\b|extern\b|fn\b)")


def metadata() -> dict:
    """What cargo has resolved for the product on this platform."""
    command = ["cargo", "metadata", "--format-version", "1", "--locked", "--filter-platform", "x86_64-unknown-linux-gnu"]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def linked(resolved: dict) -> set[str]:
    """Ids of the packages that are linked into the product; what only builds or tests it is not."""
    nodes = {node["id"]: node for node in resolved["resolve"]["nodes"]}
    found: set[str] = set()
    todo = list(resolved["workspace_members"])
    while todo:
        package = todo.pop()
        if package not in found:
            found.add(package)
            todo += [
                dependency["pkg"]
                for dependency in nodes[package]["deps"]
                if any(kind["kind"] is None for kind in dependency["dep_kinds"])
            ]
    return found


def is_allowed(expression: str) -> bool:
    """Whether a licence expression can be met: all of the parts that AND joins, one of those that OR joins."""
    parts = re.sub(r"[()]", " ", expression.replace("/", " OR ")).split(" AND ")
    return all(any(choice.strip() in LICENCES for choice in part.split(" OR ")) for part in parts)


def main() -> int:
    """Judges every package that is linked, and counts the unsafe code of this project."""
    resolved = metadata()
    ours = set(resolved["workspace_members"])
    ids = linked(resolved)
    packages = [package for package in resolved["packages"] if package["id"] in ids]
    findings = []
    for package in packages:
        name = f"{package['name']} {package['version']}"
        if package["name"] in NEVER_LINKED:
            findings.append(f"{name}: a second TLS stack")
        if package["id"] in ours:
            continue
        if not is_allowed(package["license"] or ""):
            findings.append(f"{name}: licence {package['license']}")
        if not (package["source"] or "").startswith(REGISTRY):
            findings.append(f"{name}: comes from {package['source'] or 'a directory'}")
    if not {"rustls", "ring", "pgrx"} <= {package["name"] for package in packages}:
        findings.append("the list of linked packages lacks what is known to be linked, so this check would prove nothing")
    unsafe = {path: len(UNSAFE.findall(re.sub(r"//[^\n]*", "", path.read_text()))) for path in Path("src").rglob("*.rs")}
    print("\n".join(findings) if findings else f"{len(packages)} packages are linked; one TLS stack, every licence known")
    print(f"unsafe: {sum(unsafe.values())} places in {sum(map(bool, unsafe.values()))} files, each with its reason beside it")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
