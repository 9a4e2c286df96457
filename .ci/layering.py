"""Checks the architecture's rules that no compiler checks: who may name whom, where `unsafe` lives, what is linked.

The extension (src/) knows the server and nothing of the network; the core (src/core/) knows the network and nothing of
the server; inside each, imports flow one way. Prints every finding and fails if there is one.
"""

import re
import subprocess
import sys
import tomllib
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

SOURCE = Path("src")
CORE = SOURCE / "core"
MAX_LINES = 400
TESTS_BEGIN = "\n#[cfg(test)]\nmod "

# A server's words, which the core has no business to know.
SERVER_WORDS = re.compile(r"pgrx|pg_sys|postgres", re.IGNORECASE)
# Crates of the network, of file formats and of ciphers, which the extension reaches through the core only.
CORE_CRATES = re.compile(
    r"(?<!::)\b(?:reqwest|reqwest_middleware|hyper|object_store|snowflake_api|arrow|parquet|aes|aes_gcm|cbc|ecb|hkdf|rsa|rustls)::"
)
# Calling into the server is unsafe by nature; these are the places that do it, and nothing else may.
UNSAFE_ALLOWED = (
    "src/lib.rs",
    "src/bound.rs",
    "src/cached.rs",
    "src/client.rs",
    "src/finished.rs",
    "src/guc.rs",
    "src/guc/",
    "src/memory.rs",
    "src/net.rs",
    "src/net/",
    "src/owner.rs",
    "src/sandbox.rs",
    "src/secrets.rs",
    "src/setting.rs",
    "src/statement_end.rs",
    "src/timer.rs",
    "src/tx.rs",
    "src/uploads/entry.rs",
    "src/uploads/entry/",
    "src/utility.rs",
    "src/source",
    "src/worker",
)
# Libraries that would bring a second TLS stack or the server itself into the core.
NEVER_LINKED_TO_CORE = re.compile(r"^(?:pgrx.*|openssl|openssl-sys|native-tls|postgres.*)$")


def product_code(path: Path) -> str:
    """The file's text without its trailing test module and without comments."""
    return re.sub(r"//[^\n]*", "", path.read_text().split(TESTS_BEGIN)[0])


def product_lines(path: Path) -> int:
    """How many lines a reader of the product has to read; tests at the end do not count."""
    return len(path.read_text().split(TESTS_BEGIN)[0].splitlines())


def rust_files(root: Path, without: Path | None = None) -> list[Path]:
    """Every Rust file below `root`, in a stable order."""
    return sorted(p for p in root.rglob("*.rs") if without is None or without not in p.parents)


def module(path: Path, root: Path) -> str:
    """The top-level module a file belongs to: a folder's files may use each other freely."""
    return path.relative_to(root).parts[0].removesuffix(".rs")


def imports(root: Path, files: list[Path]) -> dict[str, set[str]]:
    """Which top-level module uses which, by `crate::` paths in product code."""
    known = {module(path, root) for path in files} - {"lib"}
    graph: dict[str, set[str]] = {name: set() for name in known}
    for path in files:
        user = module(path, root)
        if user == "lib":
            continue
        text = product_code(path)
        used = set(re.findall(r"\bcrate::(\w+)", text))
        for group in re.findall(r"\bcrate::\{((?:[^{}]|\{[^{}]*\})*)\}", text):
            used |= set(re.findall(r"(?:^|,)\s*(\w+)", re.sub(r"\{[^{}]*\}", "", group)))
        graph[user] |= (used & known) - {user}
    return graph


def cycles(root: Path, files: list[Path]) -> list[str]:
    """The first circle of imports, if the modules do not form layers."""
    try:
        TopologicalSorter(imports(root, files)).prepare()
    except CycleError as error:
        return [f"{root}: imports go round in a circle: {' <- '.join(error.args[1])}"]
    return []


def lines_matching(files: list[Path], pattern: re.Pattern[str], finding: str) -> list[str]:
    """`finding` for every line of product code that matches."""
    return [
        f"{path}:{number}: {finding}: {line.strip()}"
        for path in files
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if pattern.search(line.split("//")[0])
    ]


def unused_dependencies(manifest: Path, files: list[Path]) -> list[str]:
    """Dependencies of a manifest that no file of its crate names."""
    declared = tomllib.loads(manifest.read_text())
    names = {**declared.get("dependencies", {}), **declared.get("dev-dependencies", {})}
    text = "\n".join(path.read_text() for path in files)
    return [
        f"{manifest}: nothing uses the dependency {name}"
        for name in names
        if not re.search(rf"\b{name.replace('-', '_')}\b", text)
    ]


def linked_to_core() -> list[str]:
    """Forbidden libraries in what the core links."""
    command = [
        "cargo",
        "tree",
        "--package",
        "bridge_core",
        "--edges",
        "normal,build",
        "--prefix",
        "none",
        "--format",
        "{p}",
    ]
    tree = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    crates = {line.split()[0] for line in tree.splitlines() if line}
    if not {"bridge_core", "arrow"} <= crates:
        return ["cargo tree does not list what bridge_core links, so this check would prove nothing"]
    return [f"bridge_core links {name}" for name in sorted(crates) if NEVER_LINKED_TO_CORE.match(name)]


def main() -> int:
    """Runs every rule over the tree in the current directory."""
    core = rust_files(CORE)
    extension = rust_files(SOURCE, without=CORE)
    tests = rust_files(Path("tests"))
    findings = [
        *[
            f"{path}:{number}: the core names the server: {line.strip()}"
            for path in [*core, CORE / "Cargo.toml"]
            for number, line in enumerate(path.read_text().splitlines(), 1)
            if SERVER_WORDS.search(line)
        ],
        *lines_matching(extension, CORE_CRATES, "the extension names what belongs to the core"),
        *lines_matching(
            [path for path in extension if not str(path).startswith(UNSAFE_ALLOWED)],
            re.compile(r"\bunsafe\b(?!_code)"),
            "unsafe outside the files meant for it",
        ),
        *cycles(CORE, core),
        *cycles(SOURCE, extension),
        *unused_dependencies(Path("Cargo.toml"), extension),
        *unused_dependencies(CORE / "Cargo.toml", core + tests),
        *[
            f"{path}: {count} lines, more than {MAX_LINES}: split it by concept"
            for path in core + extension
            if path.name != "tests.rs" and "tests" not in path.parts and (count := product_lines(path)) > MAX_LINES
        ],
        *linked_to_core(),
    ]
    if "#![forbid(unsafe_code)]" not in (CORE / "lib.rs").read_text():
        findings.append(f"{CORE / 'lib.rs'}: unsafe code is not forbidden")
    print("\n".join(findings) if findings else "layers, imports, unsafe and dependencies are as they should be")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
